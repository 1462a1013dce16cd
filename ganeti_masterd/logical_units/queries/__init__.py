"""Opcodes that answer what the LUXI queries do, in a job."""
