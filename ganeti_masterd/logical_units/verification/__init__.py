"""Opcodes that look for faults: in the configuration, on nodes, and of disks.

What judges is pure: functions that get the configuration and the nodes'
answers and yield findings (``report``). The logical units only ask and report.
"""
