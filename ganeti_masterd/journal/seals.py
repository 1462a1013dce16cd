"""Seals: short digests by which a row of the journal is known to be what was written.

A seal covers the kind of a row and all its columns. SQLite has no checksums of its own for
what stands in the database file, so a changed byte would come back as a wrong value.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from ganeti_masterd.journal.store import (
    ConfigEntry,
    JobEdit,
    JobEntry,
    JournalHeader,
    SerialEntry,
    StoredLogEntry,
    StoreEntry,
)

SEAL_SIZE = 8

_encode = msgspec.msgpack.Encoder().encode


def seal(kind: str, columns: Sequence[Any]) -> bytes:
    """Returns the seal of a row; ``OverflowError`` for a number of more than 64 bits."""
    return blake2b(_encode((kind, *columns)), digest_size=SEAL_SIZE).digest()


def seal_entry(entry: StoreEntry) -> bytes:
    """Returns the seal of an entry.

    That of a job covers the body by ``made``, its digest: whoever checks the seal must
    compare that as well.
    """
    if type(entry) is JobEntry:
        seq, job_id, archived, _, base, made = entry
        covered = _encode(("jobs", seq, job_id, archived, base, made))
        return blake2b(covered, digest_size=SEAL_SIZE).digest()
    return seal(KINDS[type(entry)], entry)


def seal_header(header: JournalHeader) -> bytes:
    """Returns the seal of a header."""
    return seal("header", msgspec.structs.astuple(header))


#: The table in which each kind of entry is kept.
KINDS: dict[type[StoreEntry], str] = {
    JobEntry: "jobs",
    StoredLogEntry: "logs",
    ConfigEntry: "config",
    SerialEntry: "serials",
    JobEdit: "edits",
}
