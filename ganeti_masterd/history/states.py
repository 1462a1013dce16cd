"""A configuration as the history keeps it: the bytes of each object, by section and uuid. Pure.

The two single parts have the uuid "": the cluster, and the document's own header, whose section
is "", as in the journal's rows. A delta is the same, with None for an object that is gone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from ganeti_masterd.config.document import merge_rows, parse
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.rows import ConfigRow

#: Which object: the key of its section, and its uuid.
Place = tuple[str, str]
ConfigState = dict[Place, bytes]
ConfigDelta = Mapping[Place, bytes | None]

#: zlib's fastest level: what is compressed are single objects, many a second.
_LEVEL = 1

HEADER: Place = ("", "")
CLUSTER: Place = ("cluster", "")


def state_of(snapshot: Snapshot) -> ConfigState:
    """Returns a configuration as the history keeps it."""
    state = {HEADER: snapshot.header.encoded, CLUSTER: snapshot.cluster.encoded}
    for key in SECTIONS:
        for uuid, obj in snapshot.section(key).items():
            state[key, uuid] = obj.encoded
    return state


def snapshot_of(state: ConfigState, source: str) -> Snapshot:
    """Returns the configuration that a state holds; ``source`` is what errors call it."""
    rows = [ConfigRow(section, uuid, body) for (section, uuid), body in state.items()]
    return parse(merge_rows(b"{}", rows), source)


def delta_between(before: ConfigState, after: ConfigState) -> dict[Place, bytes | None]:
    """Returns what makes ``after`` of ``before``."""
    delta: dict[Place, bytes | None] = {
        place: body for place, body in after.items() if before.get(place) != body
    }
    delta.update(dict.fromkeys(place for place in before if place not in after))
    return delta


def apply_delta(state: ConfigState, delta: ConfigDelta) -> None:
    """Makes the changes of a delta in a state."""
    for place, body in delta.items():
        if body is None:
            state.pop(place, None)
        else:
            state[place] = body


def pack(delta: ConfigDelta) -> bytes:
    """Returns a delta, or a state, as bytes."""
    encode = msgspec.json.encode
    rows = [
        b"[" + encode(section) + b"," + encode(uuid) + b"," + (body or b"null") + b"]"
        for (section, uuid), body in delta.items()
    ]
    return zlib.compress(b"[" + b",".join(rows) + b"]", _LEVEL)


def unpack(packed: bytes) -> dict[Place, bytes | None]:
    """Returns the delta in bytes; raises ``ConfigurationError`` for other bytes."""
    try:
        rows = decode_json(zlib.decompress(packed), list[tuple[str, str, Raw]])
    except (zlib.error, msgspec.DecodeError) as error:
        raise ConfigurationError(f"a version of the configuration can't be read: {error}") from None
    return {
        (section, uuid): None if (content := bytes(body)) == b"null" else content
        for section, uuid, body in rows
    }
