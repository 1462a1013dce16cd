"""Tests of finding nodes for instances."""
