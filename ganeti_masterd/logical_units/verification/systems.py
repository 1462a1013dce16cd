"""Checks that the nodes of a group have the same operating systems to install. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from ganeti_masterd.logical_units.verification.pictures import Picture
from ganeti_masterd.logical_units.verification.report import Finding
from ganeti_masterd.rpc.results import OSRow


def read_systems(picture: Picture, rows: Any) -> Iterator[Finding]:
    """Fills in a node's operating systems; yields a finding if its answer is malformed."""
    try:
        told = msgspec.convert(rows, list[OSRow])
    except msgspec.ValidationError:
        yield Finding("ENODEOS", picture.name, "node hasn't returned valid OS data")
        return
    picture.systems = {}
    for row in told:
        picture.systems.setdefault(row.name, []).append(row)


def system_faults(picture: Picture, reference: Picture) -> Iterator[Finding]:
    """Yields invalid systems, and how they differ from those of the reference node.

    Both pictures must have ``systems``.
    """
    own, others = picture.systems or {}, reference.systems or {}
    for name, rows in own.items():
        first = rows[0]
        if not first.valid:
            text = f"Invalid OS {name} (located at {first.path}): {first.message}"
            yield Finding("ENODEOS", picture.name, text)
        if len(rows) > 1:
            places = ", ".join(row.path for row in rows)
            text = f"OS '{name}' has multiple entries (first one shadows the rest): {places}"
            yield Finding("ENODEOS", picture.name, text)
        if name not in others:
            text = f"Extra OS {name} not present on reference node ({reference.name})"
            yield Finding("ENODEOS", picture.name, text)
        elif others[name][0].valid:
            yield from _differences(picture, reference, name, first, others[name][0])
    if missing := sorted(set(others) - set(own)):
        text = (
            f"OSes present on reference node {reference.name} but missing on this node:"
            f" {', '.join(missing)}"
        )
        yield Finding("ENODEOS", picture.name, text)


def _differences(
    picture: Picture, reference: Picture, name: str, own: OSRow, other: OSRow
) -> Iterator[Finding]:
    for kind, here, there in (
        ("API version", _listed(own.api_versions), _listed(other.api_versions)),
        ("variants list", _listed(own.variants), _listed(other.variants)),
        ("parameters", _parameters(own), _parameters(other)),
    ):
        if here != there:
            text = (
                f"OS {kind} for {name} differs from reference node {reference.name}: [{here}] vs."
                f" [{there}]"
            )
            yield Finding("ENODEOS", picture.name, text)
    if own.trusted != other.trusted:
        text = (
            f"OS trusted for {name} differs from reference node {reference.name}: {own.trusted}"
            f" vs. {other.trusted}"
        )
        yield Finding("ENODEOS", picture.name, text)


def _listed(values: Collection[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _parameters(row: OSRow) -> str:
    return ", ".join(sorted({f"{name}: {text}" for name, text in row.parameters}))
