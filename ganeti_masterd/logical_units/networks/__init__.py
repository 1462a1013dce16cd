"""Opcodes of networks: adding, removing, changing, and connecting them to groups."""
