"""Tests: What comes before the reactor runs."""
