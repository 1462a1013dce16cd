"""Why a journal can't be opened: each reason is a class of its own.

All of them stop the start of the daemon and name the file. They travel as
``JobQueueError``; their one argument is the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ganeti_masterd.errors import JobQueueError


class JournalError(JobQueueError):
    """The journal can't be opened or resolved; ``path`` is its file."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class JournalCorrupt(JournalError):
    """The file is not a journal, or is damaged; ``fault`` says what was found."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(path, f"the journal is corrupt: {fault}")
        self.fault = fault


class JournalTooNew(JournalError):
    """A later version of the daemon wrote the journal."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(
            path,
            f"the journal has schema version {found}, this daemon knows versions up to {known}",
        )
        self.found = found
        self.known = known


class JournalInUse(JournalError):
    """Another process has the journal open."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "the journal is in use by another process")


class JournalSetAside(JournalError):
    """A journal was set aside and waits for the operator's decision.

    See architecture.rst, journal rules 4 and 8.

    ``jobs`` lists ``(job id, status)`` of the jobs in it, by id; ``reason``
    says what did not fit. None of its jobs was replayed. ``losses`` says of a damaged journal
    what of it can't be read, one sentence's part each; it is empty for one that is whole.
    ``saved`` counts the rows that can be read, by kind.
    """

    def __init__(
        self,
        path: str,
        jobs: Sequence[tuple[int, str]],
        reason: str,
        losses: Sequence[str] = (),
        saved: Mapping[str, int] | None = None,
    ) -> None:
        shown = ", ".join(f"{job_id} ({status})" for job_id, status in jobs) or "none"
        which = "; the jobs that can be read in it: " if losses else "; its jobs: "
        super().__init__(
            path,
            f"the journal is set aside: {reason}{which}{shown}; nothing runs until"
            " 'gnt-luxi recover' decides between the journal and the files",
        )
        self.jobs = list(jobs)
        self.reason = reason
        self.losses = list(losses)
        self.saved = dict(saved or {})
