"""Tests of ``gnt-luxi`` and the demonstration."""
