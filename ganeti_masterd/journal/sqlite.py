"""The store on SQLite: WAL, ``synchronous=FULL``, one writer that shuts others out.

SQLite steps release Python's interpreter lock and may wait long to have it
back from a busy reactor. So a batch is few steps, not one for each row: rows
go in as one INSERT with many VALUES.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace
from twisted.logger import Logger
from zope.interface import implementer

from ganeti_masterd.journal.disk import sync_directory
from ganeti_masterd.journal.examination import parse_entry, parse_header
from ganeti_masterd.journal.faults import JournalCorrupt, JournalInUse, JournalTooNew
from ganeti_masterd.journal.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    TABLES,
    additions,
    statements,
    tables_in,
)
from ganeti_masterd.journal.seals import seal_entry, seal_header
from ganeti_masterd.journal.states import first_after
from ganeti_masterd.journal.store import Entries, IStore, JournalHeader, StoreEntry
from ganeti_masterd.journal.tip import TipFile, tip_path

log = Logger()

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
        self._tip: TipFile | None = None
        # The journal's files, as (device, inode) and size at the last commit; None until known.
        self._log = path + "-wal"
        self._files: dict[str, tuple[tuple[int, int], int] | None] = {path: None, self._log: None}
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            made = os.fstat(descriptor)
            self._files[path] = (made.st_dev, made.st_ino), made.st_size
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
            self._look()
            self._tip = TipFile(tip_path(path))
        except (sqlite3.Error, UnicodeDecodeError) as error:
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
        row = self._db.execute("SELECT * FROM header").fetchone()
        if row is None:
            return None
        header = parse_header(row, SCHEMA_VERSION)
        if header is None:
            raise JournalCorrupt(self.path, "its header is not what was written")
        return header

    def adopt(self, header: JournalHeader) -> None:
        """See :meth:`IStore.adopt`."""
        with self._transaction():
            self._write_header(header)
        self._committed(header.followed, 0 if self._has_rows() else header.followed)

    def append(self, entries: Entries) -> None:
        """See :meth:`IStore.append`."""
        inserts: list[tuple[str, list[Any]]] = []
        last = 0
        for table, added in entries.by_table():
            if added:
                inserts += _inserts(table, added)
                last = max(last, added[-1].seq)
        if not inserts:
            return
        # A lone statement is a transaction by itself.
        single = len(inserts) == 1
        # A log that was cut off is as long as before once it is written to again.
        self._look_at(self._log)
        with self._undone_on_failure() if single else self._transaction():
            for statement, parameters in inserts:
                self._db.execute(statement, parameters)
        try:
            self._committed(last)
        except OSError:
            self._take_back(min(entries.numbers()))
            raise

    def expect(self, config: bytes | None, serial: bytes | None) -> None:
        """See :meth:`IStore.expect`."""
        header = self.header()
        assert header is not None
        configs, serials = header.config, header.serial
        if config is not None and config not in configs:
            configs = (*configs, config)
        if serial is not None and serial not in serials:
            serials = (*serials, serial)
        try:
            self._look()
        except OSError as error:
            # What was acknowledged is in no file then but those that are about to be written.
            log.error("The files are written without the journal: {error}", error=error)
            return
        with self._transaction():
            self._write_header(replace(header, config=configs, serial=serials))
        self._committed()

    def followed(
        self,
        seq: int,
        logs: Sequence[tuple[int, int]],
        config: bytes | None,
        serial: bytes | None,
    ) -> None:
        """See :meth:`IStore.followed`."""
        header = self.header()
        self._look()
        with self._transaction():
            self._make_whole(seq)
            for table in ("jobs", "config", "serials", "edits"):
                self._db.execute(f"DELETE FROM {table} WHERE seq <= ?", (seq,))
            if logs:
                self._db.executemany("DELETE FROM logs WHERE job_id = ? AND seq < ?", logs)
            if header is not None:
                self._write_header(
                    replace(
                        header,
                        config=header.config if config is None else (config,),
                        serial=header.serial if serial is None else (serial,),
                        followed=max(header.followed, seq),
                    )
                )
        self._committed(empty=0 if self._has_rows() else seq)

    def load(self) -> Entries:
        """See :meth:`IStore.load`."""
        held = Entries()
        for table in TABLES:
            getattr(held, table).extend(self._rows(table))
        return held

    def close(self) -> None:
        """See :meth:`IStore.close`; SQLite removes its WAL with the last connection."""
        self._db.close()
        if self._tip is not None:
            self._tip.close()
            self._tip = None

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
        if application and not version:
            raise JournalCorrupt(self.path, "it has no schema version")
        for setting in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",  # private parameters must not outlive their jobs in free pages
            "trusted_schema = OFF",
        ):
            self._db.execute(f"PRAGMA {setting}")
        if application == 0:
            with self._transaction():
                self._make_tables()
        elif version == 1:
            self._upgrade()
        elif version < SCHEMA_VERSION:
            with self._transaction():
                for statement in additions(version):
                    self._db.execute(statement)

    def _make_tables(self) -> None:
        for statement in statements(SCHEMA_VERSION):
            self._db.execute(statement)

    def _upgrade(self) -> None:
        """Rewrites a journal of schema version 1, all or nothing.

        Its numbers may have gaps, so ``followed`` is set above them all. A mark that is there
        is of another journal, and says nothing about the numbers of this one.
        """
        read = self._db.execute
        held: dict[str, list[StoreEntry]] = {}
        for table in tables_in(1):
            rows = read(f"SELECT * FROM {table} ORDER BY seq").fetchall()
            parsed = [parse_entry(table, row, 1) for row in rows]
            held[table] = [entry for entry in parsed if entry is not None]
            if len(held[table]) < len(rows):
                raise JournalCorrupt(self.path, f"a row of {table} makes no sense")
        row = read("SELECT * FROM header").fetchone()
        header = None if row is None else parse_header(row, 1)
        if row is not None and header is None:
            raise JournalCorrupt(self.path, "its header makes no sense")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tip_path(self.path))
            sync_directory(os.path.dirname(self.path))
        with self._transaction():
            for table in ("header", *held):
                read(f"DROP TABLE {table}")
            self._make_tables()
            for table, entries in held.items():
                for statement, parameters in _inserts(table, entries):
                    read(statement, parameters)
            if header is not None:
                last = max((entry.seq for kept in held.values() for entry in kept), default=0)
                self._write_header(replace(header, followed=last))

    def _rows(self, table: str, of: str = "", values: Sequence[Any] = ()) -> list[Any]:
        """Returns the entries of a table, all or those ``of`` some condition, in order."""
        found = []
        for row in self._db.execute(f"SELECT * FROM {table} {of} ORDER BY seq", values):
            entry = parse_entry(table, row)
            if entry is None:
                raise JournalCorrupt(self.path, f"a row of {table} is not what was written")
            found.append(entry)
        return found

    def _make_whole(self, seq: int) -> None:
        """Lets no edit above ``seq`` build on a row that isn't."""
        for job_id, numbers in self._edited_across(seq).items():
            held = Entries()
            for number in numbers:
                held.jobs += self._rows("jobs", "WHERE seq = ?", (number,))
                held.edits += self._rows("edits", "WHERE seq = ?", (number,))
            try:
                (whole,) = first_after(held, seq)
            except ValueError as error:
                raise JournalCorrupt(self.path, f"job {job_id}: {error}") from None
            self._db.execute("DELETE FROM edits WHERE seq = ?", (whole.seq,))
            for statement, parameters in _inserts("jobs", [whole]):
                self._db.execute(statement, parameters)

    def _edited_across(self, seq: int) -> dict[int, list[int]]:
        """Returns the jobs whose first row above ``seq`` is an edit, with the numbers that make it.

        Of each job these are the last whole row, the edits since then, and that edit. The tables
        have no index by job, which each commit would pay for: so each is read once for all jobs.
        """

        def by_job(numbers: str, table: str, above: bool) -> dict[int, int]:
            condition = ">" if above else "<="
            return dict(
                self._db.execute(
                    f"SELECT job_id, {numbers}(seq) FROM {table} WHERE seq {condition} ?"
                    " GROUP BY job_id",
                    (seq,),
                )
            )

        first = by_job("min", "edits", above=True)
        if not first:
            return {}
        for job_id, number in by_job("min", "jobs", above=True).items():
            if number < first.get(job_id, 0):
                del first[job_id]
        whole = by_job("max", "jobs", above=False)
        found = {job_id: [whole[job_id]] if job_id in whole else [] for job_id in first}
        edits = self._db.execute(
            "SELECT job_id, seq FROM edits WHERE seq <= ? ORDER BY seq", (seq,)
        )
        for job_id, number in edits:
            if job_id in found and number > whole.get(job_id, 0):
                found[job_id].append(number)
        for job_id, number in first.items():
            found[job_id].append(number)
        return found

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _write_header(self, header: JournalHeader) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO header"
            " (one, cluster, master, config, serial, reason, followed, seal, failures)"
            " VALUES (1, ?, ?, ?, ?, ?, ?, ?, coalesce((SELECT failures FROM header), 0))",
            (
                header.cluster,
                header.master,
                b"".join(header.config),
                b"".join(header.serial),
                header.reason,
                header.followed,
                seal_header(header),
            ),
        )

    def _has_rows(self) -> bool:
        any_row = " OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in TABLES)
        return bool(self._db.execute(f"SELECT {any_row}").fetchone()[0])

    def _look(self) -> None:
        """Raises ``OSError`` where the journal's files aren't those that SQLite writes to.

        They were removed, replaced or cut off under it, and what is written now no restart
        would find. SQLite itself goes on and doesn't notice.
        """
        for path in self._files:
            self._look_at(path)

    def _look_at(self, path: str) -> None:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise OSError(errno.ESTALE, "the journal's file was removed", path) from None
        place, size = (found.st_dev, found.st_ino), found.st_size
        known = self._files[path]
        if known is not None:
            if place != known[0]:
                raise OSError(errno.ESTALE, "the journal's file was replaced", path)
            if size < known[1]:
                raise OSError(errno.ESTALE, "the journal's file was cut off", path)
            if size == known[1]:
                return
        self._files[path] = place, size

    def _committed(self, reached: int = 0, empty: int = 0) -> None:
        """Notes what a commit made durable; raises ``OSError`` if no restart will find it."""
        self._look()
        if self._tip is not None:
            self._tip.advance(max(reached, empty), empty)

    def _take_back(self, first: int) -> None:
        """Removes rows that were committed to files that no restart will find."""
        with contextlib.suppress(sqlite3.Error), self._transaction():
            for table in TABLES:
                self._db.execute(f"DELETE FROM {table} WHERE seq >= ?", (first,))

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


def _inserts(table: str, entries: Sequence[StoreEntry]) -> Iterator[tuple[str, list[Any]]]:
    start, count = 0, len(entries)
    while start < count:
        rest = count - start
        size = rest
        for block in _BLOCKS:
            if rest > block:
                size = block
        parameters: list[Any] = []
        for entry in entries[start : start + size] if size < count else entries:
            parameters += (*entry, seal_entry(entry))
        yield _insert_of(table, size), parameters
        start += size


@cache
def _insert_of(table: str, rows: int) -> str:
    """Returns the statement that adds so many rows; there are no more of them than sizes."""
    row = f"({', '.join('?' * (TABLES[table][0] + 1))})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"
