"""Tests of the metrics and the status, and of serving them."""
