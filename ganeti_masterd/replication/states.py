"""What is sent to a master candidate: states of single files of the queue, and config.data.

Each is a complete state, like the rows of the journal. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from ganeti_masterd.journal.rows import ConfigRow, JobRow, Row, SerialRow
from ganeti_masterd.rpc.wire import compressed_content, file_content

#: config.data of this many bytes or more is large. A new cluster's has about 20,000.
LARGE = 1 << 17


class SentImage(Protocol):
    """A whole config.data."""

    @property
    def serial_no(self) -> int:
        """The configuration's serial number."""

    def encode(self) -> bytes:
        """Returns the bytes; may run in any thread."""

    def size(self) -> int:
        """Returns the number of bytes; may run in any thread."""

    def compressed(self) -> str:
        """Returns the bytes as a zlib stream in base64; may run in any thread."""


class SerialFile(Struct, frozen=True):
    """The file ``serial``: ids up to ``reserved`` may have been given."""

    reserved: int


class JobFile(Struct, frozen=True):
    """A job's file in the queue; ``ended`` means that this is the job's last state."""

    job_id: int
    body: bytes
    ended: bool


class ArchiveMove(Struct, frozen=True):
    """A job's file leaves the queue for the archive."""

    job_id: int


class ConfigFile:
    """config.data, prepared for sending once for all candidates.

    ``large`` is known once the file is ready: it then is sent compressed, and at a limited rate
    (:mod:`~ganeti_masterd.replication.pace`).
    """

    __slots__ = ("_image", "_travelling", "large")

    def __init__(self, image: SentImage) -> None:
        self._image = image
        self._travelling: list[Any] | None = None
        self.large = False

    @property
    def serial_no(self) -> int:
        """The serial number of the configuration in the file."""
        return self._image.serial_no

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self._image.encode()

    @property
    def ready(self) -> bool:
        """Whether :attr:`travelling` is computed already."""
        return self._travelling is not None

    @property
    def travelling(self) -> list[Any]:
        """The file in the form that noded takes; may be called in any thread."""
        if self._travelling is None:
            image = self._image
            self.large = image.size() > LARGE
            self._travelling = (
                compressed_content(image.compressed())
                if self.large
                else file_content(image.encode())
            )
        return self._travelling


class DrainFlag(Struct, frozen=True):
    """Whether the queue takes no new jobs."""

    drained: bool


ReplicatedState = SerialFile | JobFile | ArchiveMove | ConfigFile | DrainFlag


def subject(state: ReplicatedState) -> object:
    """Returns what a state describes: a job's id, or the class of a state that exists only once."""
    return state.job_id if isinstance(state, (JobFile, ArchiveMove)) else type(state)


class _End(Struct):
    end_timestamp: Any = None


_ends = msgspec.json.Decoder(_End)


def job_file(job_id: int, body: bytes) -> JobFile:
    """Returns the state for a job's document."""
    return JobFile(job_id, body, _ends.decode(body).end_timestamp is not None)


def states_of(rows: Sequence[Row], image: Callable[[], SentImage]) -> list[ReplicatedState]:
    """Returns the states that a commit changes, in the order in which to send them.

    ``image`` gives config.data with the commit's changes. The serial goes before jobs that have ids
    of its block, config.data before the jobs that are committed with it; jobs keep their order. Log
    lines are sent with their job's next state (protocol/queue.rst, Files of the queue), so a commit
    of log lines alone gives no states.
    """
    if len(rows) == 1 and type(row := rows[0]) is JobRow:
        return [ArchiveMove(row.job_id) if row.archived else job_file(row.job_id, row.body)]
    serials = [row.reserved for row in rows if isinstance(row, SerialRow)]
    states: list[ReplicatedState] = [SerialFile(max(serials))] if serials else []
    if any(isinstance(row, ConfigRow) for row in rows):
        states.append(ConfigFile(image()))
    states += [
        ArchiveMove(row.job_id) if row.archived else job_file(row.job_id, row.body)
        for row in rows
        if isinstance(row, JobRow)
    ]
    return states
