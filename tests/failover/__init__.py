"""Tests of making a candidate the master."""
