"""A real daemon in its own process, for tests: started, called, stopped, killed.

with DaemonProcess(folder / "node1") as daemon:
    job = daemon.client().submit_job([{"OP_ID": "OP_TEST_DELAY", "duration": 0.1}])

Blocking, on plain subprocesses; in a test that runs a reactor, call it by
``deferToThread``. Its nodes are simulated and live below the root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.failures import CallFailed
from ganeti_masterd.startup.paths import Paths

#: Seconds after which a start or a stop counts as failed.
START_LIMIT = 30.0
STOP_LIMIT = 30.0

#: Seconds between two checks whether the daemon answers.
_INTERVAL = 0.005


class DaemonFailed(Exception):
    """The daemon did not start, answer or stop; the message has the end of its log."""


class DaemonProcess:
    """A daemon on one root, which outlives the process: it can be started again and again.

    ``root``'s last part is the host name for Ganeti's tools (``node1``), which :attr:`environment`
    passes to them. ``options`` go to ``gnt-masterd`` in addition to ``--root`` and ``--simulate``
    (``nodes``: how many, or the file that describes them), and ``wrapper`` before the whole command
    (such as ``strace``). All that the process prints is appended to ``ROOT.log``, beside the root.
    Leaving it as a context kills the process.
    """

    def __init__(
        self,
        root: Path | str,
        *options: str,
        nodes: int | str = 3,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.root = Path(root)
        self.paths = Paths(str(root))
        self.log = self.root.with_name(self.root.name + ".log")
        self._options = [f"--root={root}", f"--simulate={nodes}", *options]
        self._wrapper = list(wrapper)
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[BlockingClient] = []

    @property
    def socket(self) -> str:
        """The path of the master socket."""
        return self.paths.socket

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Ganeti's own tools find this daemon."""
        return {
            **os.environ,
            "GANETI_ROOTDIR": str(self.root),
            "GANETI_HOSTNAME": self.root.name,
        }

    @property
    def pid(self) -> int:
        """The process id of the daemon itself, also below a wrapper."""
        process = self._running()
        return int(Path(self.paths.pid).read_text("ascii")) if self._wrapper else process.pid

    @property
    def running(self) -> bool:
        """Whether the process is still running."""
        return self._process is not None and self._process.poll() is None

    def command(self, *twistd_options: str) -> list[str]:
        """Returns the command line; ``twistd_options`` default to the foreground."""
        return [
            *self._wrapper,
            twistd(),
            *(twistd_options or ("--nodaemon", "--pidfile=")),
            "gnt-masterd",
            *self._options,
        ]

    def start(self, limit: float = START_LIMIT) -> float:
        """Starts it and waits for its first answer; returns the seconds that this took."""
        begun = time.monotonic()
        self.launch()
        self.wait_until_it_answers(limit)
        return time.monotonic() - begun

    def launch(self) -> None:
        """Starts it without waiting."""
        if self.running:
            raise self._fault("runs already")
        self.root.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.root.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_it_answers(self, limit: float = START_LIMIT) -> None:
        """Returns once it answers; raises :exc:`DaemonFailed` if it ends or takes too long."""
        until = time.monotonic() + limit
        while True:
            try:
                with BlockingClient(self.socket, timeout=limit) as client:
                    client.config_values(["cluster_name"])
                return
            except CallFailed:
                if not self.running:
                    raise self._fault(f"ended with {self.exit_code()}") from None
                if time.monotonic() > until:
                    raise self._fault(f"gave no answer in {limit:g} s") from None
            time.sleep(_INTERVAL)

    def stop(self, limit: float = STOP_LIMIT) -> int:
        """Asks it to stop (SIGTERM), waits, and returns its exit code (see :meth:`exit_code`)."""
        os.kill(self.pid, signal.SIGTERM)
        return self.exit_code(limit)

    def kill(self) -> None:
        """Kills it (SIGKILL) and waits until it is gone. Does nothing if it has ended."""
        if self.running:
            # It has its own session, so that a wrapper and its children are killed with it.
            os.killpg(self._running().pid, signal.SIGKILL)
        self.exit_code()

    def exit_code(self, limit: float = STOP_LIMIT) -> int:
        """Waits for its end; returns the exit code, or the signal's number below zero.

        A daemon that was stopped in order ends by the signal that asked it to.
        """
        try:
            return self._started().wait(limit)
        except subprocess.TimeoutExpired:
            raise self._fault(f"did not end in {limit:g} s") from None

    def client(self, timeout: float = 20.0) -> BlockingClient:
        """Returns a new client, which is closed when the context is left."""
        client = BlockingClient(self.socket, timeout=timeout)
        self._clients.append(client)
        return client

    def tool(
        self, command: Sequence[str], *, limit: float = 60.0, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs one of the tools that talk to this daemon; ``text`` is its standard input.

        Messages are not translated, and times are UTC.
        """
        environment: Mapping[str, str] = {**self.environment, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return subprocess.run(
            command,
            cwd=self.root.parent,
            env=environment,
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )

    def log_text(self) -> str:
        """Returns everything that it has printed since the root was created."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def resident_bytes(self) -> int:
        """Returns the memory that it holds in RAM."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Returns how many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def __enter__(self) -> Self:
        """Starts it, unless it runs."""
        if not self.running:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kills it if it still runs."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._process is not None:
            self.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise self._fault("was never started")
        return self._process

    def _running(self) -> subprocess.Popen[bytes]:
        if not self.running:
            raise self._fault("does not run")
        return self._started()

    def _fault(self, what: str) -> DaemonFailed:
        lines = self.log_text().splitlines()[-15:]
        return DaemonFailed("\n    ".join([f"The daemon on {self.root} {what}", *lines]))


def twistd() -> str:
    """Returns the ``twistd`` of this Python, or else the one on the path."""
    beside = Path(sys.executable).with_name("twistd")
    return str(beside) if beside.exists() else shutil.which("twistd") or "twistd"
