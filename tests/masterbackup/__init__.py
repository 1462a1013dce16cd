"""Tests of backups of the master."""
