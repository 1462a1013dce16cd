"""Tests of the lock table, its keeper and the lock listing."""
