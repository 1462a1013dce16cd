"""The rows of the journal: each is a whole state of one durable thing.

Replay takes the last row of each thing. The store may keep a job's row as an edit of the
row before it (:mod:`ganeti_masterd.journal.edits`). Bodies are JSON bytes exactly as they
will stand in Ganeti's own files.
"""

from __future__ import annotations

from msgspec import Struct


class JobRow(Struct, frozen=True):
    """A job's whole document, and whether its file belongs in the archive."""

    job_id: int
    body: bytes
    archived: bool = False


class LogRow(Struct, frozen=True):
    """One log entry of a running opcode: ``[serial, [s, us], type, message]``.

    Superseded by the job's next :class:`JobRow`, whose body holds it.
    """

    job_id: int
    op_index: int
    entry: bytes


class ConfigRow(Struct, frozen=True):
    """One object of the configuration; a null body removes it.

    ``section`` is a key of config.data ("cluster", "nodes", ...; "" for the
    document's own serial and times); ``uuid`` is "" for the two single ones.
    """

    section: str
    uuid: str
    body: bytes | None


class SerialRow(Struct, frozen=True):
    """Job ids up to and including ``reserved`` may have been given."""

    reserved: int


Row = JobRow | LogRow | ConfigRow | SerialRow
