"""Doubles and drivers that this project's tests use, and others may too."""
