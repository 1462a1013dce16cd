"""Tests of the opcodes: declarations, validation, wording, secrecy, summaries."""
