"""Opcodes of nodes: who is in the cluster, in which role, and what a node is told to do."""
