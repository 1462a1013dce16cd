"""Every logical unit, by being imported: whoever executes opcodes imports this."""

from __future__ import annotations

from ganeti_masterd.logical_units import cluster_queries, delay, queries, tags, trials
from ganeti_masterd.logical_units.base import UNITS, is_built, unit_for

__all__ = ["UNITS", "cluster_queries", "delay", "is_built", "queries", "tags", "trials", "unit_for"]
