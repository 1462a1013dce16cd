"""Opcodes of networks: their making and end, their changes, and which groups they reach."""
