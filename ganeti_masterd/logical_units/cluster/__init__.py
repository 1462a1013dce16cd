"""Opcodes of the cluster as a whole: its parameters, name, master IP, keys, and its end."""

from ganeti_masterd.logical_units.cluster import (
    crypto,
    lifecycle,
    master_ip,
    redistribution,
    renaming,
    set_params,
)

__all__ = ["crypto", "lifecycle", "master_ip", "redistribution", "renaming", "set_params"]
