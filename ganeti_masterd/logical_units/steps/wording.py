"""How Ganeti writes sizes in messages. Pure."""

from __future__ import annotations


def size_text(mebibytes: int) -> str:
    """Returns a size in MiB as Ganeti writes it: ``64M``, ``1.5G``, ``2.0T``."""
    if mebibytes < 1024:
        return f"{mebibytes}M"
    if mebibytes < 1024 * 1024:
        return f"{mebibytes / 1024:.1f}G"
    return f"{mebibytes / 1024 / 1024:.1f}T"
