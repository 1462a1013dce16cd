"""Descriptions of simulated clusters, as files that a daemon is started with."""

from __future__ import annotations

from pathlib import Path


def description_in(folder: Path, text: str) -> str:
    """Writes a description into a folder; returns its path."""
    path = folder / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)
