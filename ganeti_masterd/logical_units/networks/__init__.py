"""Opcodes of networks: their making and end, their changes, and which groups they reach."""

from ganeti_masterd.logical_units.networks import changing, connecting, declaring

__all__ = ["changing", "connecting", "declaring"]
