"""What the disk thread does for a journal that is open: appends, rounds, the last round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.files import in_groups
from ganeti_masterd.journal.following import FileFollower, JobFiles, Round
from ganeti_masterd.journal.progress import DiskProgress, WatchedDisk
from ganeti_masterd.journal.recovery import Recovered
from ganeti_masterd.journal.replay import folded_logs
from ganeti_masterd.journal.rows import JobRow, Row
from ganeti_masterd.journal.states import last_rows
from ganeti_masterd.journal.store import Entries


class JournalWriting:
    """The journal's work on disk. Disk thread only, once the thread runs."""

    def __init__(
        self,
        recovered: Recovered,
        job_files: JobFiles | None = None,
        progress: DiskProgress | None = None,
    ) -> None:
        """``progress`` records what is being done to which file."""
        self._progress = progress if progress is not None else DiskProgress("work")
        self._disk = WatchedDisk(recovered.disk, self._progress)
        self._committing = f"a commit to {recovered.store.path}"
        self._following = f"work on {recovered.store.path}"
        self._recovered = recovered
        self._job_files = job_files
        self._store = recovered.store
        self._chain = recovered.chain
        replace = in_groups if job_files is None else job_files.replace
        self._follower = FileFollower(self._disk, recovered.store, recovered.files, replace)

    def append(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Makes numbered rows durable, all or none."""
        linked = self._chain.link(rows)
        self._progress.during(self._committing, self._store.append, linked)
        self._chain.keep()

    def effect(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Runs a function on the disk."""
        return function(self._disk, *args)

    def steps(self, round_: Round) -> Iterator[object]:
        """Runs a round (see :meth:`FileFollower.steps`)."""
        yield from self._progress.steps(self._following, self._follower.steps(round_))
        self._chain.followed(round_.seq)
        for job_id, (_, row) in round_.jobs.items():
            if row.archived:
                self._chain.forget(job_id, digest_of(row.body))

    def finish(self, serial: int | None) -> Iterator[object]:
        """Runs the last round: log lines that are left, and ``serial`` where not None.

        The files hold all rows but log lines before it, and the store is empty after.
        """
        yield from self._progress.steps(self._following, self._last_round(serial))

    def _last_round(self, serial: int | None) -> Iterator[object]:
        recovered = self._recovered
        held = self._store.load()
        header = self._store.header()
        after = header.followed if header is not None else 0
        folded = folded_logs(held, after, self._disk, recovered.files, recovered.merge_log)
        if folded:
            self._store.append(Entries(jobs=folded))
        held = replace(held, jobs=[*held.jobs, *folded])
        last = max(held.last_seq, after)
        yield None
        jobs = {
            job_id: (entry.seq, JobRow(job_id, entry.body, entry.archived))
            for job_id, entry in last_rows(held).items()
        }
        logs = [(line.job_id, last + 1) for line in held.logs]
        yield from self._follower.steps(Round(last, serial, None, jobs, logs))

    def close(self) -> None:
        """Closes the store, and ends what writes job files."""
        try:
            self._progress.during(self._following, self._store.close)
        finally:
            if self._job_files is not None:
                self._job_files.close()
