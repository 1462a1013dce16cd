"""Calls to node daemons, real or simulated."""
