"""Tests of the configuration's history."""
