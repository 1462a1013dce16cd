"""Every logical unit, by being imported: whoever executes opcodes imports this."""

from __future__ import annotations

from ganeti_masterd.logical_units import (
    allocator_trial,
    cluster,
    cluster_queries,
    delay,
    groups,
    networks,
    queries,
    tags,
    trials,
)
from ganeti_masterd.logical_units.base import UNITS, is_built, unit_for
from ganeti_masterd.logical_units.nodes import units as nodes
from ganeti_masterd.logical_units.verification import units as verification

__all__ = [
    "UNITS",
    "allocator_trial",
    "cluster",
    "cluster_queries",
    "delay",
    "groups",
    "is_built",
    "networks",
    "nodes",
    "queries",
    "tags",
    "trials",
    "unit_for",
    "verification",
]
