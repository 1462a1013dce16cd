"""How Ganeti's files follow the journal: one round, as a generator of short steps.

The order is what keeps the files safe for whoever reads them next (architecture.rst,
journal rule 3): serial, config.data, job files, archive moves, each directory
synced, and only then the rows dropped. A job's file is never ahead of its
configuration or of the serial, whatever the crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.files import File, in_groups, make_archive_directory, replace_file
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles, encode_serial
from ganeti_masterd.journal.rows import JobRow
from ganeti_masterd.journal.store import IStore

#: How many directories of the archive are remembered as durable; jobs go to one or two at a time.
KNOWN_DIRECTORIES = 64


class FollowedImage(Protocol):
    """The published configuration, as it stood when the image was taken."""

    def encode(self) -> bytes:
        """Returns config.data's content; may run in the disk thread."""


class EncodedImage(Struct, frozen=True):
    """An :class:`FollowedImage` whose bytes are at hand."""

    content: bytes

    def encode(self) -> bytes:
        """Returns the bytes."""
        return self.content


class Round(Struct, frozen=True):
    """What the files take over: all that was published up to ``seq``.

    ``serial`` and ``config`` are null where no row up to ``seq`` changed them.
    ``jobs`` has the last row of each job that changed, with its sequence
    number; ``logs`` has ``(job id, seq)`` of those with log lines before it.
    """

    seq: int
    serial: int | None
    config: FollowedImage | None
    jobs: Mapping[int, tuple[int, JobRow]]
    logs: Sequence[tuple[int, int]]


#: Replaces files in steps, as :func:`in_groups` does.
Replace = Callable[[IDisk, Sequence[File]], Iterator[object]]


class JobFiles(Protocol):
    """Whoever replaces the job files of a round.

    ``fault`` is what is wrong with it, None for nothing; it may be read in any thread.
    """

    @property
    def fault(self) -> str | None:
        """See the class."""

    def replace(self, disk: IDisk, files: Sequence[File]) -> Iterator[object]:
        """Replaces files in steps, as :func:`in_groups` does."""

    def close(self) -> None:
        """Ends what it has running."""


class FileFollower:
    """Writes the files of one journal. Disk thread only."""

    def __init__(
        self, disk: IDisk, store: IStore, files: QueueFiles, replace: Replace = in_groups
    ) -> None:
        self._disk = disk
        self._store = store
        self._files = files
        self._replace = replace
        self._durable_directories: set[str] = set()

    def steps(self, round_: Round) -> Iterator[object]:
        """Runs the round; stops between any two files to let others have the disk.

        ``OSError`` or ``sqlite3.Error`` where it can't go on: the rows stand
        then, and a later round that includes this one's makes all good.
        """
        disk, files = self._disk, self._files
        serial = None if round_.serial is None else encode_serial(round_.serial)
        config = None if round_.config is None else round_.config.encode()
        serial_digest = None if serial is None else digest_of(serial)
        config_digest = None if config is None else digest_of(config)
        if serial is not None or config is not None:
            self._store.expect(config_digest, serial_digest)
            yield None
        if serial is not None:
            replace_file(disk, files.serial, serial)
            disk.sync_directory(files.queue)
            yield None
        if config is not None:
            replace_file(disk, files.config, config)
            disk.sync_directory(files.config_directory)
            yield None
        archived = [row for _, row in round_.jobs.values() if row.archived]
        live = [(files.job(n), row.body) for n, (_, row) in round_.jobs.items() if not row.archived]
        yield from self._replace(disk, live)
        directories = set()
        for row in archived:
            directory = files.archive_directory(row.job_id)
            directories.add(directory)
            self._make_durable(directory, row.job_id)
            self._archive(row)
            yield None
        for directory in sorted(directories):
            disk.sync_directory(directory)
            yield None
        if round_.jobs:
            disk.sync_directory(files.queue)
            yield None
        self._store.followed(round_.seq, round_.logs, config_digest, serial_digest)

    def _archive(self, row: JobRow) -> None:
        # A crash may keep only one half of the move; the row, which goes last, has it all.
        disk, old, new = (
            self._disk,
            self._files.job(row.job_id),
            self._files.archived_job(row.job_id),
        )
        if disk.read(old) == row.body:
            disk.rename(old, new)
        else:
            replace_file(disk, new, row.body)
            disk.unlink(old)

    def _make_durable(self, directory: str, job_id: int) -> None:
        if directory in self._durable_directories:
            return
        # The queue's directory is synced as the round ends.
        make_archive_directory(self._disk, self._files, job_id)
        if len(self._durable_directories) >= KNOWN_DIRECTORIES:
            self._durable_directories.clear()
        self._durable_directories.add(directory)
