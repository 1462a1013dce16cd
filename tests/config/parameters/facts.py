"""Recorded facts about Ganeti 3.0.2's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

FACTS: dict[str, Any] = msgspec.json.decode(
    (Path(__file__).parents[2] / "data" / "parameters.json").read_bytes()
)
