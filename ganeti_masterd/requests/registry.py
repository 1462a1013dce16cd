"""Imports every LUXI method, which adds it to the table."""

from __future__ import annotations

from ganeti_masterd.requests import filters, flags, jobs, queries, submitting
from ganeti_masterd.requests.methods import METHODS, LuxiAnswers

__all__ = ["METHODS", "LuxiAnswers", "filters", "flags", "jobs", "queries", "submitting"]
