"""The store on SQLite: WAL, ``synchronous=FULL``, one writer that shuts others out.

SQLite steps release Python's interpreter lock and may wait long to have it
back from a busy reactor. So a batch is few steps, not one for each row: rows
go in as one INSERT with many VALUES.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from zope.interface import implementer

from ganeti_masterd.journal.digests import DIGEST_SIZE
from ganeti_masterd.journal.faults import JournalCorrupt, JournalInUse, JournalTooNew
from ganeti_masterd.journal.store import (
    ConfigEntry,
    Entries,
    IStore,
    JobEntry,
    JournalHeader,
    SerialEntry,
    StoredLogEntry,
)

SCHEMA_VERSION = 1

#: Kept in the file's header, tells a journal from any other database ("GnMJ").
APPLICATION_ID = 0x476E4D4A

_SCHEMA = f"""
BEGIN IMMEDIATE;
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
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_COLUMNS = {"jobs": 6, "logs": 5, "config": 4, "serials": 2}

# A statement is prepared for each number of rows up to the first, and for blocks of these.
_BLOCKS = (48, 480)

_BUSY_SECONDS = 1.0


@implementer(IStore)
class SQLiteStore:
    """An :class:`IStore` in one SQLite file, mode 0600, made where it is missing.

    Raises :class:`JournalCorrupt`, :class:`JournalTooNew` or
    :class:`JournalInUse`, each naming the file; ``OSError`` where it can't be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        try:
            self._db = sqlite3.connect(
                path,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=4 * _BLOCKS[0],
            )
        except sqlite3.Error as error:
            raise JournalCorrupt(path, str(error))
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            ):
                raise JournalInUse(path)
            raise JournalCorrupt(path, str(error))
        except BaseException:
            self._db.close()
            raise

    def header(self) -> JournalHeader | None:
        """See :meth:`IStore.header`."""
        row = self._db.execute(
            "SELECT cluster, master, config, serial, reason FROM header"
        ).fetchone()
        if row is None:
            return None
        cluster, master, config, serial, reason = row
        return JournalHeader(cluster, master, _split(config), _split(serial), reason)

    def adopt(self, header: JournalHeader) -> None:
        """See :meth:`IStore.adopt`."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO header (one, cluster, master, config, serial, reason)"
                " VALUES (1, ?, ?, ?, ?, ?)",
                (
                    header.cluster,
                    header.master,
                    b"".join(header.config),
                    b"".join(header.serial),
                    header.reason,
                ),
            )

    def append(self, entries: Entries) -> None:
        """See :meth:`IStore.append`."""
        statements = [
            *_inserts("jobs", entries.jobs),
            *_inserts("logs", entries.logs),
            *_inserts("config", entries.config),
            *_inserts("serials", entries.serials),
        ]
        if not statements:
            return
        # A lone statement is a transaction by itself.
        single = len(statements) == 1
        with self._undone_on_failure() if single else self._transaction():
            for statement, parameters in statements:
                self._db.execute(statement, parameters)

    def expect(self, config: bytes | None, serial: bytes | None) -> None:
        """See :meth:`IStore.expect`."""
        header = self.header()
        assert header is not None
        with self._transaction():
            if config is not None and config not in header.config:
                self._set_digests("config", (*header.config, config))
            if serial is not None and serial not in header.serial:
                self._set_digests("serial", (*header.serial, serial))

    def followed(
        self,
        seq: int,
        logs: Sequence[tuple[int, int]],
        config: bytes | None,
        serial: bytes | None,
    ) -> None:
        """See :meth:`IStore.followed`."""
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE seq <= ?", (seq,))
            self._db.execute("DELETE FROM config WHERE seq <= ?", (seq,))
            self._db.execute("DELETE FROM serials WHERE seq <= ?", (seq,))
            if logs:
                self._db.executemany("DELETE FROM logs WHERE job_id = ? AND seq < ?", logs)
            if config is not None:
                self._set_digests("config", (config,))
            if serial is not None:
                self._set_digests("serial", (serial,))

    def load(self) -> Entries:
        """See :meth:`IStore.load`."""
        rows = self._db.execute
        return Entries(
            jobs=[
                JobEntry(seq, job_id, bool(archived), body, base, made)
                for seq, job_id, archived, body, base, made in rows(
                    "SELECT seq, job_id, archived, body, base, made FROM jobs ORDER BY seq"
                )
            ],
            logs=[
                StoredLogEntry(*row)
                for row in rows("SELECT job_id, seq, op_index, entry, base FROM logs ORDER BY seq")
            ],
            config=[
                ConfigEntry(*row)
                for row in rows("SELECT seq, section, uuid, body FROM config ORDER BY seq")
            ],
            serials=[
                SerialEntry(*row) for row in rows("SELECT seq, reserved FROM serials ORDER BY seq")
            ],
        )

    def close(self) -> None:
        """See :meth:`IStore.close`; SQLite removes its WAL with the last connection."""
        self._db.close()

    def _prepare(self) -> None:
        """Checks what the file is before it changes anything in it."""
        self._pragma("locking_mode = EXCLUSIVE")  # before WAL: no shared memory, no second writer
        version = self._pragma("user_version")
        application = self._pragma("application_id")
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (application or version or tables):
            raise JournalCorrupt(self.path, "it is a database of another program")
        if version > SCHEMA_VERSION:
            raise JournalTooNew(self.path, version, SCHEMA_VERSION)
        fault = self._pragma("quick_check(1)")
        if fault != "ok":
            raise JournalCorrupt(self.path, fault)
        for setting in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",  # private parameters must not outlive their jobs in free pages
            "trusted_schema = OFF",
        ):
            self._db.execute(f"PRAGMA {setting}")
        if application == 0:
            self._db.executescript(_SCHEMA)

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _set_digests(self, column: str, digests: Sequence[bytes]) -> None:
        self._db.execute(f"UPDATE header SET {column} = ?", (b"".join(digests),))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._undone_on_failure():
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        """Undoes what failed, for good.

        A transaction whose sync failed may stand whole in the WAL, and a crash
        would bring it back. Another one that succeeds overwrites it there.
        """
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._db.execute("UPDATE header SET failures = failures + 1")
            raise


def _inserts(table: str, entries: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    start, count = 0, len(entries)
    row = f"({', '.join('?' * _COLUMNS[table])})"
    while start < count:
        rest = count - start
        size = rest
        for block in _BLOCKS:
            if rest > block:
                size = block
        yield (
            f"INSERT INTO {table} VALUES {', '.join([row] * size)}",
            list(chain.from_iterable(entries[start : start + size])),
        )
        start += size


def _split(digests: bytes) -> tuple[bytes, ...]:
    return tuple(
        digests[start : start + DIGEST_SIZE] for start in range(0, len(digests), DIGEST_SIZE)
    )
