"""The processes that are measured: the daemon, and the bare line server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep
from types import TracebackType

import msgspec

from bench.clusters import Prepare

#: What starts and stops are given, in seconds, before they count as failed.
START_LIMIT = 60.0
STOP_LIMIT = 60.0

FIRST_QUESTION = {"method": "QueryConfigValues", "args": [["cluster_name"]]}


class DidNotRun(Exception):
    """A process did not start, answer or stop as it should."""


class Server:
    """A process that serves a UNIX socket; a context manager that ends it."""

    def __init__(self, command: Sequence[str], path: Path, log: Path) -> None:
        self.path = path
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        #: How long the last start took, until the first answer.
        self.start_seconds = 0.0

    def start(self, question: object = FIRST_QUESTION) -> float:
        """Starts it and asks one question; returns the seconds until its answer."""
        begun = perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        data = msgspec.json.encode(question) + b"\x03"
        while not self._answers(data):
            if self._process.poll() is not None:
                raise self._fault(f"ended with {self._process.returncode}")
            if perf_counter() - begun > START_LIMIT:
                raise self._fault(f"gave no answer in {START_LIMIT:.0f} s")
            sleep(0.002)
        self.start_seconds = perf_counter() - begun
        return self.start_seconds

    def stop(self) -> float:
        """Stops it in order; returns the seconds that this took."""
        process = self._running()
        begun = perf_counter()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise self._fault(f"did not stop in {STOP_LIMIT:.0f} s")
        self._process = None
        return perf_counter() - begun

    def cpu_seconds(self) -> float:
        """The processor time that it has used, in user and system mode."""
        stat = Path(f"/proc/{self._running().pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """The memory that it holds in RAM."""
        statm = Path(f"/proc/{self._running().pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """Lets :meth:`peak_bytes` count from now on."""
        Path(f"/proc/{self._running().pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_bytes(self) -> int:
        """The most memory that it has held in RAM, since :meth:`forget_peak` if that was called."""
        status = Path(f"/proc/{self._running().pid}/status").read_text(encoding="ascii")
        (line,) = [each for each in status.splitlines() if each.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise self._fault("is not running")
        return self._process

    def _answers(self, data: bytes) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(START_LIMIT)
            try:
                sock.connect(str(self.path))
                sock.sendall(data)
                while chunk := sock.recv(1 << 16):
                    if chunk.endswith(b"\x03"):
                        return True
            except OSError:
                return False
        return False

    def _fault(self, what: str) -> DidNotRun:
        """What went wrong, the command, and the end of its log."""
        lines = [f"{Path(self._command[0]).name} {what}: {' '.join(self._command)}"]
        if self._log.exists():
            lines += self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        return DidNotRun("\n    ".join(lines))


class Daemon(Server):
    """The daemon with simulated nodes and a cluster of its own in ``folder``.

    ``prepare`` makes the cluster; without it the daemon makes one of three nodes.
    """

    def __init__(
        self, folder: Path, options: Sequence[str] = (), prepare: Prepare | None = None
    ) -> None:
        self.folder = folder
        root = folder / "node1"
        root.mkdir(parents=True)
        if prepare is not None:
            prepare(root)
        self.queue = root / "var/lib/ganeti/queue"
        beside = Path(sys.executable).with_name("twistd")
        twistd = str(beside) if beside.exists() else shutil.which("twistd") or "twistd"
        command = [
            *(twistd, "--nodaemon", f"--pidfile={folder / 'twistd.pid'}"),
            *("gnt-masterd", f"--root={root}", "--simulate=3", *options),
        ]
        path = root / "var/run/ganeti/socket/ganeti-query"
        super().__init__(command, path, folder / "daemon.log")


class LineServer(Server):
    """The least that a Twisted server can do: read a line of JSON, answer one."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("line_server.py")
        path = folder / "line"
        super().__init__([sys.executable, str(script), str(path)], path, folder / "line.log")
