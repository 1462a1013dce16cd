"""Running a master daemon on simulated nodes as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.failures import CallFailed
from ganeti_masterd.startup.paths import Paths

#: How long a start and a stop may take, seconds.
START_LIMIT = 20.0
STOP_LIMIT = 30.0
#: How long a stop may take after an error before the daemon is killed, seconds.
LEAVE_LIMIT = 10.0

#: Seconds between attempts to reach a starting daemon.
_TRY_EVERY = 0.02

#: How many lines of the daemon's log are shown if something goes wrong.
_LOG_LINES = 20

#: Runs twistd with this interpreter, wherever its script is installed.
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


class DemoDaemonFailed(GenericError):
    """A daemon didn't start or stop as it should; the message ends with its log's last lines."""


def _answers(client: BlockingClient) -> bool:
    try:
        client.config_values(["cluster_name"])
    except CallFailed:
        return False
    return True


class DemoDaemon:
    """A daemon in a child process, which is ended on leaving the ``with`` block.

    ``root`` is its folder, created if it is missing; its log goes to the file ``log``. The
    process gets a new session, so that Ctrl-C only reaches the parent.
    """

    def __init__(
        self, root: str, log: str, *, nodes: int = 3, twistd: Sequence[str] = TWISTD
    ) -> None:
        self.paths = Paths(root)
        self.log = log
        self._command = [
            *twistd,
            *("--nodaemon", "--pidfile=", "gnt-masterd"),
            *(f"--root={self.paths.root}", f"--simulate={nodes}"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, limit: float = START_LIMIT) -> float:
        """Starts the daemon; returns the seconds until it answered on its socket.

        Raises ``DemoDaemonFailed`` if it ends or doesn't answer within ``limit`` seconds, or if
        another daemon already answers there; ``ConfigurationError`` if the root's path is too
        long for a socket.
        """
        with BlockingClient(self.paths.socket, timeout=limit) as client:
            if _answers(client):
                raise DemoDaemonFailed(f"A daemon is already running in {self.paths.root}")
            began = time.monotonic()
            process = self._launch()
            while not _answers(client):
                if process.poll() is not None:
                    raise self._failed(
                        f"did not start: it ended with exit code {process.returncode}"
                    )
                if time.monotonic() - began > limit:
                    raise self._failed(
                        f"did not start: no answer at {self.paths.socket} after {limit:g} seconds"
                    )
                time.sleep(_TRY_EVERY)
            return time.monotonic() - began

    def _launch(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    def stop(self, limit: float = STOP_LIMIT) -> int:
        """Asks the daemon to shut down (SIGTERM), and waits until it has ended.

        Returns its exit code, 0 or -SIGTERM, because twistd ends itself by the signal that
        stopped it. Raises ``DemoDaemonFailed`` for any other code, or if the daemon doesn't
        end within ``limit`` seconds.
        """
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise self._failed(f"did not stop within {limit:g} seconds") from None
        if code not in (0, -signal.SIGTERM):
            raise self._failed(f"did not stop in order: it ended with exit code {code}")
        return code

    @property
    def pid(self) -> int:
        """The daemon's process id; only after :meth:`start`."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> DemoDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(LEAVE_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:  # even on a second Ctrl-C
            process.kill()
            process.wait()

    def _failed(self, what: str) -> DemoDaemonFailed:
        return DemoDaemonFailed(
            f"The daemon {what}. The end of its log, {self.log}:\n{self._tail()}"
        )

    def _tail(self) -> str:
        with open(self.log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])
