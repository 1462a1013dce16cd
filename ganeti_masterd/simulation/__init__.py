"""Simulated nodes: node daemons that answer from memory, as noded 3.0.2 would."""
