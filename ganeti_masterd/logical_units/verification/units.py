"""The logical units of verification, by being imported."""

from __future__ import annotations

from ganeti_masterd.logical_units.verification import (
    configuration,
    disks,
    group,
    overview,
    sizes,
)

__all__ = ["configuration", "disks", "group", "overview", "sizes"]
