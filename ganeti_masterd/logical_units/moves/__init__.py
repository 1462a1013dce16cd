"""Instances and halves of their mirrors change nodes: procedures of several steps, and opcodes."""
