"""What another candidate holds that this node lacks, found by digests alone. Pure.

noded has no call that reads a file. It tells the SHA-1 of files (``node_verify``):
enough to know that nothing differs, which number the file ``serial`` holds, and
otherwise which few files have to be read by another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

import msgspec
from msgspec import Struct

from ganeti_masterd.jobs.model import Job, decode_job
from ganeti_masterd.journal.layout import QueueFiles, encode_serial
from ganeti_masterd.replication.comparison import sha1

#: How far above this node's own number another one's ``serial`` is looked for.
SEARCH = 1_000_000


class OwnFiles(Struct, frozen=True):
    """The files of this node: config.data, the number in ``serial``, jobs in the queue by id."""

    config: bytes
    serial: int
    jobs: dict[int, bytes]

    @property
    def unfinished(self) -> set[int]:
        """The ids of the jobs whose file is not their last state, or can't be understood."""
        return {
            job_id
            for job_id, body in self.jobs.items()
            if (job := understood(body)) is None or not job.finished
        }


class Held(Struct, frozen=True):
    """Digests (SHA-1, hex) of what a candidate holds; None where a file isn't there.

    ``jobs`` are those in its queue; ``archived`` those in its archive, of the ids
    that were asked for.
    """

    node: str
    config: str | None
    serial: str | None
    jobs: Mapping[int, str]
    archived: Mapping[int, str] = {}


class Lacking(Struct, frozen=True):
    """What a candidate holds that may be newer than this node's: to be read from it."""

    config: bool
    jobs: tuple[int, ...]
    archived: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.config or self.jobs or self.archived)

    def paths(self, files: QueueFiles) -> list[str]:
        """Returns the paths of these files."""
        return [
            *([files.config] if self.config else []),
            *(files.job(job_id) for job_id in self.jobs),
            *(files.archived_job(job_id) for job_id in self.archived),
        ]

    def text(self) -> str:
        """Returns in words what it is."""
        jobs = sorted({*self.jobs, *self.archived})
        parts = ["its configuration"] if self.config else []
        if jobs:
            some = ", ".join(map(str, jobs[:10])) + (", ..." if len(jobs) > 10 else "")
            parts.append(f"{len(jobs)} of its jobs ({some})")
        return " and ".join(parts)


def ids_to_ask(own: OwnFiles, jobs: Mapping[int, str]) -> list[int]:
    """Returns the jobs that a candidate may have archived while they are unfinished here."""
    return sorted(own.unfinished - set(jobs))


def lacking(own: OwnFiles, held: Held, archived_here: Callable[[int], bool]) -> Lacking:
    """Returns what of a candidate's has to be looked at.

    A job that has ended here, or is in the archive here, can't be newer elsewhere.
    """
    unfinished = own.unfinished
    jobs = []
    for job_id, digest in sorted(held.jobs.items()):
        body = own.jobs.get(job_id)
        if body is None:
            if not archived_here(job_id):
                jobs.append(job_id)
        elif job_id in unfinished and digest != sha1(body):
            jobs.append(job_id)
    archived = tuple(sorted(job_id for job_id in held.archived if job_id in unfinished))
    return Lacking(held.config != sha1(own.config), tuple(jobs), archived)


def serial_of(digest: str | None, own: int) -> int | None:
    """Returns the number in a file ``serial`` by its digest; None if it can't be found.

    All numbers up to :data:`SEARCH` above ``own`` are tried: about a second at most.
    """
    if digest is None:
        return None
    for number in chain(range(own, own + SEARCH), range(own)):
        if sha1(encode_serial(number)) == digest:
            return number
    return None


def understood(body: bytes) -> Job | None:
    """Returns the job that a file holds, None if it is malformed."""
    try:
        return decode_job(body)
    except msgspec.DecodeError:
        return None
