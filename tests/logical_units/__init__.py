"""Tests: Logical units, one opcode each."""
