"""What clients of a daemon were promised, and whether it was kept after the daemon was killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganeti_masterd.luxi.blocking import BlockingClient

FINAL = frozenset({"success", "error", "canceled"})
STATES = FINAL | {"queued", "waiting", "canceling", "running"}

FIELDS = [
    *("id", "status", "ops", "opstatus", "opresult", "oplog", "oppriority"),
    *("received_ts", "start_ts", "end_ts", "opstart", "opexec", "opend", "archived"),
]

#: How many ids one query names: the answer is a list for each.
_SLICE = 2000


@dataclass
class Ledger:
    """What one or more clients asked for and what they were told. Jobs are by id."""

    #: The durations that were sent; each names one opcode.
    sent: set[float] = field(default_factory=set)
    #: Jobs that were acknowledged, by the durations (or tags) of their opcodes.
    jobs: dict[int, list[float | str]] = field(default_factory=dict)
    #: How often each opcode calls its node.
    rounds: dict[float, int] = field(default_factory=dict)
    canceled: set[int] = field(default_factory=set)
    archived: set[int] = field(default_factory=set)
    archiving: set[int] = field(default_factory=set)
    #: AutoArchiveJobs was called: any finished job may be archived.
    swept: bool = False
    #: Priorities that a job may have: the last one acknowledged and those sent since.
    priorities: dict[int, set[int]] = field(default_factory=dict)
    #: The statuses of a job's opcodes as last seen.
    seen: dict[int, list[str]] = field(default_factory=dict)
    #: Log lines that were seen, by serial.
    lines: dict[int, dict[int, Any]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    tags_sent: set[str] = field(default_factory=set)
    tags_dropped: set[str] = field(default_factory=set)
    tags_dropping: set[str] = field(default_factory=set)
    #: What the watcher's pause may be: the last one acknowledged, if any was, and those sent since.
    pauses: set[int | None] = field(default_factory=set)
    paused: bool = False
    #: The highest id acknowledged by a daemon that was killed since.
    last_before: int = 0
    #: What should not have happened at all.
    faults: list[str] = field(default_factory=list)

    def add(self, other: Ledger) -> None:
        """Takes over what another client was told; no two clients share a job or a tag."""
        twice = self.jobs.keys() & other.jobs.keys()
        if twice:
            self.faults.append(f"job ids given twice: {sorted(twice)}")
        if other.jobs and min(other.jobs) <= self.last_before:
            self.faults.append(f"job {min(other.jobs)} came after job {self.last_before}")
        for mine, theirs in (
            (self.jobs, other.jobs),
            (self.rounds, other.rounds),
            (self.priorities, other.priorities),
            (self.seen, other.seen),
            (self.lines, other.lines),
        ):
            mine.update(theirs)  # type: ignore[attr-defined]
        for name in ("sent", "canceled", "archived", "archiving", "tags", "tags_sent"):
            getattr(self, name).update(getattr(other, name))
        self.tags_dropped |= other.tags_dropped
        self.tags_dropping |= other.tags_dropping
        self.swept |= other.swept
        self.pauses = other.pauses if other.paused else self.pauses | other.pauses
        self.faults += other.faults

    def killed(self) -> None:
        """The daemon was killed: ids given from now on must be above those before."""
        self.last_before = max(self.jobs, default=0)


Row = dict[str, Any]


def rows_of(client: BlockingClient, ids: Iterable[int]) -> dict[int, Row]:
    """Returns the fields of these jobs."""
    wanted = sorted(ids)
    rows: dict[int, Row] = {}
    for start in range(0, len(wanted), _SLICE):
        for values in client.query_jobs(wanted[start : start + _SLICE], FIELDS):
            row = dict(zip(FIELDS, values, strict=True))
            rows[row["id"]] = row
    return rows


def calls_in(log: Path) -> Counter[float]:
    """Returns how often each duration was waited for on a node, by the log of calls.

    A kill may leave half a line, to which the next daemon's first one is joined.
    """
    return calls_in_lines(log.read_text("ascii").splitlines() if log.exists() else ())


def calls_in_lines(lines: Iterable[str]) -> Counter[float]:
    """Returns the same of some lines of a log."""
    found: Counter[float] = Counter()
    for line in lines:
        start = line.rfind('{"time":')
        try:
            entry = json.loads(line[max(start, 0) :])
        except ValueError:
            continue
        if entry["call"] == "test_delay":
            found[entry["arguments"][0]] += 1
    return found


def faults_in(ledger: Ledger, rows: Mapping[int, Row], calls: Mapping[float, int]) -> list[str]:
    """Returns what is wrong with the jobs; ``calls`` are older than ``rows``."""
    faults = []
    for job, row in rows.items():
        faults += [f"job {job}: {fault}" for fault in _job_faults(ledger, job, row, calls)]
    return faults


def _job_faults(ledger: Ledger, job: int, row: Row, calls: Mapping[float, int]) -> Iterable[str]:
    status = row["status"]
    if status is None:
        yield "was acknowledged and is gone"
        return
    if status not in STATES or row["status"] != _status_of(row["opstatus"]):
        yield f"has the unlawful status {status}, {row['opstatus']}"
    if [_name_of(op) for op in row["ops"]] != ledger.jobs[job]:
        yield f"has other opcodes than were submitted: {row['ops']}"
    if job in ledger.canceled and status != "canceled":
        yield f"was acknowledged as canceled and is {status}"
    if job in ledger.archived and not row["archived"]:
        yield "was acknowledged as archived and is not"
    if row["archived"] and not (ledger.swept or job in ledger.archiving):
        yield "is archived, which nobody asked for"
    if row["archived"] and status not in FINAL:
        yield f"is archived and {status}"
    for before, now in zip(ledger.seen.get(job, ()), row["opstatus"], strict=False):
        if not _may_follow(before, now):
            yield f"was seen with an opcode that is {before}, it is {now} now"
    for priority, now in zip(row["oppriority"], row["opstatus"], strict=True):
        if now in ("queued", "waiting") and priority not in ledger.priorities.get(job, {priority}):
            yield f"has priority {priority}, not one of {ledger.priorities[job]}"
    kept = {entry[0]: entry[3] for log in row["oplog"] for entry in log}
    for serial, text in ledger.lines.get(job, {}).items():
        if kept.get(serial) != text:
            yield f"said line {serial}, {text!r}, and now {kept.get(serial)!r}"
    for name, now in zip(ledger.jobs[job], row["opstatus"], strict=False):
        if isinstance(name, float):
            ran, rounds = calls.get(name, 0), ledger.rounds[name]
            if ran > rounds or (ran and now in ("queued", "waiting", "canceled")):
                yield f"has a {now} opcode that called its node {ran} times, not {rounds}"


def run_faults(ledger: Ledger, rows: Mapping[int, Row], calls: Mapping[float, int]) -> list[str]:
    """Returns what is wrong with jobs that have all ended; ``calls`` are all there will be."""
    faults = []
    for job, row in rows.items():
        if row["status"] not in FINAL:
            faults.append(f"job {job} has not ended, it is {row['status']}")
        for name, status in zip(ledger.jobs[job], row["opstatus"], strict=True):
            if isinstance(name, float) and status == "success":
                ran, rounds = calls.get(name, 0), ledger.rounds[name]
                if ran != rounds:
                    faults.append(f"job {job} succeeded with {ran} calls, not {rounds}")
    return faults


def tag_faults(ledger: Ledger, tags: Iterable[str]) -> list[str]:
    """Returns what is wrong with the cluster's tags."""
    found = set(tags)
    faults = [f"tag {tag} is gone" for tag in ledger.tags - ledger.tags_dropping - found]
    faults += [f"tag {tag} is back" for tag in ledger.tags_dropped & found]
    return faults + [f"tag {tag} is nobody's" for tag in found - ledger.tags_sent]


