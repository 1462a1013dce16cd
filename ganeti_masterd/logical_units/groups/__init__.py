"""Opcodes of node groups: their making, end and names, their parameters, and their nodes."""

from ganeti_masterd.logical_units.groups import assigning, declaring, parameters

__all__ = ["assigning", "declaring", "parameters"]
