"""Opcodes on one instance, and what they have in common."""
