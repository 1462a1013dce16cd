"""What replication asks of the parts whose state it replicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.replication.states import SentImage


class Published(Protocol):
    """All that is published now. Reactor thread only."""

    def serial(self) -> int:
        """Job ids up to this one may have been given."""

    def drained(self) -> bool:
        """Whether the queue takes no new jobs."""

    def job_ids(self) -> Iterable[int]:
        """The ids of the jobs in the queue."""

    def body(self, job_id: int) -> bytes:
        """The document of a job in the queue."""

    def archived(self, job_ids: Iterable[int]) -> Deferred[Mapping[int, bytes]]:
        """The documents of those of the jobs that are in the archive."""

    def snapshot(self) -> Snapshot:
        """The configuration."""

    def image(self) -> SentImage:
        """config.data."""
