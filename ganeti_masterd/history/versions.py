"""The file of versions: ``history.db``, on SQLite. Blocking; one thread at a time.

It holds the oldest version whole, and of each later one what it changed. To drop a version is
to put its changes into the next one that stays (or into the whole one), in one transaction:
whatever moment the process dies at, each version that is listed can be read. The file isn't synced
with each change; a power failure may take the last ones, which the next start notices.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence

from msgspec import Struct
from twisted.logger import Logger

from ganeti_masterd import safely
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.history.states import (
    ConfigDelta,
    ConfigState,
    Place,
    apply_delta,
    delta_between,
    pack,
    unpack,
)
from ganeti_masterd.history.thinning import MOST, NEWEST, kept

log = Logger()

#: How many bytes the changes of all versions may take; the oldest, whole one comes on top.
ROOM = 64 << 20

#: Seconds between thinnings that are due to age alone.
THIN_EVERY = 600.0

#: The largest whole number that SQLite takes.
_LARGEST = 2**63 - 1

APPLICATION_ID = 0x476E4356  # "GnCV"

_SCHEMA = f"""
CREATE TABLE oldest (
    one INTEGER PRIMARY KEY CHECK (one = 1), cluster TEXT NOT NULL, content BLOB NOT NULL
);
CREATE TABLE versions (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, serial INTEGER NOT NULL,
    uid INTEGER, job INTEGER, note TEXT NOT NULL, changes BLOB NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
"""


class VersionLine(Struct, frozen=True):
    """A version as a list shows it.

    ``time`` is in seconds since the epoch, ``serial`` the document's. ``uid`` and ``job`` are whose
    change it was, None where that isn't known; ``note`` says what else is to be said of it.
    """

    id: int
    time: float
    serial: int
    uid: int | None
    job: int | None
    note: str


class NewVersion(Struct, frozen=True):
    """A change to be recorded; the fields are those of :class:`VersionLine`."""

    time: float
    serial: int
    uid: int | None
    job: int | None
    note: str
    changes: ConfigDelta


class VersionStore:
    """The versions of one cluster's configuration.

    ``most`` and ``room`` bound how many there are, and the bytes of their changes. Raises
    ``OSError`` or ``sqlite3.Error`` where the file can't be used.
    """

    def __init__(
        self, path: str, cluster: str, *, most: int = MOST, room: int = ROOM, newest: int = NEWEST
    ) -> None:
        self._path = path
        self._cluster = cluster
        self._most = most
        self._room = room
        self._newest = newest
        self._thinned_at = float("-inf")
        try:
            self._db = self._opened()
        except sqlite3.OperationalError:
            # Somebody else has it locked, or the disk is full: nothing is wrong with the file.
            raise
        except (sqlite3.DatabaseError, ConfigurationError) as error:
            aside = self._put_aside()
            log.error(
                "The history of the configuration can't be read ({error}): it is kept as {path}, "
                "and another one begins",
                error=error,
                path=aside,
            )
            self._db = self._opened()
        (self._count, self._size) = self._measured()

    def _opened(self) -> sqlite3.Connection:
        # SQLite gives its other files the mode of this one.
        os.close(safely.open_file(self._path, os.O_RDWR | os.O_CREAT, 0o600, single=True))
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            # What is dropped may hold private parameters.
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                with _transaction(db):
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        db.execute(statement)
            self._check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check(self, db: sqlite3.Connection) -> None:
        (found,) = db.execute("PRAGMA application_id").fetchone()
        if found != APPLICATION_ID:
            raise ConfigurationError("it is another kind of file")
        (fault,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise ConfigurationError(str(fault))
        whose = db.execute("SELECT cluster FROM oldest").fetchone()
        if whose is not None and whose[0] != self._cluster:
            raise ConfigurationError(f"it belongs to cluster {whose[0]}")

    def _put_aside(self) -> str:
        number = 1
        while os.path.lexists(aside := f"{self._path}.{number}"):
            number += 1
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, aside + suffix)
        os.rename(self._path, aside)
        return aside

    def _measured(self) -> tuple[int, int]:
        count, size = self._db.execute(
            "SELECT count(*), coalesce(sum(length(changes)), 0) FROM versions"
        ).fetchone()
        return count, size

    # Writing

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """A transaction after whose failure is known again what is there."""
        try:
            with _transaction(self._db):
                yield
        except BaseException:
            self._count, self._size = self._measured()
            raise

    def catch_up(self, state: ConfigState, now: float, serial: int, note: str) -> None:
        """Records whatever of ``state`` isn't in the newest version; begins an empty history."""
        if not self._count:
            with self._counted():
                self._db.execute("DELETE FROM oldest")
                content = (self._cluster, pack(state))
                self._db.execute("INSERT INTO oldest VALUES (1, ?, ?)", content)
                self._insert(1, NewVersion(now, serial, None, None, "the history begins", {}))
            return
        found = delta_between(self.state(), state)
        if found:
            self.append([NewVersion(now, serial, None, None, note, found)], now)

    def append(self, versions: Sequence[NewVersion], now: float) -> None:
        """Records changes, all or none, and drops old ones as bounds and age demand."""
        (newest,) = self._db.execute("SELECT max(id) FROM versions").fetchone()
        assert newest is not None, "the history has not begun"
        with self._counted():
            for number, version in enumerate(versions, newest + 1):
                self._insert(number, version)
        full = self._count > self._most or self._size > self._room
        if full or not 0 <= now - self._thinned_at < THIN_EVERY:
            self._thinned_at = now
            self._thin(now)

    def _insert(self, number: int, new: NewVersion) -> None:
        changes = pack(new.changes)
        row = (number, new.time, new.serial, new.uid, new.job, new.note, changes)
        self._db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._count += 1
        self._size += len(changes)

    def _thin(self, now: float) -> None:
        # Each is thinned to less than the bound, so that the next one isn't due at once.
        most = self._most
        if self._count > self._most:
            most = max(1, self._most * 9 // 10)
        while True:
            lines = self._db.execute("SELECT id, time FROM versions ORDER BY id").fetchall()
            chosen = kept([time for _, time in lines], now, most, min(self._newest, most))
            if len(chosen) < len(lines):
                self._drop([number for number, _ in lines], {lines[index][0] for index in chosen})
            self._count, self._size = self._measured()
            if self._size <= self._room or self._count == 1:
                break
            most = max(1, self._count * 3 // 4)
        self._db.execute("PRAGMA incremental_vacuum")

    def _drop(self, numbers: Sequence[int], stay: set[int]) -> None:
        with _transaction(self._db):
            gathered: dict[Place, bytes | None] = {}
            dropped: list[int] = []
            first = True
            for number in numbers:
                if number not in stay:
                    gathered.update(self._changes(number))
                    dropped.append(number)
                    continue
                if dropped:
                    self._merge(number, gathered, first)
                    gathered.clear()
                    marks = ((gone,) for gone in dropped)
                    self._db.executemany("DELETE FROM versions WHERE id = ?", marks)
                    dropped.clear()
                first = False

    def _merge(self, number: int, gathered: ConfigDelta, first: bool) -> None:
        """Puts older changes before those of a version; the first of all becomes the whole one."""
        changes = {**gathered, **self._changes(number)}
        if first:
            state = self._oldest()
            apply_delta(state, changes)
            self._db.execute("UPDATE oldest SET content = ?", (pack(state),))
            changes = {}
        self._db.execute("UPDATE versions SET changes = ? WHERE id = ?", (pack(changes), number))

    # Reading

    def lines(self, newest: int | None = None) -> list[VersionLine]:
        """Returns the versions, the oldest first; only the last ones if ``newest`` is given."""
        limit = -1 if newest is None else min(newest, _LARGEST)
        found = self._db.execute(
            "SELECT id, time, serial, uid, job, note FROM versions ORDER BY id DESC LIMIT ?",
            (limit,),
        ).fetchall()
        return [VersionLine(*row) for row in reversed(found)]

    def has(self, number: int) -> bool:
        """Whether there is a version of that number."""
        if not 0 < number <= _LARGEST:
            return False
        found = self._db.execute("SELECT 1 FROM versions WHERE id = ?", (number,)).fetchone()
        return found is not None

    def state(self, number: int | None = None) -> ConfigState:
        """Returns the configuration of a version that is there, or of the newest."""
        state = self._oldest()
        for _, delta in self.deltas(upto=number):
            apply_delta(state, delta)
        return state

    def deltas(
        self, after: int = 0, upto: int | None = None
    ) -> Iterator[tuple[int, dict[Place, bytes | None]]]:
        """Yields the versions after one, up to another or the newest, with what each changed."""
        found = self._db.execute(
            "SELECT id, changes FROM versions WHERE id > ? AND (? IS NULL OR id <= ?) ORDER BY id",
            (after, upto, upto),
        )
        for number, changes in found:
            yield number, unpack(changes)

    def _changes(self, number: int) -> dict[Place, bytes | None]:
        sql = "SELECT changes FROM versions WHERE id = ?"
        return unpack(self._db.execute(sql, (number,)).fetchone()[0])

    def _oldest(self) -> ConfigState:
        (content,) = self._db.execute("SELECT content FROM oldest").fetchone()
        return {place: body for place, body in unpack(content).items() if body is not None}

    @property
    def size(self) -> tuple[int, int]:
        """How many versions there are, and the bytes of their changes."""
        return self._count, self._size

    def close(self) -> None:
        """Ends the use of the file."""
        self._db.close()


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
