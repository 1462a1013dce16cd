"""Tests of the metrics and the status, and of how they are served."""
