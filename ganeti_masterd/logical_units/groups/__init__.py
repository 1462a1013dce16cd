"""Opcodes of node groups: their making, end and names, their parameters, and their nodes."""
