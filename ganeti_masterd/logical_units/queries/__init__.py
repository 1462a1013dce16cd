"""Opcodes that answer LUXI queries in a job."""
