"""Tests of how nodes are found for instances."""
