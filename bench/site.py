"""Where a workload runs: what is measured, and the load generator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.figures import Limit
from bench.loads import Load, Measured, Query
from bench.machine import durable_replacements
from bench.process import Daemon, DidNotRun, LineServer

#: From this share of its time on the generator is as much measured as the server.
TOO_BUSY = 0.9

#: What the line server is asked: the length of a usual request.
LINE = ("QueryConfigValues", [["cluster_name", "master_node", "drain_flag"]])


def generate(socket: Path, load: Load) -> Measured:
    """Plays a load against a socket in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", str(socket), msgspec.json.encode(load).decode()],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise DidNotRun(f"the load generator failed: {done.stderr.decode().strip()}")
    return msgspec.json.decode(done.stdout, type=Measured)


class Site:
    """One server under one workload.

    ``daemon`` is null where another daemon's socket is measured; then only
    what LUXI shows can be. ``quick`` shortens what is measured by time.
    ``remarks`` collects what a reader of the figures must know.
    """

    def __init__(self, socket: Path, daemon: Daemon | None, quick: bool = False) -> None:
        self.socket = socket
        self.daemon = daemon
        self.quick = quick
        self.seconds = 1.5 if quick else 5.0
        self.remarks: list[str] = []

    def load(self, load: Load, socket: Path | None = None) -> Measured:
        """Plays a load and notes what went wrong or limits its worth.

        ``socket`` is another server's, to compare with.
        """
        measured = generate(socket or self.socket, load)
        if measured.busy > TOO_BUSY:
            self.remarks.append(
                f"the load generator was busy {measured.busy:.0%} of the time: its own limit"
            )
        if measured.lost:
            self.remarks.append(f"{measured.lost} connections were lost")
        if measured.failed:
            self.remarks.append(f"{measured.failed} jobs did not end in success")
        return measured

    def own(self) -> Daemon:
        """The daemon that this run started."""
        if self.daemon is None:
            raise DidNotRun("this workload starts and stops the daemon: not for a peer")
        return self.daemon


class Limits:
    """The machine's limits, measured in one folder when asked for.

    ``ceiling`` is the highest rate that the load generator could have reached
    against the line server without waiting, ``busy`` the largest share of the
    time that it computed: the line server was the slower one if that is small.
    """

    def __init__(self, folder: Path, quick: bool) -> None:
        self._folder = folder
        self._seconds = 0.5 if quick else 1.5
        self._replacements = 200 if quick else 500
        self._runs = 0
        self.ceiling = 0.0
        self.busy = 0.0

    def measure(self, limit: Limit) -> float:
        """Measures one limit now."""
        if limit is Limit.DURABLE:
            return durable_replacements(self._folder, self._replacements)
        self._runs += 1
        folder = self._folder / f"line-{self._runs}"
        folder.mkdir()
        with LineServer(folder) as server:
            started = server.start()
            if limit is Limit.START:
                return started
            clients = 16 if limit is Limit.LINE_16 else 1
            method, args = LINE
            load = Query(method=method, args=args, clients=clients, seconds=self._seconds)
            measured = generate(server.path, load)
            self.ceiling = max(self.ceiling, measured.ceiling)
            self.busy = max(self.busy, measured.busy)
            return measured.rate
