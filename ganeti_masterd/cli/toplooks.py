"""What ``gnt-luxi top`` asks the daemon, over LUXI alone.

Jobs are asked for at each look, lists of nodes, instances and failed jobs less often.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.rows import JobOutcome, Listed, LogLine, fetch
from ganeti_masterd.cli.topview import FollowedJob, TopJob, TopState
from ganeti_masterd.cli.words import (
    clock,
    failure_text,
    log_text,
    printable,
    seconds_of,
    summaries,
)
from ganeti_masterd.constants import (
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_WAITING,
)
from ganeti_masterd.errors import GenericError, JobLost
from ganeti_masterd.luxi.calls import Calls
from ganeti_masterd.luxi.failures import CallFailed

#: Seconds between two questions about all nodes, instances and failed jobs.
SELDOM = 10.0
#: The most jobs that are listed, of which waits are explained, and that failed.
MOST_JOBS, MOST_WAITS, MOST_FAILED = 200, 20, 10

_OPEN = (STATUS_RUNNING, STATUS_CANCELING, STATUS_WAITING, STATUS_QUEUED)


class _Kept(Struct):
    """What is asked seldom."""

    failed: list[TopJob] = []
    nodes: int = 0
    offline: list[str] = []
    drained: list[str] = []
    instances: dict[str, int] = {}


class Looks:
    """Looks at the cluster, again and again; every method raises ``CallFailed`` like ``client``."""

    def __init__(
        self, client: Calls, now: Callable[[], float] = time.time, seldom: float = SELDOM
    ) -> None:
        self._client = client
        self._now = now
        self._seldom = seldom
        self._kept = _Kept()
        self._asked = float("-inf")

    def state(self) -> TopState:
        """Returns what there is to see now."""
        now = self._now()
        if not 0 <= now - self._asked < self._seldom:
            self._kept = self._all()
            self._asked = now
        kept = self._kept
        cluster, master, drained, pause = self._client.config_values(
            ["cluster_name", "master_node", "drain_flag", "watcher_pause"]
        )
        open_ids = self._open()
        jobs = fetch(self._client, JobOutcome, open_ids[:MOST_JOBS])
        explained = 0
        shown = []
        for job in jobs.values():
            said = _last_line(job)
            if job.status in (STATUS_WAITING, STATUS_QUEUED) and explained < MOST_WAITS:
                explained += 1
                said = self._why(job.id)
            shown.append(_top_job(job, said))
        return TopState(
            cluster=str(cluster),
            master=str(master),
            now=now,
            drained=bool(drained),
            paused_until=pause if isinstance(pause, (int, float)) else None,
            open_jobs=shown,
            left_out=max(0, len(open_ids) - MOST_JOBS),
            failed=kept.failed,
            nodes=kept.nodes,
            offline=kept.offline,
            drained_nodes=kept.drained,
            instances=kept.instances,
        )

    def job(self, job_id: int) -> FollowedJob | None:
        """Returns a job with its log; None if it is gone."""
        job = fetch(self._client, JobOutcome, [job_id]).get(job_id)
        if job is None:
            return None
        said = ""
        if job.status == STATUS_ERROR:
            said = _failure(job)
        elif job.status in (STATUS_WAITING, STATUS_QUEUED):
            said = self._why(job_id)
        lines = [line for log in job.oplog for line in log]
        log = [f"{clock(line.time)} {log_text(line.message)}" for line in lines]
        return FollowedJob(_top_job(job, said), log)

    def _open(self) -> list[int]:
        """Returns the jobs that have not ended, those that run first."""
        filter_ = ["|", *(["=", "status", status] for status in _OPEN)]
        rows = self._rows("job", ["id", "status"], filter_)
        rows.sort(key=lambda row: (_OPEN.index(row[1]), row[0]))
        return [row[0] for row in rows]

    def _all(self) -> _Kept:
        errors = self._rows("job", ["id"], ["=", "status", STATUS_ERROR])
        newest = sorted((row[0] for row in errors), reverse=True)[:MOST_FAILED]
        failed = fetch(self._client, JobOutcome, newest)
        nodes = self._rows("node", ["name", "offline", "drained"], None)
        instances = self._rows("instance", ["admin_state"], None)
        return _Kept(
            [
                _top_job(failed[job_id], _failure(failed[job_id]))
                for job_id in newest
                if job_id in failed
            ],
            len(nodes),
            [name for name, offline, _ in nodes if offline],
            [name for name, _, drained in nodes if drained],
            dict(Counter(str(state) for (state,) in instances)),
        )

    def _rows(self, what: str, fields: Sequence[str], filter_: Any) -> list[list[Any]]:
        answer = self._client.query(what, fields, filter_)
        rows = read_as(list[list[tuple[int, Any]]], answer["data"], what)
        return [[value for _, value in row] for row in rows]

    def _why(self, job_id: int) -> str:
        try:
            answer: Mapping[str, Any] = self._client.query_job_wait(job_id)
        except CallFailed:
            raise
        except (JobLost, GenericError):  # it has ended meanwhile, or the daemon is luxid
            return ""
        return printable(str(answer.get("sentence", "")))


def _top_job(job: Listed, said: str) -> TopJob:
    stamp = job.start_ts if job.status in (STATUS_RUNNING, STATUS_CANCELING) else job.received_ts
    if job.end_ts is not None:
        stamp = job.end_ts
    done = 0
    if isinstance(job, JobOutcome):
        done = sum(status not in _OPEN for status in job.opstatus)
    return TopJob(
        job.id,
        job.status,
        summaries(job.summary),
        None if stamp is None else seconds_of(stamp),
        done,
        len(job.summary),
        said,
    )


def _last_line(job: JobOutcome) -> str:
    lines: list[LogLine] = [line for log in job.oplog for line in log]
    return log_text(lines[-1].message) if lines else ""


def _failure(job: JobOutcome) -> str:
    for status, result in zip(job.opstatus, job.opresult, strict=False):
        if status == STATUS_ERROR:
            return failure_text(result)
    return ""
