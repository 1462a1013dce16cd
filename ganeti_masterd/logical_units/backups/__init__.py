"""Opcodes that export instances, and remove exports."""
