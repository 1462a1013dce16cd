"""What is published and not yet in the files: the rows due in the next round, and how many.

Pure. Rows come in as they are published; a round takes all of them, and gives
them back if it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ganeti_masterd.journal.following import FollowedImage, Round
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, Row


class Backlog:
    """The rows that the files don't hold yet.

    ``rows`` counts them, log lines included. ``due`` says whether a round
    would write anything, ``config_due`` whether it would write config.data.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.config_due = False
        self._serial: int | None = None
        self._jobs: dict[int, tuple[int, JobRow]] = {}
        self._lines: dict[int, list[int]] = {}
        self._since = 0  # rows but log lines that no round has taken

    @property
    def due(self) -> bool:
        """Whether there is something to write. Log lines wait for their job's next row."""
        return self.config_due or self._serial is not None or bool(self._jobs)

    def publish(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Takes numbered rows that are committed, in order."""
        for seq, row in rows:
            self.rows += 1
            if isinstance(row, LogRow):
                self._lines.setdefault(row.job_id, []).append(seq)
                continue
            self._since += 1
            if isinstance(row, JobRow):
                self._jobs[row.job_id] = seq, row
            elif isinstance(row, ConfigRow):
                self.config_due = True
            else:
                self._serial = max(self._serial or 0, row.reserved)

    def take(self, seq: int, image: Callable[[], FollowedImage]) -> Taken:
        """Returns a round of all that is due, ``seq`` being the last number published."""
        config = image() if self.config_due else None
        logs = [
            (job_id, job_seq)
            for job_id, (job_seq, _) in self._jobs.items()
            if job_id in self._lines
        ]
        taken = Taken(Round(seq, self._serial, config, self._jobs, logs), self._since)
        self._jobs, self._serial, self.config_due, self._since = {}, None, False, 0
        return taken

    def done(self, taken: Taken) -> None:
        """Counts off what a round wrote."""
        self.rows -= taken.rows
        for job_id, job_seq in taken.round.logs:
            lines = self._lines.pop(job_id)
            newer = [seq for seq in lines if seq > job_seq]
            self.rows -= len(lines) - len(newer)
            if newer:
                self._lines[job_id] = newer

    def failed(self, taken: Taken) -> None:
        """Takes back what a round could not write, under what came since."""
        self._since += taken.rows
        self._jobs = {**taken.round.jobs, **self._jobs}
        if taken.round.serial is not None:
            self._serial = max(self._serial or 0, taken.round.serial)
        self.config_due = self.config_due or taken.round.config is not None


class Taken:
    """A round under way, and how many rows (but log lines) it takes along."""

    def __init__(self, round_: Round, rows: int) -> None:
        self.round = round_
        self.rows = rows
