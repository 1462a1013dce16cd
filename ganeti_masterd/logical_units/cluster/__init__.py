"""Opcodes of the cluster as a whole: its parameters, name, master IP, keys, tags, and its end."""
