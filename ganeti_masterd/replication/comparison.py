"""Compares what a candidate holds with what it should hold: questions and difference. Pure.

noded has no call that lists the queue, but ``node_verify`` returns the SHA-1 of each existing file
of a given list. So job files are asked for in slices of ids, from the lowest that may be there to
at least half a slice above the highest, and a few slices further as long as any file above that
exists. Only files that differ are sent.
Nothing is purged: a candidate never holds less than before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ganeti_masterd.journal.layout import QueueFiles, encode_serial
from ganeti_masterd.replication.states import (
    ArchiveMove,
    ConfigFile,
    DrainFlag,
    ReplicatedState,
    SerialFile,
    job_file,
)

#: How many files are asked for in one call.
SLICE = 2000

#: How many ids are looked at, at most: a stray file of a very high id must not make it endless.
MOST = 10_000_000

#: How many slices above the highest id are looked at, at most.
FURTHER = 10


class CandidateComparison:
    """Finds out which files of the queue one candidate holds, slice by slice.

    ``lowest`` is the lowest id that may be there. Ask the node for the digests of :meth:`paths` and
    pass them to :meth:`found`, until ``complete``. ``jobs`` has the digest of each job file in the
    candidate's queue.
    """

    def __init__(
        self, files: QueueFiles, highest: int, *, lowest: int = 1, slice_: int = SLICE
    ) -> None:
        self._files = files
        self._highest = highest
        self._slice = slice_
        self._first = self._lowest = max(1, lowest, highest - MOST)
        self.jobs: dict[int, str] = {}
        self.serial: str | None = None
        self.config: str | None = None
        self.complete = False

    def paths(self) -> list[str]:
        """Returns the files to ask for next."""
        paths = [self._files.job(job_id) for job_id in self._ids()]
        return (
            [self._files.serial, self._files.config, *paths]
            if self._first == self._lowest
            else paths
        )

    def found(self, digests: Mapping[str, str]) -> None:
        """Records the SHA-1 digests (hex) of those files that exist."""
        if self._first == self._lowest:
            self.serial = digests.get(self._files.serial)
            self.config = digests.get(self._files.config)
        here = {
            job_id: digests[path]
            for job_id in self._ids()
            if (path := self._files.job(job_id)) in digests
        }
        self.jobs.update(here)
        last = self._first + self._slice - 1
        above = any(job_id > self._highest for job_id in here)
        enough = last >= self._highest + self._slice // 2
        end = self._highest + FURTHER * self._slice
        self.complete = enough and (not above or last >= end)
        self._first += self._slice

    def _ids(self) -> range:
        return range(self._first, self._first + self._slice)


def lowest_held(jobs: Iterable[int], serial: int) -> int:
    """Returns the lowest id of a file that a candidate has or gets, if it holds ``jobs`` alone.

    Ids up to ``serial`` are reserved, and may be given yet.
    """
    return max(1, min([*jobs, serial - SLICE]))


def difference(
    held: CandidateComparison,
    *,
    serial: int,
    drained: bool,
    config: ConfigFile,
    jobs: Iterable[int],
    body: Callable[[int], bytes],
    archived: Mapping[int, bytes],
) -> list[ReplicatedState]:
    """Returns the states that bring the candidate up to date, in the order to send them.

    ``jobs`` are the ids of all jobs in the queue and ``body`` gives their documents; ``archived``
    has those that are in the archive but still in the candidate's queue. A job in the candidate's
    queue that is in neither is moved to its archive unchanged, where no daemon looks for work.
    noded has no call to read the drain flag, so it is always sent.
    """
    states: list[ReplicatedState] = []
    if held.serial != sha1(encode_serial(serial)):
        states.append(SerialFile(serial))
    states.append(DrainFlag(drained))
    if held.config != sha1(config.content):
        states.append(config)
    live = set(jobs)
    for job_id in sorted(live):
        document = body(job_id)
        if held.jobs.get(job_id) != sha1(document):
            states.append(job_file(job_id, document))
    gone = sorted(set(held.jobs) - live)
    for job_id in gone:
        final = archived.get(job_id)
        if final is not None and held.jobs[job_id] != sha1(final):
            states.append(job_file(job_id, final))
    states += [ArchiveMove(job_id) for job_id in gone]
    return states


def digests_told(payload: Any) -> Mapping[str, str]:
    """Returns the digests in an answer of ``node_verify``; raises ``ValueError`` for rubbish."""
    digests = payload.get("filelist") if isinstance(payload, dict) else None
    if not isinstance(digests, dict):
        raise ValueError("node_verify told no digests of files")
    return digests


def sha1(content: bytes) -> str:
    """Returns a file's digest in the form that noded returns."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
