"""Opcodes that verify the configuration, nodes and disks.

The checks are pure functions that take the configuration and the nodes' answers and yield findings
(``report``). The logical units only call nodes and report.
"""
