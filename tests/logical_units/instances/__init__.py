"""Tests of the logical units of instances."""
