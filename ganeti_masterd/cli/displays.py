"""Displays of jobs that are followed: progress bars on a terminal, lines, or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self

from ganeti_masterd.cli.following import Ended, Event, LineSaid, StatusMoved
from ganeti_masterd.cli.output import Output, console
from ganeti_masterd.cli.rows import JobOutcome, as_object
from ganeti_masterd.cli.words import (
    STYLES,
    clock,
    counted,
    failure_text,
    log_text,
    span,
    summaries,
)
from ganeti_masterd.constants import STATUS_ERROR, STATUS_SUCCESS, STATUSES_FINALIZED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

#: If there are more jobs than this, a terminal shows one bar for all of them.
MOST_BARS = 12


class Display(AbstractContextManager["Display"], Protocol):
    """Shows events as they come; leaving the ``with`` block restores the terminal."""

    def show(self, event: Event) -> None:
        """Shows one event."""


def display(out: Output, jobs: Sequence[int]) -> Display:
    """Returns the display that suits the output."""
    if out.json:
        return Records(out)
    return Bars(jobs, console()) if out.rich else Lines(out)


def follow(events: Iterable[Event], shown: Display) -> dict[int, JobOutcome]:
    """Shows events until there are no more; returns how each job ended."""
    outcomes = {}
    with shown:
        for event in events:
            shown.show(event)
            if isinstance(event, Ended):
                outcomes[event.job] = event.outcome
    return outcomes


def ending(outcome: JobOutcome) -> str:
    """Returns how a job ended in one line: status, how long it ran, and its error, if any."""
    text = f"{outcome.status}, {summaries(outcome.summary)}"
    took = span(outcome.start_ts, outcome.end_ts)
    if took != "-":
        text += f", {took}"
    fault = first_fault(outcome)
    return text if fault is None else f"{text}: {fault}"


def first_fault(outcome: JobOutcome) -> str | None:
    """Returns the error of the first opcode that failed, or None if none did."""
    for status, result in zip(outcome.opstatus, outcome.opresult, strict=False):
        if status == STATUS_ERROR:
            return failure_text(result)
    return None


class _Plain:
    """A display with nothing to restore."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Nothing(_Plain):
    """Shows nothing; used to wait only for the end of jobs."""

    def show(self, event: Event) -> None:
        """Does nothing."""


class Records(_Plain):
    """Prints each event as a JSON object on one line."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def show(self, event: Event) -> None:
        """Prints the event, with its kind as ``event``."""
        self._out.record(record(event))


def record(event: Event) -> dict[str, Any]:
    """Returns an event for JSON output."""
    match event:
        case StatusMoved(job=job, status=status, done=done, opcodes=opcodes):
            return {
                "event": "status",
                "job": job,
                "status": status,
                "done": done,
                "opcodes": opcodes,
            }
        case LineSaid(job=job, time=time, kind=kind, message=message):
            return {"event": "log", "job": job, "time": time, "kind": kind, "message": message}
        case Ended(job=job, outcome=outcome):
            return {"event": "end", "job": job, **without_log(outcome)}


def without_log(outcome: JobOutcome) -> dict[str, Any]:
    """Returns how a job ended for JSON output, without its log."""
    values = as_object(outcome)
    del values["oplog"]
    return values


class Lines(_Plain):
    """Prints each event on a line."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._status: dict[int, str] = {}

    def show(self, event: Event) -> None:
        """Prints the event, unless it is a step that doesn't change the job's status."""
        match event:
            case StatusMoved(job=job, status=status):
                # The end is printed with its details, by the event `Ended`.
                if status not in STATUSES_FINALIZED and self._status.get(job) != status:
                    self._out.line(f"job {job}: {status}")
                self._status[job] = status
            case LineSaid(job=job, time=time, message=message):
                self._out.line(f"job {job}: {clock(time)} {log_text(message)}")
            case Ended(job=job, outcome=outcome):
                self._out.line(f"job {job}: {ending(outcome)}")


class Bars:
    """Progress bars on a terminal: one for each job, or one for all if there are many.

    Log lines and the ends of jobs are printed above the bars, and stay.
    """

    def __init__(self, jobs: Sequence[int], screen: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=screen,
            transient=True,
        )
        self._screen = screen
        self._ends: Counter[str] = Counter()
        self._bars: dict[int, TaskID] = {}
        self._all: TaskID | None = None
        if len(jobs) > MOST_BARS:
            self._all = self._progress.add_task("jobs", total=len(jobs), state="")
        else:
            for job in jobs:
                self._bars[job] = self._progress.add_task(f"job {job}", total=1, state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._all is not None and self._ends:
            text = ", ".join(f"{number:,} {status}" for status, number in self._ends.most_common())
            self._screen.print(f"{counted(self._ends.total(), 'job')}: {text}")

    def show(self, event: Event) -> None:
        """Moves the job's bar, or prints above the bars."""
        match event:
            case StatusMoved(job=job, status=status, done=done, opcodes=opcodes):
                if self._all is None:
                    self._progress.update(
                        self._bars[job], completed=done, total=opcodes, state=status
                    )
            case LineSaid(job=job, time=time, message=message):
                self._print(f"job {job}: {clock(time)} {log_text(message)}", "")
            case Ended(job=job, outcome=outcome):
                self._end(job, outcome)

    def _end(self, job: int, outcome: JobOutcome) -> None:
        self._ends[outcome.status] += 1
        if self._all is not None:
            state = ", ".join(
                f"{number} {status}"
                for status, number in self._ends.items()
                if status != STATUS_SUCCESS
            )
            self._progress.update(self._all, completed=self._ends.total(), state=state)
        else:
            self._progress.remove_task(self._bars[job])
        if self._all is None or outcome.failed:
            self._print(f"job {job}: {ending(outcome)}", STYLES.get(outcome.status, ""))

    def _print(self, text: str, style: str) -> None:
        self._progress.console.print(text, style=style)
