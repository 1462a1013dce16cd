"""One import or export daemon on its node: what is known of it, and when it has failed. Pure.

Time-outs and texts are those of real daemon 3.0.2 (protocol/rpc.rst).
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct

from ganeti_masterd.constants import DISK_TRANSFER_CONNECT_TIMEOUT

#: Seconds until a daemon has to have a status, and an import a port; for so long questions may
#: fail as well.
READY_IN = 10.0


class DaemonState(Enum):
    """How far an import or export daemon is."""

    STARTING = "has no status yet"
    READY = "waits for the other end"
    CONNECTED = "copies"
    SUCCESS = "has ended well"
    FAILED = "has failed"


class DaemonStatus(Struct, frozen=True):
    """What a node says of a daemon; see :func:`status_of`."""

    port: int | None = None
    connected: bool = False
    megabytes: int | None = None
    throughput: float | None = None
    percent: float | None = None
    left: float | None = None
    exit_status: int | None = None
    message: str | None = None
    output: tuple[str, ...] = ()


def status_of(told: dict[str, Any]) -> DaemonStatus:
    """Returns an entry of ``impexp_status`` that isn't None. Pure."""
    return DaemonStatus(
        port=told.get("listen_port"),
        connected=bool(told.get("connected")),
        megabytes=told.get("progress_mbytes"),
        throughput=told.get("progress_throughput"),
        percent=told.get("progress_percent"),
        left=told.get("progress_eta"),
        exit_status=told.get("exit_status"),
        message=told.get("error_message"),
        output=tuple(told.get("recent_output") or ()),
    )


class TransferDaemon:
    """One daemon on its node (a uuid): what is known of it, and when it has to be further.

    Times are seconds of any clock. ``listens``: it is an import, which needs a port;
    ``connect_in`` is how long it may wait for the other end.
    """

    def __init__(
        self,
        node: str,
        name: str,
        started: float,
        *,
        listens: bool,
        connect_in: int = DISK_TRANSFER_CONNECT_TIMEOUT,
    ) -> None:
        self.node = node
        self.name = name
        self.listens = listens
        self._connect_in = connect_in
        #: Whether its node has ended it, and forgotten it.
        self.cleaned = False
        self.state = DaemonState.STARTING
        self.status = DaemonStatus()
        #: Why it failed.
        self.reason = ""
        self._started = started
        #: Since when it waits for the other end.
        self._waits_since = started
        self._answered = started

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in (DaemonState.SUCCESS, DaemonState.FAILED)

    @property
    def port(self) -> int | None:
        """The port on which an import listens."""
        return self.status.port

    def unanswered(self, now: float) -> None:
        """Notes that its node doesn't answer."""
        if now - self._answered >= READY_IN:
            self.fail("Too many errors while updating data")

    def update(self, told: dict[str, Any] | None, now: float) -> None:
        """Notes what its node says of it; None: it has no status yet."""
        self._answered = now
        if told is None:
            if now - self._started >= READY_IN:
                self.fail("Didn't become ready after 10 seconds")
            return
        before, self.status = self.status, status_of(told)
        if self.status.exit_status is not None:
            self._end()
            return
        if self.state is DaemonState.STARTING:
            self.state = DaemonState.READY
        if self.status.connected:
            self.state = DaemonState.CONNECTED
            return
        if self.listens and self.status.port is None:
            if now - self._started >= READY_IN:
                self.fail("Not listening after 10 seconds")
            return
        if self.listens and before.port is None:
            self._waits_since = now
        if now - self._waits_since >= self._connect_in:
            self.fail(f"Not connected after {self._connect_in} seconds")

    def fail(self, reason: str) -> None:
        """Notes that it can't succeed any more."""
        self.state = DaemonState.FAILED
        self.reason = reason

    def _end(self) -> None:
        message = self.status.message
        if self.status.exit_status == 0 and not message:
            self.state = DaemonState.SUCCESS
        else:
            self.fail(message or f"Exited with status {self.status.exit_status}")
