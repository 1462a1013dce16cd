"""Disks of instances: what they are made of, and the steps on them that opcodes share."""
