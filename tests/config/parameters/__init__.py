"""Tests of parameters: their types, their limits, and changes of them."""
