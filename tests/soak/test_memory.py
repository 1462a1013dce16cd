"""Hundreds of thousands of jobs leave nothing behind in the daemon's memory.

GANETI_MASTERD_SOAK_JOBS says another number of jobs than 300,000.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.messages import encode_request
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.waiting import jobs_end

JOBS = int(os.environ.get("GANETI_MASTERD_SOAK_JOBS", "300000"))

#: Jobs after which caches are full and the allocator has what it needs.
WARM = min(30_000, JOBS // 3)
SAMPLES = 20

#: MiB that the daemon may grow by after that: with 300,000 jobs 16 bytes a job would be more.
ALLOWANCE = 4.0

MIB = 1 << 20
CLIENTS = 3
BATCH = 50
#: A client archives after so many of its batches.
SWEEP = 10
NODES = ("node1", "node2", "node3")


class Client(threading.Thread):
    """Submits batches of jobs, waits for them, and archives what has ended, until told to end.

    Of its jobs some depend on the one before, some on one in the archive; while they run
    others wait for them, and some of these go away before.
    """

    def __init__(self, path: str, seed: int) -> None:
        super().__init__(name=f"client {seed}", daemon=True)
        self.submitted = 0
        self.fault: Exception | None = None
        self._path = path
        self._random = random.Random(seed)
        self._enough = threading.Event()
        self._ended: list[int] = []
        #: Jobs that are in the archive, each to be depended upon once.
        self._archived: list[int] = []

    def end(self) -> None:
        """Lets it end after the batch that is under way."""
        self._enough.set()

    def run(self) -> None:
        """Does so until it is told to end, or something goes wrong."""
        try:
            with BlockingClient(self._path, timeout=60.0) as master:
                batches = 0
                while not self._enough.is_set():
                    jobs = self._submit(master)
                    self._wait(master, jobs)
                    batches += 1
                    if batches % SWEEP == 0:
                        master.auto_archive_jobs(-1, 60)
                        self._archived = self._ended[::2]
                        self._ended.clear()
                    self._ended += jobs
        except Exception as error:
            self.fault = error

    def _submit(self, master: BlockingClient) -> list[int]:
        results = master.submit_many_jobs([[self._opcode(first=n == 0)] for n in range(BATCH)])
        refused = [job for good, job in results if not good]
        assert not refused, refused
        self.submitted += len(results)
        return [job for _, job in results]

    def _opcode(self, *, first: bool) -> dict[str, Any]:
        roll = self._random.random()
        op: dict[str, Any] = {
            "OP_ID": "OP_TEST_DELAY",
            "duration": 0.0001,
            "on_master": False,
            "on_nodes": [self._random.choice(NODES)] if roll < 0.1 else [],
            "no_locks": roll > 0.2,
        }
        if roll > 0.8 and not first:
            op["depends"] = [[-1, []]]
        elif roll > 0.4 and self._archived:
            op["depends"] = [[self._archived.pop(), ["success"]]]
        return op

    def _wait(self, master: BlockingClient, jobs: list[int]) -> None:
        with BlockingClient(self._path, timeout=60.0) as other:
            for job in (self._random.choice(jobs), jobs[-1]):
                self._ends(other, job)
        with socket.socket(socket.AF_UNIX) as hasty:
            # Its answer is long; it goes away without reading it.
            hasty.connect(self._path)
            hasty.sendall(encode_request("QueryJobs", [None, ["id", "ops", "oplog"]]) + b"\x03")
        for job in jobs[::7]:
            self._ends(master, job)

    def _ends(self, master: BlockingClient, job: int) -> None:
        status: str | None = None
        try:
            while status not in ("success", "error", "canceled"):
                (status,), _ = master.wait_for_job_change(job, ["status"], [status], timeout=20.0)
        except GenericError as error:
            if type(error).__name__ != "JobLost":  # archived by another client
                raise


def test_many_jobs(make_daemon: Callable[..., DaemonProcess]) -> None:
    """From the warm-up on the daemon's memory stays, however many jobs come and go."""
    with make_daemon() as daemon:
        clients = [Client(daemon.socket, seed) for seed in range(CLIENTS)]
        for each in clients:
            each.start()

        def submitted() -> int:
            for each in clients:
                if each.fault is not None:
                    raise each.fault
            return sum(each.submitted for each in clients)

        points: list[tuple[int, float]] = []
        begun = time.monotonic()
        while (number := submitted()) < JOBS:
            if number >= WARM + len(points) * (JOBS - WARM) / SAMPLES:
                points.append((number, daemon.resident_bytes() / MIB))
                print(f"{number} jobs: {points[-1][1]:.1f} MiB", flush=True)
            time.sleep(0.05)
        seconds = time.monotonic() - begun
        for each in clients:
            each.end()
        for each in clients:
            each.join(60.0)
            assert not each.is_alive()
        with daemon.client(60.0) as master:
            jobs_end(master, 120.0)
            master.auto_archive_jobs(-1, 60)
            assert master.query_jobs(None, ["id"]) == []
        points.append((submitted(), daemon.resident_bytes() / MIB))
        print(f"{points[-1][0]} jobs in {seconds:.0f} s: {points[-1][1]:.1f} MiB", flush=True)
        assert "Traceback" not in daemon.log_text()
        assert daemon.stop() == -signal.SIGTERM
    # The first and the last, each as the least of a few: samples are taken under load.
    before = min(memory for _, memory in points[: SAMPLES // 5 + 1])
    after = min(memory for _, memory in points[-(SAMPLES // 5 + 1) :])
    assert after - before < ALLOWANCE, points
