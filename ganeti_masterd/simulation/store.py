"""Stores the state of all simulated nodes in one SQLite file.

Only what changed is written, all nodes in one transaction. Every function here
blocks and runs in the disk thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from ganeti_masterd.simulation.shelves import EVERYTHING
from ganeti_masterd.simulation.state import StoredFile

#: Node, kind, name and the value or its JSON; None if the value was removed (name ``*``: every
#: value of the kind).
StoredChange = tuple[str, str, str, Any]

#: The name of the node in rows of the shared state.
CLUSTER = ""

#: Numbers of values that one statement writes; only a few, so that SQLite caches them all.
BLOCKS = (64, 8, 1)

SCHEMA = """
CREATE TABLE IF NOT EXISTS held (
    node TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (node, kind, name)
) WITHOUT ROWID
"""


class NodeStore:
    """The file ``nodes.sqlite``; ``synced``: a write returns when it is on the disk."""

    def __init__(self, path: str, *, synced: bool) -> None:
        self._path = path
        self._synced = synced
        self._connection: sqlite3.Connection | None = None

    def load(self) -> list[tuple[str, str, str, bytes]]:
        """Opens or creates the file; returns everything except the archived job files.

        Raises ``sqlite3.Error`` or ``OSError`` if that can't be done.
        """
        os.makedirs(os.path.dirname(self._path), mode=0o750, exist_ok=True)
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._connection = connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._synced else 'OFF'}")
        connection.execute(SCHEMA)
        rows = connection.execute(
            "SELECT node, kind, name, value FROM held WHERE kind != 'archive'"
        )
        # Many nodes have the same long values.
        held: dict[bytes, bytes] = {}
        return [
            (node, kind, name, held.setdefault(value, value)) for node, kind, name, value in rows
        ]

    def write(self, changes: Iterable[StoredChange]) -> None:
        """Writes the changes in one transaction; raises ``sqlite3.Error`` if none was."""
        if self._connection is None:
            raise sqlite3.ProgrammingError("the store of simulated nodes is not open")
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            kept: list[tuple[str, str, str, bytes]] = []
            # Files that many nodes share, so that each is encoded once; they live as long as this.
            files: dict[int, tuple[StoredFile, bytes]] = {}
            for node, kind, name, value in changes:
                if value is not None:
                    # Encoded one by one, as the state of a big cluster's nodes is large.
                    encoded = _encoded(value, files)
                    kept.append((node, kind, name, encoded))
                    if len(kept) == BLOCKS[0]:
                        _keep(connection, kept)
                        kept.clear()
                    continue
                # Earlier values are written first, so that a later removal of all wins.
                _keep(connection, kept)
                kept.clear()
                if name == EVERYTHING:
                    connection.execute("DELETE FROM held WHERE node = ? AND kind = ?", (node, kind))
                else:
                    connection.execute(
                        "DELETE FROM held WHERE node = ? AND kind = ? AND name = ?",
                        (node, kind, name),
                    )
            _keep(connection, kept)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def close(self) -> None:
        """Closes the file; may be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _encoded(value: Any, files: dict[int, tuple[StoredFile, bytes]]) -> bytes:
    """Returns the JSON of a value that may be encoded already; ``files`` are known ones by id."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, StoredFile):
        return msgspec.json.encode(value)
    known = files.get(id(value))
    if known is None:
        known = files[id(value)] = value, msgspec.json.encode(value)
    return known[1]


def _keep(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, str, bytes]]) -> None:
    """Writes values, many with one statement: each statement costs the interpreter lock."""
    start = 0
    while start < len(rows):
        size = next(block for block in BLOCKS if block <= len(rows) - start)
        connection.execute(
            f"INSERT OR REPLACE INTO held VALUES {', '.join(['(?, ?, ?, ?)'] * size)}",
            list(chain.from_iterable(rows[start : start + size])),
        )
        start += size
