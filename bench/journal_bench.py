"""Measures the journal on this machine's disk: commits a second, latency, replay.

Run ``python -m bench.journal_bench [directory]``; the directory (default: one
below the system's temporary one) should be on the disk in question. Each
figure is of the real journal, its thread and its files, with following on.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.task import react

from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.following import EncodedImage
from ganeti_masterd.journal.journal import Journal
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, Recovered, recover
from ganeti_masterd.journal.rows import ConfigRow, JobRow, Row
from ganeti_masterd.journal.thread import DiskThread
from ganeti_masterd.timing import Timers

BODY = b'{"id": 1, "ops": [{"status": "queued"}], "padding": "%s"}' % (b"x" * 645)
SECONDS = 3.0


def opened(root: Path) -> Recovered:
    """Returns the journal of a root directory, its rows in the files."""
    for name in ("queue", "etc"):
        (root / name).mkdir(exist_ok=True)
    return recover(
        str(root / "masterd" / "journal.db"),
        identity=Identity("bench", "bench"),
        files=QueueFiles(str(root / "queue"), str(root / "etc" / "config.data")),
        disk=RealDisk(),
        merge_log=lambda body, entries: body,
        check_job=lambda job_id, body: None,
        merge_config=lambda config, rows: config,
        now=time.time,
    )


class Bench:
    """One journal in a directory of its own, and loads on it."""

    def __init__(self, reactor: Any, root: Path) -> None:
        self.reactor = reactor
        timers = Timers(reactor, time.time)
        self.journal = Journal(opened(root), DiskThread(reactor), timers)
        self.journal.config_from(lambda: EncodedImage(b"{}" * 500_000))
        self.journal.start()
        self._last_id = 0

    def own_job(self, committer: int) -> Sequence[Row]:
        """The same job again: what a running job does."""
        return [JobRow(committer + 1, BODY)]

    def new_job(self, committer: int) -> Sequence[Row]:
        """A job never seen: what a submission does."""
        self._last_id += 1
        return [JobRow(1000 + self._last_id, BODY)]

    def job_and_config(self, committer: int) -> Sequence[Row]:
        """A job's end, which changed the configuration."""
        return [ConfigRow("nodes", str(committer), BODY), JobRow(committer + 1, BODY)]

    @inlineCallbacks
    def closed_loop(
        self, committers: int, rows: Callable[[int], Sequence[Row]], name: str
    ) -> Generator[Deferred[Any], Any, None]:
        """Prints the rate and latency of committers that wait for each commit."""
        end = time.perf_counter() + SECONDS
        latencies: list[float] = []

        @inlineCallbacks
        def committer(number: int) -> Generator[Deferred[Any], Any, None]:
            while (began := time.perf_counter()) < end:
                yield self.journal.commit(rows(number))
                latencies.append(time.perf_counter() - began)

        began = time.perf_counter()
        yield DeferredList([committer(n) for n in range(committers)], fireOnOneErrback=True)
        rate = len(latencies) / (time.perf_counter() - began)
        backlog = self.journal.backlog
        began = time.perf_counter()
        yield self.journal.settle()
        latencies.sort()
        print(
            f"{name:42} {rate:8,.0f} commits/s   median {1e3 * latencies[len(latencies) // 2]:6.2f}"
            f" ms, 99% {1e3 * latencies[len(latencies) * 99 // 100]:6.2f} ms"
            f"   backlog {backlog:6,}, settled in {time.perf_counter() - began:5.2f} s"
        )

    @inlineCallbacks
    def burst(self, count: int) -> Generator[Deferred[Any], Any, None]:
        """Prints how long one commit of many rows takes."""
        times = []
        for _ in range(5):
            rows = [row for _ in range(count) for row in self.new_job(0)]
            began = time.perf_counter()
            yield self.journal.commit(rows)
            times.append(time.perf_counter() - began)
            yield self.journal.settle()
        print(f"one commit of {count:,} rows: best {1e3 * min(times):.1f} ms, worst", end=" ")
        print(f"{1e3 * max(times):.1f} ms")


def replay(root: Path, count: int) -> None:
    """Prints how long the rows of as many jobs take to replay."""
    recovered = opened(root)
    rows = [(n, JobRow(100_000 + n, BODY)) for n in range(1, count + 1)]
    recovered.store.append(recovered.chain.link(rows))
    recovered.store.close()
    began = time.perf_counter()
    recovered = opened(root)
    print(f"replay of {recovered.replayed:,} rows: {time.perf_counter() - began:.2f} s")
    recovered.store.close()


@inlineCallbacks
def main(reactor: Any, directory: str | None = None) -> Generator[Deferred[Any], Any, None]:
    """Runs every measurement in a temporary directory."""
    os.umask(0o077)
    with tempfile.TemporaryDirectory(dir=directory) as root:
        bench = Bench(reactor, Path(root))
        yield bench.closed_loop(16, bench.own_job, "16 committers, a job each")
        yield bench.closed_loop(1, bench.own_job, "1 committer, one job")
        yield bench.closed_loop(16, bench.job_and_config, "16 committers, 1 MB of configuration")
        yield bench.closed_loop(16, bench.new_job, "16 committers, always new jobs")
        yield bench.burst(2000)
        yield bench.journal.close()
    with tempfile.TemporaryDirectory(dir=directory) as root:
        replay(Path(root), 5000)


if __name__ == "__main__":
    react(main, sys.argv[1:2])
