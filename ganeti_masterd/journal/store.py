"""What the journal keeps, as values, and the door to where it is kept.

The entries are plain tuples in the order of the store's columns, so that a
batch goes to it without being taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct, field
from zope.interface import Attribute, Interface


class JobEntry(NamedTuple):
    """A job's whole state, with the digests of the file it replaces and the file it makes."""

    seq: int
    job_id: int
    archived: bool
    body: bytes
    base: bytes
    made: bytes


class JobEdit(NamedTuple):
    """What changed in a job's document since its row before, which is in the journal as well.

    ``edit`` is one of :mod:`~ganeti_masterd.journal.edits`; ``base`` and ``made`` are the
    digests of the whole document before and after it.
    """

    seq: int
    job_id: int
    edit: bytes
    base: bytes
    made: bytes


class StoredLogEntry(NamedTuple):
    """A log line, with the digest of the job's file (or last row) that it adds to."""

    job_id: int
    seq: int
    op_index: int
    entry: bytes
    base: bytes


class ConfigEntry(NamedTuple):
    """An object of the configuration; a null body removes it."""

    seq: int
    section: str
    uuid: str
    body: bytes | None


class SerialEntry(NamedTuple):
    """A reservation of job ids."""

    seq: int
    reserved: int


StoreEntry = JobEntry | JobEdit | StoredLogEntry | ConfigEntry | SerialEntry


class Entries(Struct):
    """A batch to append, or all that a store holds; each list in the order of ``seq``."""

    jobs: list[JobEntry] = field(default_factory=list)
    logs: list[StoredLogEntry] = field(default_factory=list)
    config: list[ConfigEntry] = field(default_factory=list)
    serials: list[SerialEntry] = field(default_factory=list)
    edits: list[JobEdit] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self._lists))

    def numbers(self) -> Iterator[int]:
        """Yields the number of each entry, in no order."""
        for entries in self._lists:
            for entry in entries:
                yield entry.seq

    def by_table(self) -> tuple[tuple[str, Sequence[StoreEntry]], ...]:
        """Returns the lists with the names of their tables."""
        return (
            ("jobs", self.jobs),
            ("logs", self.logs),
            ("config", self.config),
            ("serials", self.serials),
            ("edits", self.edits),
        )

    @property
    def last_seq(self) -> int:
        """The highest sequence number, 0 where there is no entry."""
        return max((entries[-1].seq for entries in self._lists if entries), default=0)

    @property
    def _lists(self) -> tuple[Sequence[StoreEntry], ...]:
        return self.jobs, self.logs, self.config, self.serials, self.edits


class JournalHeader(Struct, frozen=True):
    """Whose journal it is, and which files it fits (architecture.rst, journal rule 4).

    ``config`` and ``serial`` are the digests that config.data and serial may
    have on disk: as last written, and as about to be written. ``reason`` is
    why the journal was set aside, "" for one that was not. ``followed`` is the last number
    that a round took along: the rows above it have all numbers up to the last one, below it
    are only log lines that wait for their job's next row.
    """

    cluster: str
    master: str
    config: tuple[bytes, ...]
    serial: tuple[bytes, ...]
    reason: str = ""
    followed: int = 0


class IStore(Interface):
    """Keeps rows durably: each method that changes something is one transaction.

    Blocking, one thread at a time. Failures are ``OSError`` or
    ``sqlite3.Error``; one that failed changed nothing.
    """

    path: str = Attribute("The file of the store.")

    def header() -> JournalHeader | None:
        """Returns the header, None in a new store."""

    def adopt(header: JournalHeader) -> None:
        """Replaces the header."""

    def append(entries: Entries) -> None:
        """Adds all entries, durably, or none.

        Their numbers are the ones that follow the last one.
        """

    def expect(config: bytes | None, serial: bytes | None) -> None:
        """Adds a digest to those that config.data, and serial, may have; null adds none."""

    def followed(
        seq: int,
        logs: Sequence[tuple[int, int]],
        config: bytes | None,
        serial: bytes | None,
    ) -> None:
        """Drops what the files hold, and sets the header's ``followed`` to ``seq``.

        That is each entry up to ``seq`` but log lines; of these the ones of each
        ``(job id, seq)`` in ``logs`` that are older than its seq. The digests
        given become the only ones that config.data and serial may have. The first row
        that is left of each job is whole: where it was an edit, the state that it makes
        takes its place.
        """

    def load() -> Entries:
        """Returns all that is kept; raises ``JournalCorrupt`` for a row that was changed."""

    def close() -> None:
        """Ends the use of the store; all of it is in the one file then."""
