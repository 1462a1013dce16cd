"""Simulated nodes: answer calls from memory as noded 3.0.2 would."""
