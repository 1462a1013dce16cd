"""What those who look at the stream of events cost, half of whom never read."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.job_runs import Values, await_files
from bench.loads import Burst
from bench.process import Daemon, DidNotRun
from bench.site import Site
from ganeti_masterd.luxi.eventlines import event_request

#: The daemon's option, a socket in the folder that it runs in.
SOCKET = "events.sock"
OPTION = f"--monitoring=unix:{SOCKET}"

#: As many as may look at a time.
VIEWERS = 16

#: Jobs in a burst, and how many pairs of bursts are run: without viewers, and beside them.
JOBS, PAIRS = 2000, 5

#: Seconds in which every viewer gets the first bytes.
PATIENCE = 10.0


class _Reading:
    """Reads what comes on some sockets, in a thread."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.received = 0
        self._selector = selectors.DefaultSelector()
        for each in sockets:
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="viewers")
        self._thread.start()

    def end(self) -> None:
        """Stops reading; the sockets stay open."""
        self._over.set()
        self._thread.join()
        self._selector.close()

    def _read(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.1):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                data = connection.recv(1 << 18)
                self.received += len(data)
                if not data:
                    self._selector.unregister(connection)


@contextmanager
def viewers(path: Path, reading: int, silent: int) -> Iterator[_Reading]:
    """Connects viewers, of whom some read and some don't read past the first bytes."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(reading + silent):
            connection = socket.socket(socket.AF_UNIX)
            sockets.append(connection)
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(event_request())
            if connection.recv(64).split()[1:2] != [b"200"]:
                raise DidNotRun("a viewer was refused")
        they = _Reading(sockets[:reading])
        try:
            yield they
        finally:
            they.end()
    finally:
        for connection in sockets:
            connection.close()


def _burst(site: Site, daemon: Daemon) -> tuple[float, float]:
    """Returns the rate of a burst and the daemon's CPU until its files are complete."""
    before = daemon.cpu_seconds()
    measured = site.load(Burst(jobs=JOBS))
    await_files(daemon.queue, measured.last_job)
    return measured.rate, daemon.cpu_seconds() - before


def watched(site: Site) -> Values:
    """Runs bursts without viewers and beside them, in turns; compares the medians."""
    daemon = site.own()
    path = daemon.folder / SOCKET
    _burst(site, daemon)
    alone: list[tuple[float, float]] = []
    beside: list[tuple[float, float]] = []
    grown = received = 0
    for _ in range(2 if site.quick else PAIRS):
        alone.append(_burst(site, daemon))
        daemon.forget_peak()
        before = daemon.resident_bytes()
        with viewers(path, VIEWERS // 2, VIEWERS - VIEWERS // 2) as they:
            beside.append(_burst(site, daemon))
        grown = max(grown, daemon.peak_bytes() - before)
        received = max(received, they.received)
    if not received:
        raise DidNotRun("viewers saw nothing of the burst")
    return {
        "alone": median(rate for rate, _ in alone),
        "times": median(rate for rate, _ in alone) / median(rate for rate, _ in beside),
        "times-cpu": median(cpu for _, cpu in beside) / median(cpu for _, cpu in alone),
        "memory": grown / 2**20,
        "sent": received / (VIEWERS // 2) / 2**20,
    }
