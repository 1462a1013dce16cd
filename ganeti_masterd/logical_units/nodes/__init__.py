"""Opcodes of nodes: adding, removing and changing them, their storage, and commands to them."""
