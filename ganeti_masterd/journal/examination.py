"""Reads a journal without changing a byte of it: whether it is whole, and what can be saved.

Every start does this before SQLite may write. What was acknowledged is all there if each row
has its seal, the numbers above the header's ``followed`` mark are without a gap, and the last
one is not below the mark beside the journal (:mod:`ganeti_masterd.journal.tip`). A last write
that was cut off passes this test: nobody was told that it succeeded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.logger import Logger

from ganeti_masterd.journal.digests import DIGEST_SIZE, digest_of
from ganeti_masterd.journal.faults import JournalCorrupt, JournalInUse, JournalTooNew
from ganeti_masterd.journal.schema import (
    APPLICATION_ID,
    KNOWN_VERSIONS,
    SCHEMA_VERSION,
    TABLES,
    expected_tables,
    tables_in,
    tables_of,
)
from ganeti_masterd.journal.seals import seal_entry, seal_header
from ganeti_masterd.journal.states import last_states
from ganeti_masterd.journal.store import (
    ConfigEntry,
    Entries,
    JobEdit,
    JobEntry,
    JournalHeader,
    SerialEntry,
    StoredLogEntry,
    StoreEntry,
)
from ganeti_masterd.journal.tip import Tip, decode_tip, tip_path
from ganeti_masterd.journal.wal import pages_of_all_frames

log = Logger()

#: What is needed of a tip's file to tell that it is too long.
_TIP_BYTES = 64

#: What reading a damaged database raises: also where SQLite's message quotes it, byte by byte,
#: or where a length in it is taken for one.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError, MemoryError)

#: SQLite's errors that come from the disk, or from the rights on it.
_NOT_THE_BYTES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
    }
)

_TYPES: dict[str, tuple[type[Any], ...]] = {
    "jobs": (int, int, int, bytes, bytes, bytes),
    "logs": (int, int, int, bytes, bytes),
    "config": (int, str, str, bytes),
    "serials": (int, int),
    "edits": (int, int, bytes, bytes, bytes),
}


class Examined(Struct, frozen=True):
    """What is in a journal. ``losses`` is empty if it is whole: all that it should hold is there.

    ``entries`` are the rows that are as they were written. ``header`` is None where there is
    none, or none that is as it was written. ``reached`` is the highest number ever
    acknowledged, as far as is known.
    """

    header: JournalHeader | None
    entries: Entries
    losses: list[str] = field(default_factory=list)
    reached: int = 0


def examine(path: str) -> Examined:
    """Reads the journal at ``path``; a missing one is empty.

    Raises :class:`JournalInUse`, :class:`JournalTooNew`, :class:`JournalCorrupt` for what isn't
    a journal at all, and ``OSError``.
    """
    tip = _read_tip(path)
    size = _size(path)
    if size == 0:
        held = _Reading()
        if _size(path + "-wal"):
            held.faults.append("its file is empty or missing, the write-ahead log isn't")
    else:
        _finish_creation(path)
        held = _read(path)
    if held.version == 1:
        tip = Tip()  # a mark beside it is of another journal
    examined = judge(held.header, held.entries(), tip, held.faults, held.damaged)
    return _with_salvage(path, held, tip) if examined.losses else examined


def judge(
    header: JournalHeader | None,
    entries: Entries,
    tip: Tip,
    faults: Sequence[str] = (),
    damaged: Mapping[int, str] = MappingProxyType({}),
) -> Examined:
    """Returns what was read, with all that is missing from it. Pure.

    ``faults`` and ``damaged``, rows by number with their tables, are known already. Rows that
    are in the files, as the mark says, are left out; so a journal that is older than the mark
    is whole if it was empty at that time.
    """
    followed = max(header.followed if header is not None else 0, tip.empty)
    last = max(entries.last_seq, header.followed if header is not None else 0)
    entries = _above(entries, tip.empty)
    losses = [*faults]
    broken = {edit.seq for edit in last_states(entries)[1]}
    entries = replace(entries, edits=[edit for edit in entries.edits if edit.seq not in broken])
    saved = set(entries.numbers())
    gone = {number: table for number, table in damaged.items() if number not in saved}
    losses += [f"row {number} ({table}) is damaged" for number, table in gone.items()]
    losses += [f"row {number} (edits) lacks what it changes" for number in sorted(broken)]
    if header is None and saved:
        losses.append("it has rows but no header that can be read")
    known = sorted(number for number in saved | set(gone) | broken if number > followed)
    until = max(last, tip.reached)
    losses += [f"{_numbers(first, to)} missing" for first, to in _gaps(known, followed, until)]
    return Examined(header, entries, [_printable(loss) for loss in losses], until)


def _above(entries: Entries, number: int) -> Entries:
    """Returns the entries with higher numbers."""
    if not number:
        return entries
    return Entries(
        [entry for entry in entries.jobs if entry.seq > number],
        [line for line in entries.logs if line.seq > number],
        [entry for entry in entries.config if entry.seq > number],
        [entry for entry in entries.serials if entry.seq > number],
        [edit for edit in entries.edits if edit.seq > number],
    )


def _printable(text: str) -> str:
    """Returns what SQLite says in a form that can be logged, whatever bytes it quotes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _gaps(numbers: Iterable[int], after: int, until: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges that are missing in sorted numbers above ``after``, up to ``until``."""
    expected = after + 1
    for number in numbers:
        if number > expected:
            yield expected, number - 1
        expected = number + 1
    if expected <= until:
        yield expected, until


def _numbers(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _size(path: str) -> int:
    """Returns the size of a regular file, 0 where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        raise JournalCorrupt(path, "it is not a regular file")
    return found.st_size


def _read_tip(path: str) -> Tip:
    place = tip_path(path)
    if not _size(place):
        return Tip()
    with open(place, "rb") as file:
        tip = decode_tip(file.read(_TIP_BYTES))
    if tip is None:
        log.error(
            "{place} is damaged: whether the journal {path} lost its end is not known",
            place=place,
            path=path,
        )
    return tip or Tip()


def _finish_creation(path: str) -> None:
    """Lets SQLite undo a creation that was cut short: nothing else uses its rollback journal."""
    if _size(path + "-journal"):
        with contextlib.suppress(sqlite3.Error):
            database = sqlite3.connect(path, timeout=0.0)
            try:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            finally:
                database.close()


class _Reading:
    """What one pass over a database finds; ``version`` is 0 in a new one."""

    def __init__(self) -> None:
        self.version = 0
        self.header: JournalHeader | None = None
        self.rows: dict[str, dict[Any, StoreEntry]] = {table: {} for table in TABLES}
        self.faults: list[str] = []
        self.damaged: dict[int, str] = {}

    def entries(self) -> Entries:
        """Returns the rows, in order."""
        found = Entries()
        for table, rows in self.rows.items():
            getattr(found, table).extend(sorted(rows.values(), key=lambda entry: entry.seq))
        # An edit that was made whole may be in older frames of a damaged log as well.
        whole = {entry.seq for entry in found.jobs}
        found.edits = [edit for edit in found.edits if edit.seq not in whole]
        return found


def _read(path: str) -> _Reading:
    """Reads a database as SQLite sees it; SQLite's errors become faults."""
    reading = _Reading()
    # Without a log there is nothing to lock or to recover, and no file is made beside it.
    how = "mode=ro" if _size(path + "-wal") else "mode=ro&immutable=1"
    index, indexed = path + "-shm", os.path.lexists(path + "-shm")
    try:
        database = sqlite3.connect(
            f"file:{quote(path)}?{how}", uri=True, timeout=1.0, isolation_level=None
        )
        try:
            # A text that isn't UTF-8 is a row that is damaged, no end of the reading.
            database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            _read_database(path, database, reading)
        finally:
            database.close()
            if not indexed:
                with contextlib.suppress(OSError):
                    os.unlink(index)  # the reader's index of the log; the store's is in memory
    except _SQLITE_ERRORS as error:
        _refuse_if_unreadable(path, error)
        reading.faults.append(f"SQLite can't read it: {error}")
    return reading


def _refuse_if_unreadable(path: str, error: Exception) -> None:
    """Raises for an error of SQLite that says nothing about the bytes of the journal."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise JournalInUse(path) from None
    # A reader of the log has an index on disk beside it.
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        raise OSError(errno.ENOSPC, f"{path}: {os.strerror(errno.ENOSPC)}") from None
    if code & 0xFF in _NOT_THE_BYTES:
        raise OSError(errno.EIO, f"SQLite can't read it ({error})", path) from None


def _read_database(path: str, database: sqlite3.Connection, reading: _Reading) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    application = database.execute("PRAGMA application_id").fetchone()[0]
    tables = tables_of(database)
    if application != APPLICATION_ID and not _ours(tables):
        if application or version or tables:
            raise JournalCorrupt(path, "it is a database of another program")
        return
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise JournalTooNew(path, version, SCHEMA_VERSION)
    if application != APPLICATION_ID:
        reading.faults.append("its application id is another one")
    matching = [known for known in KNOWN_VERSIONS if tables == expected_tables(known)]
    if matching != [version]:
        reading.faults.append(f"its tables are not those of schema version {version}")
    reading.version = matching[0] if matching else SCHEMA_VERSION
    fault = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        reading.faults.append(f"SQLite's check says: {fault}")
    reading.header = _read_header(path, database, reading)
    for table in tables_in(reading.version):
        _read_table(path, database, table, reading)
    if reading.version == 1 and reading.header is not None:
        # The numbers of these rows may have gaps: a commit that failed left one.
        last = max(reading.entries().last_seq, 0)
        reading.header = replace(reading.header, followed=last)


def _ours(tables: list[tuple[str, str, str]]) -> bool:
    return {"header", *tables_in(KNOWN_VERSIONS[0])} <= {name for _, name, _ in tables}


def _read_header(
    path: str, database: sqlite3.Connection, reading: _Reading
) -> JournalHeader | None:
    try:
        rows = database.execute("SELECT * FROM header").fetchall()
    except _SQLITE_ERRORS as error:
        _refuse_if_unreadable(path, error)
        reading.faults.append(f"its header can't be read: {error}")
        return None
    if not rows:
        return None
    header = parse_header(rows[0], reading.version)
    if header is None or len(rows) > 1:
        reading.faults.append("its header is not what was written")
        return None
    return header


def parse_header(row: Sequence[Any], version: int) -> JournalHeader | None:
    """Returns the header that a row of a schema's version holds; None if it is damaged."""
    added = [] if version == 1 else [int, bytes]
    types: list[type[Any]] = [int, str, str, bytes, bytes, str, *added, int]
    if len(row) != len(types) or not all(map(_has_type, row, types)):
        return None
    _, cluster, master, config, serial, reason, *rest = row
    if len(config) % DIGEST_SIZE or len(serial) % DIGEST_SIZE:
        return None
    followed = rest[0] if version != 1 else 0
    header = JournalHeader(
        cluster, master, split_digests(config), split_digests(serial), reason, followed
    )
    return header if version == 1 or _sealed(seal_header, header, rest[1]) else None


def split_digests(digests: bytes) -> tuple[bytes, ...]:
    """Returns the digests that are kept one after another."""
    return tuple(
        digests[start : start + DIGEST_SIZE] for start in range(0, len(digests), DIGEST_SIZE)
    )


def _read_table(path: str, database: sqlite3.Connection, table: str, reading: _Reading) -> None:
    """Reads a table from its beginning, and from its end what that can't reach."""
    _, keys = TABLES[table]
    found = reading.rows[table]
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{number} {direction}" for number in range(1, keys + 1))
        before: Any = None
        try:
            for row in database.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                key = row[:keys]
                if before is not None and not _follows(before, key, direction):
                    raise sqlite3.DatabaseError("its rows are out of order")
                before = key
                entry = parse_entry(table, row, reading.version)
                if entry is not None:
                    found[key] = entry
                elif type(row[keys - 1]) is int:
                    reading.damaged[row[keys - 1]] = table
                else:
                    reading.faults.append(f"a row of {table} has no number")
            return
        except (*_SQLITE_ERRORS, TypeError) as error:
            _refuse_if_unreadable(path, error)
            if direction == "ASC":
                reading.faults.append(f"the table {table} can't be read whole: {error}")


def _follows(before: Any, key: Any, direction: str) -> bool:
    return bool(key > before if direction == "ASC" else key < before)


def parse_entry(table: str, row: Sequence[Any], version: int = SCHEMA_VERSION) -> StoreEntry | None:
    """Returns the entry in a row of a table; None if that isn't what was written."""
    columns, _ = TABLES[table]
    if len(row) != columns + (version != 1):
        return None
    values = row[:columns]
    if not all(map(_has_type, values, _TYPES[table])) and not (
        table == "config" and values[3] is None and all(map(_has_type, values[:3], _TYPES[table]))
    ):
        return None
    entry: StoreEntry
    if table == "jobs":
        seq, job_id, archived, body, base, made = values
        if archived not in (0, 1) or digest_of(body) != made:
            return None
        entry = JobEntry(seq, job_id, archived == 1, body, base, made)
    elif table == "logs":
        entry = StoredLogEntry(*values)
    elif table == "config":
        entry = ConfigEntry(*values)
    elif table == "edits":
        entry = JobEdit(*values)
    else:
        entry = SerialEntry(*values)
    return entry if version == 1 or _sealed(seal_entry, entry, row[columns]) else None


def _has_type(value: Any, kind: type[Any]) -> bool:
    return type(value) is kind


def _sealed(make: Any, value: Any, found: Any) -> bool:
    try:
        return bool(make(value) == found)
    except UnicodeEncodeError:
        return False


def _with_salvage(path: str, seen: _Reading, tip: Tip) -> Examined:
    """Returns what can be saved of a damaged journal, with what is missing from that.

    Behind the frame at which SQLite ends the log there may be good ones: the seals tell which
    of their rows are. Rows that the files have taken over are left out.
    """
    header = seen.header
    later = _read_further(path)
    if later is not None:
        for table, rows in later.rows.items():
            seen.rows[table].update(rows)
        if later.header is not None and (
            header is None or later.header.followed >= header.followed
        ):
            header = later.header
    entries = seen.entries()
    if header is not None and seen.version != 1:
        newer = _above(entries, header.followed)
        entries = replace(newer, logs=entries.logs)
    examined = judge(header, entries, tip, seen.faults, seen.damaged)
    if not examined.losses:
        examined.losses.append("bytes of it were changed, but all its rows can be read")
    return examined


def _read_further(path: str) -> _Reading | None:
    """Reads a copy of the journal that has all frames of its log; None where it has none."""
    with tempfile.TemporaryDirectory(prefix="gnt-masterd-") as folder:
        copy = f"{folder}/journal.db"
        try:
            pages = pages_of_all_frames(path + "-wal")
            if not pages:
                return None
            with open(copy, "wb") as file:
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as original:
                    shutil.copyfileobj(original, file)
                for place, page in pages.items():
                    file.seek(place)
                    file.write(page)
            return _read(copy)
        except (OSError, JournalCorrupt, JournalTooNew):
            return None
