"""What is published of the queue and the configuration, as replication asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.defer import Deferred

from ganeti_masterd.config.document import ConfigImage
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.jobs.model import Job, encode_job
from ganeti_masterd.jobs.queue import JobQueue


class PublishedState:
    """See :class:`ganeti_masterd.replication.interfaces.Published`."""

    def __init__(self, queue: JobQueue, store: ConfigStore) -> None:
        self._queue = queue
        self._store = store

    def serial(self) -> int:
        """See ``Published.serial``."""
        return max(self._queue.last_id, self._queue.journal.reserved)

    def drained(self) -> bool:
        """See ``Published.drained``."""
        return self._queue.drained

    def job_ids(self) -> Iterable[int]:
        """See ``Published.job_ids``."""
        return self._queue.jobs.keys()

    def body(self, job_id: int) -> bytes:
        """See ``Published.body``."""
        return encode_job(self._queue.jobs[job_id])

    def archived(self, job_ids: Iterable[int]) -> Deferred[Mapping[int, bytes]]:
        """See ``Published.archived``."""

        def encoded(jobs: Mapping[int, Job]) -> Mapping[int, bytes]:
            return {job_id: encode_job(job) for job_id, job in jobs.items()}

        return self._queue.archived(job_ids).addCallback(encoded)

    def snapshot(self) -> Snapshot:
        """See ``Published.snapshot``."""
        return self._store.snapshot

    def image(self) -> ConfigImage:
        """See ``Published.image``."""
        return self._store.image()
