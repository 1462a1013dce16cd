"""The tables of a journal on SQLite, in each version of the schema.

Version 3 has a table of edits. Version 2 hasn't; version 1 has neither seals nor the header's
``followed`` mark. A journal of an earlier version is read, and becomes one of this when it is
opened.
"""

from __future__ import annotations

import sqlite3
from functools import cache

SCHEMA_VERSION = 3

#: Kept in the file's header, tells a journal from any other database ("GnMJ").
APPLICATION_ID = 0x476E4D4A

#: The tables of rows, each with how many columns it has without the seal, and by how many
#: of the first ones it is ordered.
TABLES = {"jobs": (6, 1), "logs": (5, 2), "config": (4, 1), "serials": (2, 1), "edits": (5, 1)}

_VERSION_1 = """
CREATE TABLE header (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cluster TEXT NOT NULL, master TEXT NOT NULL,
    config BLOB NOT NULL, serial BLOB NOT NULL,
    reason TEXT NOT NULL, failures INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, archived INTEGER NOT NULL,
    body BLOB NOT NULL, base BLOB NOT NULL, made BLOB NOT NULL
);
CREATE TABLE logs (
    job_id INTEGER NOT NULL, seq INTEGER NOT NULL, op_index INTEGER NOT NULL,
    entry BLOB NOT NULL, base BLOB NOT NULL, PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;
CREATE TABLE config (
    seq INTEGER PRIMARY KEY, section TEXT NOT NULL, uuid TEXT NOT NULL, body BLOB
);
CREATE TABLE serials (seq INTEGER PRIMARY KEY, reserved INTEGER NOT NULL);
"""

_VERSION_2 = """
CREATE TABLE header (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cluster TEXT NOT NULL, master TEXT NOT NULL,
    config BLOB NOT NULL, serial BLOB NOT NULL,
    reason TEXT NOT NULL, followed INTEGER NOT NULL, seal BLOB NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, archived INTEGER NOT NULL,
    body BLOB NOT NULL, base BLOB NOT NULL, made BLOB NOT NULL, seal BLOB NOT NULL
);
CREATE TABLE logs (
    job_id INTEGER NOT NULL, seq INTEGER NOT NULL, op_index INTEGER NOT NULL,
    entry BLOB NOT NULL, base BLOB NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;
CREATE TABLE config (
    seq INTEGER PRIMARY KEY, section TEXT NOT NULL, uuid TEXT NOT NULL, body BLOB,
    seal BLOB NOT NULL
);
CREATE TABLE serials (
    seq INTEGER PRIMARY KEY, reserved INTEGER NOT NULL, seal BLOB NOT NULL
);
"""

_EDITS = """
CREATE TABLE edits (
    seq INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, edit BLOB NOT NULL,
    base BLOB NOT NULL, made BLOB NOT NULL, seal BLOB NOT NULL
);
"""

_VERSIONS = {1: _VERSION_1, 2: _VERSION_2, 3: _VERSION_2 + _EDITS}

#: The versions that this daemon reads.
KNOWN_VERSIONS = tuple(_VERSIONS)


def tables_in(version: int) -> list[str]:
    """Returns which of :data:`TABLES` a version has."""
    return [table for table in TABLES if version >= 3 or table != "edits"]


def additions(version: int) -> list[str]:
    """Returns what makes a journal of this version of one of version 2, or a later one."""
    made = set(statements(version))
    return [statement for statement in statements(SCHEMA_VERSION) if statement not in made]


def statements(version: int) -> list[str]:
    """Returns what makes the tables of a version, and marks the file as a journal of it."""
    return [
        *filter(None, map(str.strip, _VERSIONS[version].split(";"))),
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {version}",
    ]


def tables_of(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Returns what the schema in a database holds: type, name and statement of each part."""
    return sorted(
        (kind, name, sql or "")
        for kind, name, sql in database.execute("SELECT type, name, sql FROM sqlite_master")
    )


@cache
def expected_tables(version: int) -> list[tuple[str, str, str]]:
    """Returns what :func:`tables_of` must return for a journal of a version."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in statements(version):
            database.execute(statement)
        return tables_of(database)
    finally:
        database.close()
