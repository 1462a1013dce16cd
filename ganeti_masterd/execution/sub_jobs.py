"""Jobs that an opcode submits: they come to be with its success, in the same commit."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ganeti_masterd.execution.context import Services
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.journal.rows import Row
from ganeti_masterd.opcodes.base import Opcode


class SubJobs:
    """What one job's current opcode has submitted. Reactor thread only."""

    def __init__(self, services: Services, job_id: int) -> None:
        self._services = services
        self._job_id = job_id
        self._jobs: list[Job] = []
        self._rows: list[Row] = []

    def add(self, index: int, jobs: Sequence[Sequence[Opcode]]) -> list[int]:
        """Gives ids to jobs that come to be with the success of the opcode at ``index``."""
        services = self._services
        parent = services.queue.opcodes[self._job_id][index]
        made, rows = services.submission.prepare(
            [[_inherit(parent, op) for op in ops] for ops in jobs]
        )
        self._jobs += made
        self._rows += rows
        return [job.id for job in made]

    def take(self) -> tuple[list[Job], list[Row]]:
        """Returns the jobs and the rows that they need; whoever takes them commits them."""
        taken = self._jobs, self._rows
        self._jobs, self._rows = [], []
        return taken

    def drop(self) -> None:
        """Forgets them, as the opcode failed or starts over."""
        for job in self._jobs:
            self._services.queue.let_go(job.id)
        self._jobs, self._rows = [], []


def _inherit(parent: Opcode, op: Opcode) -> Opcode:
    return replace(
        op,
        priority=parent.priority,
        debug_level=parent.debug_level,
        reason=(*parent.reason, *op.reason),
        comment=op.comment or f"Submitted by {parent.op_id}",
    )
