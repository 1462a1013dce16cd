"""What ``gnt-luxi top`` shows: the state of the cluster as lines for a screen. Pure.

What is wrong comes first, then what runs, why others wait, what failed, and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ganeti_masterd.cli.words import duration
from ganeti_masterd.constants import (
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_WAITING,
)

#: Seconds after which a job runs, or waits, so long that it is worth a line at the top.
LONG_RUN, LONG_WAIT = 6 * 3600.0, 1800.0

HELP = (
    "up, down, j, k    choose a job",
    "Enter             follow it: its log as it grows",
    "Esc, b            back",
    "/                 show only jobs whose line has a text; empty shows all",
    "?                 this help",
    "q, Ctrl-C         quit",
)


class TopJob(Struct, frozen=True):
    """A job. ``since`` (epoch) is when it began or, until then, when it was submitted.

    ``said`` is its progress or last log line, why it waits, or why it failed.
    """

    id: int
    status: str
    summary: str
    since: float | None = None
    done: int = 0
    ops: int = 1
    said: str = ""


class TopState(Struct, frozen=True):
    """The cluster at one moment. ``open_jobs`` have not ended, ``failed`` are the newest first.

    ``left_out`` counts jobs that have not ended and aren't listed. ``instances`` counts instances
    by what their administrator wants of them; ``paused_until`` is in seconds since the epoch.
    """

    cluster: str
    master: str
    now: float
    drained: bool = False
    paused_until: float | None = None
    open_jobs: Sequence[TopJob] = ()
    left_out: int = 0
    failed: Sequence[TopJob] = ()
    nodes: int = 0
    offline: Sequence[str] = ()
    drained_nodes: Sequence[str] = ()
    instances: Mapping[str, int] = {}


class FollowedJob(Struct, frozen=True):
    """A job that is followed, and all lines of its log."""

    job: TopJob
    log: Sequence[str] = ()


class Viewing(Struct, frozen=True):
    """What the person at the terminal chose. ``typing`` is the filter while it is typed."""

    chosen: int | None = None
    following: int | None = None
    filter: str = ""
    typing: str | None = None
    help: bool = False


class ScreenLine(Struct, frozen=True):
    """A line of the screen and its style, one of rich's."""

    text: str
    style: str = ""


def shown_jobs(state: TopState, filter_: str) -> list[TopJob]:
    """Returns the jobs that can be chosen, from above to below: run, wait, failed."""
    order = (STATUS_RUNNING, STATUS_CANCELING, STATUS_WAITING, STATUS_QUEUED, STATUS_ERROR)
    jobs = sorted(
        (*state.open_jobs, *state.failed),
        key=lambda job: (
            order.index(job.status) if job.status in order else len(order),
            -job.id if job.status == STATUS_ERROR else job.id,
        ),
    )
    wanted = filter_.lower()
    return [
        job for job in jobs if wanted in f"{job.id} {job.status} {job.summary} {job.said}".lower()
    ]


def moved(state: TopState | None, viewing: Viewing, steps: int) -> int | None:
    """Returns the job that is chosen after so many steps down (up if negative)."""
    jobs = [] if state is None else [job.id for job in shown_jobs(state, viewing.filter)]
    if not jobs:
        return None
    if viewing.chosen not in jobs:
        return jobs[0]
    return jobs[max(0, min(len(jobs) - 1, jobs.index(viewing.chosen) + steps))]


def wrong(state: TopState) -> Iterator[str]:
    """Yields what is wrong, each as a sentence."""
    if state.drained:
        yield "The queue is drained: it takes no jobs"
    if state.paused_until is not None and state.paused_until > state.now:
        yield f"The watcher pauses for {duration(state.paused_until - state.now)} more"
    if state.offline:
        yield f"Offline: {_some(state.offline)}"
    if state.drained_nodes:
        yield f"Drained: {_some(state.drained_nodes)}"
    for status, limit, verb in (
        ((STATUS_RUNNING,), LONG_RUN, "runs"),
        ((STATUS_QUEUED, STATUS_WAITING), LONG_WAIT, "waits"),
    ):
        old = [
            (state.now - job.since, job.id)
            for job in state.open_jobs
            if job.status in status and job.since is not None and state.now - job.since > limit
        ]
        if old:
            age, job_id = max(old)
            yield f"Job {job_id} {verb} for {duration(age)} by now"


