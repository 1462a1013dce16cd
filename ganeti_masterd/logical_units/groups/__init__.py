"""Opcodes of node groups: adding, removing, renaming, their parameters, and their nodes."""
