"""Tests of the logical units of nodes."""
