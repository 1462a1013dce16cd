"""Questions about the versions of a configuration, asked in the history's thread. Blocking."""

from __future__ import annotations

from collections import ChainMap
from typing import Any, cast

import msgspec
from msgspec import Struct

from ganeti_masterd.config.document import encode
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import ECODE_NOENT, OpPrereqError
from ganeti_masterd.history.differences import ConfigDifference, differences, masked
from ganeti_masterd.history.states import Place, apply_delta, snapshot_of
from ganeti_masterd.history.versions import VersionLine, VersionStore

#: How many differences of one version a list shows.
SHOWN = 5


class VersionChanges(Struct, frozen=True):
    """A version with what it changed: the first lines, and how many there are."""

    version: VersionLine
    lines: list[str]
    count: int


def listing(store: VersionStore, newest: int | None) -> list[VersionChanges]:
    """Returns the last versions, the oldest first, each with what it changed."""
    lines = store.lines(newest)
    if not lines:
        return []
    first = lines[0].id
    state = store.state(first - 1)
    told: dict[int, list[ConfigDifference]] = {}
    for number, delta in store.deltas(after=first - 1):
        # Not a copy of the whole, of which there may be much.
        before: dict[Place, bytes | None] = {place: state.get(place) for place in delta}
        apply_delta(state, delta)
        told[number] = differences(ChainMap(before, cast(Any, state)), state, delta)
    return [
        VersionChanges(line, [one.text for one in found[:SHOWN]], len(found))
        for line in lines
        for found in (told[line.id],)
    ]


def compared(store: VersionStore, old: int, new: int | None) -> list[ConfigDifference]:
    """Returns what differs between two versions; ``new`` None: the newest."""
    _check(store, old)
    if new is not None:
        _check(store, new)
    return differences(store.state(old), store.state(new))


def shown(store: VersionStore, number: int) -> dict[str, Any]:
    """Returns a version as JSON values, without what must stay private."""
    content = encode(version(store, number))
    found: dict[str, Any] = masked(decode_json(content, dict[str, Any]))
    return found


def version(store: VersionStore, number: int) -> Snapshot:
    """Returns the configuration of a version."""
    _check(store, number)
    return snapshot_of(store.state(number), f"version {number} of the configuration")


def as_plain(found: list[ConfigDifference]) -> list[dict[str, Any]]:
    """Returns differences as JSON values, each with its text."""
    return [{**msgspec.structs.asdict(one), "text": one.text} for one in found]


def _check(store: VersionStore, number: int) -> None:
    if not store.has(number):
        raise OpPrereqError(
            f"There is no version {number} of the configuration (any more)", ECODE_NOENT
        )