def screen(
    state: TopState | None,
    viewing: Viewing,
    width: int,
    height: int,
    *,
    followed: FollowedJob | None = None,
    trouble: str | None = None,
) -> list[ScreenLine]:
    """Returns the screen's lines, as many as it has, none wider than it.

    ``trouble`` is why the daemon doesn't answer; what was known before is shown below it.
    """
    head = [_title(state)]
    if trouble is not None:
        head.append(ScreenLine(f"Not connected: {trouble}; trying again", "bold red"))
    body_height = max(0, height - len(head) - 1)
    if viewing.help:
        body = [ScreenLine("Keys", "bold"), *(ScreenLine(f"  {line}") for line in HELP)]
    elif followed is not None:
        body = _followed(followed, state, body_height)
    elif state is None:
        body = [ScreenLine("Waiting for the daemon's first answer")] if trouble is None else []
    else:
        body = _overview(state, viewing, body_height)
    lines = [*head, *body[:body_height]]
    lines += [ScreenLine("")] * (height - 1 - len(lines))
    lines.append(_foot(viewing))
    return [ScreenLine(cut(line.text, width), line.style) for line in lines[:height]]


def cut(text: str, width: int) -> str:
    """Returns a text without line ends and control characters, at most so wide."""
    from rich.cells import cell_len, set_cell_size

    line = "".join(each if each.isprintable() else " " for each in text)
    if cell_len(line) <= width:
        return line
    return set_cell_size(line, max(0, width - 1)).rstrip() + ">" if width else ""


def _title(state: TopState | None) -> ScreenLine:
    if state is None:
        return ScreenLine("gnt-luxi top", "bold")
    runs = sum(job.status == STATUS_RUNNING for job in state.open_jobs)
    waits = len(state.open_jobs) - runs + state.left_out
    instances = sum(state.instances.values())
    up = state.instances.get("up", 0)
    return ScreenLine(
        f"{state.cluster}  master {state.master}  {runs} run, {waits} wait  "
        f"{state.nodes} nodes, {len(state.offline)} offline  {instances} instances, {up} up",
        "bold",
    )


def _foot(viewing: Viewing) -> ScreenLine:
    if viewing.typing is not None:
        return ScreenLine(f"Filter: {viewing.typing}_", "reverse")
    if viewing.following is not None or viewing.help:
        return ScreenLine("Esc back  ? help  q quit", "dim")
    which = f"  filter: {viewing.filter}" if viewing.filter else ""
    return ScreenLine(f"Enter follow  / filter  ? help  q quit{which}", "dim")


def _overview(state: TopState, viewing: Viewing, height: int) -> list[ScreenLine]:
    lines = [ScreenLine(f"! {fault}", "bold red") for fault in wrong(state)]
    jobs = shown_jobs(state, viewing.filter)
    groups = (
        (
            "Running",
            "cyan",
            [job for job in jobs if job.status in (STATUS_RUNNING, STATUS_CANCELING)],
        ),
        (
            "Waiting",
            "yellow",
            [job for job in jobs if job.status in (STATUS_WAITING, STATUS_QUEUED)],
        ),
        ("Failed lately", "red", [job for job in jobs if job.status == STATUS_ERROR]),
    )
    chosen_at = 0
    listed: list[ScreenLine] = []
    for title, style, group in groups:
        more = state.left_out if title == "Waiting" and not viewing.filter else 0
        listed.append(ScreenLine(f"{title}: {len(group) + more}", "bold"))
        for job in group:
            if job.id == viewing.chosen:
                chosen_at = len(listed)
            listed.append(_job_line(job, state.now, style, chosen=job.id == viewing.chosen))
    # What is chosen stays on the screen, whatever is above it.
    room = max(1, height - len(lines))
    first = max(0, min(chosen_at - room // 2, len(listed) - room))
    return [*lines, *listed[first : first + room]]


def _job_line(job: TopJob, now: float, style: str, *, chosen: bool) -> ScreenLine:
    age = "" if job.since is None else duration(now - job.since)
    done = f" {job.done}/{job.ops}" if job.ops > 1 else ""
    mark = ">" if chosen else " "
    said = f"  {job.said}" if job.said else ""
    return ScreenLine(
        f"{mark}{job.id:>7} {age:>11}{done}  {job.summary}{said}", "reverse" if chosen else style
    )


def _followed(followed: FollowedJob, state: TopState | None, height: int) -> list[ScreenLine]:
    job = followed.job
    age = "" if job.since is None or state is None else f", {duration(state.now - job.since)}"
    lines = [ScreenLine(f"Job {job.id} {job.status}{age}: {job.summary}", "bold")]
    if job.said:
        lines.append(ScreenLine(job.said, "red" if job.status == STATUS_ERROR else ""))
    room = max(0, height - len(lines))
    log = [*followed.log[-room:]] if room else []
    return [*lines, *(ScreenLine(f"  {line}") for line in log)]


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
