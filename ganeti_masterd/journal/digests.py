"""Digests of file contents, and the chain of them that each job's rows form.

A row whose predecessor is in the journal as well may be an edit of that: see :class:`Chain`.

Every job row is stored with the digest of the file that it replaces (its
base) and of the file that it makes (architecture.rst, journal rule 2). The base of a
row is what the row before it makes; a job that the journal has not touched
yet has the digest of its file on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from ganeti_masterd.journal.edits import LARGE, edit_between
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, Row
from ganeti_masterd.journal.store import (
    ConfigEntry,
    Entries,
    JobEdit,
    JobEntry,
    SerialEntry,
    StoredLogEntry,
)

DIGEST_SIZE = 16

#: Stands for a file that is not there.
NOTHING = bytes(DIGEST_SIZE)


def digest_of(content: bytes | None) -> bytes:
    """Returns the digest of a file's content, :data:`NOTHING` where there is no file."""
    if content is None:
        return NOTHING
    return blake2b(content, digest_size=DIGEST_SIZE).digest()


class Chain:
    """Knows for each job the digest that its last committed row makes. Disk thread only.

    ``present`` are the jobs that had a file in the queue at the start: only
    their files are read when they are touched for the first time. The process
    holds the queue's lock, so nobody else makes such files.

    Of large documents the last one is kept, until the files hold it: a row that follows is
    an edit of it.
    """

    def __init__(self, disk: IDisk, files: QueueFiles, present: Iterable[int]) -> None:
        self._disk = disk
        self._files = files
        self._present = set(present)
        self._made: dict[int, bytes] = {}
        self._linked: dict[int, bytes] = {}
        # The last document of jobs that have a large one in the journal, with its row's number.
        self._documents: dict[int, tuple[int, bytes]] = {}
        self._linked_documents: dict[int, tuple[int, bytes]] = {}

    def link(self, rows: Iterable[tuple[int, Row]]) -> Entries:
        """Returns numbered rows as entries of the store, job rows and log rows linked.

        They count only after :meth:`keep`; the next ``link`` forgets them
        otherwise. ``OSError`` where a job's file can't be read.
        """
        linked: dict[int, bytes] = {}
        self._linked = linked
        documents = self._linked_documents = {}
        entries = Entries()
        for seq, row in rows:
            if isinstance(row, JobRow):
                job_id, body = row.job_id, row.body
                base = linked.get(job_id) or self._base(job_id)
                made = linked[job_id] = blake2b(body, digest_size=DIGEST_SIZE).digest()
                edit = None
                if len(body) >= LARGE:
                    _, before = documents.get(job_id) or self._documents.get(job_id) or (0, b"")
                    edit = None if row.archived else edit_between(before, body)
                    documents[job_id] = seq, body
                elif job_id in self._documents or job_id in documents:
                    documents[job_id] = seq, b""
                if edit is None:
                    entries.jobs.append(JobEntry(seq, job_id, row.archived, body, base, made))
                else:
                    entries.edits.append(JobEdit(seq, job_id, edit, base, made))
            elif isinstance(row, LogRow):
                base = linked.get(row.job_id) or self._base(row.job_id)
                entries.logs.append(StoredLogEntry(row.job_id, seq, row.op_index, row.entry, base))
            elif isinstance(row, ConfigRow):
                entries.config.append(ConfigEntry(seq, row.section, row.uuid, row.body))
            else:
                entries.serials.append(SerialEntry(seq, row.reserved))
        return entries

    def keep(self) -> None:
        """Takes what was linked last as committed."""
        self._made.update(self._linked)
        self._documents.update(self._linked_documents)
        self._linked, self._linked_documents = {}, {}

    def followed(self, seq: int) -> None:
        """Drops the documents of rows up to ``seq``, which the journal doesn't hold any more."""
        for job_id in [n for n, (last, _) in self._documents.items() if last <= seq]:
            del self._documents[job_id]

    def forget(self, job_id: int, made: bytes) -> None:
        """Drops an archived job whose file holds the row that made ``made``."""
        if self._made.get(job_id) == made:
            del self._made[job_id]
            self._present.discard(job_id)

    def _base(self, job_id: int) -> bytes:
        made = self._made.get(job_id)
        if made is not None:
            return made
        if job_id not in self._present:
            return NOTHING
        return digest_of(self._disk.read(self._files.job(job_id)))
