"""Tests of moves and mirrors."""
