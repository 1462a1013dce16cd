"""Tests of the switch between luxid and this daemon."""