def file_faults(ledger: Ledger, queue: Path, config: Path) -> list[str]:
    """Returns what is wrong with Ganeti's own files while no daemon runs.

    Whatever the moment of the kill, another daemon could go on with them: each
    is whole, no id would be given twice, no job has ended without what it did.
    """
    faults = []
    serial = int((queue / "serial").read_text("ascii")) if (queue / "serial").exists() else 0
    tags = set(json.loads(config.read_bytes())["cluster"]["tags"])
    for path in [*queue.glob("job-*"), *queue.glob("archive/*/job-*")]:
        if not path.name.removeprefix("job-").isdigit():  # half written
            continue
        job = json.loads(path.read_bytes())
        if path.name != f"job-{job['id']}":
            faults.append(f"{path} holds job {job['id']}")
        if job["id"] > serial:
            faults.append(f"serial is {serial}, and there is a file of job {job['id']}")
        for op in job["ops"]:
            if op["input"]["OP_ID"] == "OP_TAGS_SET" and op["status"] == "success":
                lost = set(op["input"]["tags"]) - tags - ledger.tags_dropping
                if lost:
                    faults.append(f"job {job['id']} has ended, and config.data lacks {lost}")
    return faults


def disagreements(rows: Mapping[int, Row], queue: Path) -> list[str]:
    """Returns where job files, after a clean stop, say other than QueryJobs said."""
    faults = []
    for job, row in rows.items():
        path = queue / f"job-{job}"
        if row["archived"]:
            path = queue / "archive" / str(job // 10000) / f"job-{job}"
        if not path.exists():
            faults.append(f"{path} is missing")
            continue
        held = json.loads(path.read_bytes())
        ops = held["ops"]
        said = {
            "id": held["id"],
            "opstatus": [op["status"] for op in ops],
            "opresult": [op["result"] for op in ops],
            "oplog": [op["log"] for op in ops],
            "oppriority": [op["priority"] for op in ops],
            "opstart": [op["start_timestamp"] for op in ops],
            "opexec": [op["exec_timestamp"] for op in ops],
            "opend": [op["end_timestamp"] for op in ops],
            "received_ts": held["received_timestamp"],
            "start_ts": held["start_timestamp"],
            "end_ts": held["end_timestamp"],
        }
        faults += [
            f"{path}: {name} is {value!r}, QueryJobs said {row[name]!r}"
            for name, value in said.items()
            if value != row[name]
        ]
    return faults


def _name_of(op: Mapping[str, Any]) -> float | str:
    if op["OP_ID"] == "OP_TEST_DELAY":
        return float(op["duration"])
    return str(op["tags"][0])


def _status_of(statuses: list[str]) -> str:
    for status in statuses:
        if status in ("error", "canceling", "canceled"):
            return status
    if all(status == "success" for status in statuses):
        return "success"
    active = [status for status in statuses if status in ("waiting", "running")]
    return active[-1] if active else "queued"


def _may_follow(before: str, now: str) -> bool:
    """Whether an opcode that was seen in one state can be in the other, kill or not."""
    if before in FINAL:
        return now == before
    if before == "running":
        return now in ("running", "success", "error")
    return now != "canceling" if before != "canceling" else now in ("canceled", "error")
