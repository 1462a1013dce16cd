"""Tests: From a ready job to its result."""
