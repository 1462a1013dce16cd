"""Imports every LUXI method, which adds it to the table."""

from __future__ import annotations

from ganeti_masterd.requests import (
    backing_up,
    config_history,
    filters,
    flags,
    jobs,
    queries,
    submitting,
)
from ganeti_masterd.requests.methods import METHODS, OWN_METHODS, LuxiAnswers

__all__ = [
    "METHODS",
    "OWN_METHODS",
    "LuxiAnswers",
    "backing_up",
    "config_history",
    "filters",
    "flags",
    "jobs",
    "queries",
    "submitting",
]
