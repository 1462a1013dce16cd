"""Tests: LUXI methods."""
