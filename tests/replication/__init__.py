"""Tests of what other nodes are sent."""
