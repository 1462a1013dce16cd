"""Disks are copied from one node to another, by pairs of import and export daemons.

Node daemons start these processes; the master tells them of each other, and asks how far they
are. Options, time-outs and texts are those of real daemon 3.0.2 (protocol/rpc.rst).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.constants import DISK_TRANSFER_CONNECT_TIMEOUT, IEIO_RAW_DISK
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.polling import Progress, poll, time_left
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target

#: Seconds until a daemon has to have a status, and an import a port; for so long questions may
#: fail as well.
READY_IN = 10.0

#: Seconds between two looks: until all listen and are connected, and while they copy.
SOON = 1.0
LATER = 5.0


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

    Pure: times are seconds of any clock. ``listens``: it is an import, which needs a port.
    """

    def __init__(self, node: str, name: str, started: float, *, listens: bool) -> None:
        self.node = node
        self.name = name
        self.listens = listens
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
        if now - self._waits_since >= DISK_TRANSFER_CONNECT_TIMEOUT:
            self.fail(f"Not connected after {DISK_TRANSFER_CONNECT_TIMEOUT} seconds")

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


class _Copy:
    """One disk on its way."""

    def __init__(self, disk: Disk, index: int) -> None:
        self.disk = disk
        self.component = f"disk{index}"
        self.magic = secrets.token_hex(20)
        self.target: TransferDaemon | None = None
        self.source: TransferDaemon | None = None

    @property
    def daemons(self) -> list[TransferDaemon]:
        return [each for each in (self.target, self.source) if each is not None]

    @property
    def failed(self) -> bool:
        return any(each.state is DaemonState.FAILED for each in self.daemons)

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        if self.failed:
            return True
        return self.source is not None and all(each.ended for each in self.daemons)


def copy_disks(
    ctx: Context, instance: Instance, source: str, target: str, *, compress: str = "none"
) -> None:
    """Copies an instance's disks, as they are, to disks with the same ids on another node.

    ``source`` and ``target`` are uuids of nodes; on the target the disks exist. Raises
    ``OpExecError`` if one of them can't be copied. No daemon is left then, nor after a kill.
    """
    disks = ctx.snapshot().disks_of(instance)
    if disks:
        with UndoStack(ctx) as undo:
            _Copying(ctx, undo, instance, (source, target), compress).run(disks)


class _Copying:
    """The disks of one instance on their way."""

    def __init__(
        self,
        ctx: Context,
        undo: UndoStack,
        instance: Instance,
        nodes: tuple[str, str],
        compress: str,
    ) -> None:
        self._ctx = ctx
        self._undo = undo
        self._instance = instance
        self._source, self._target = nodes
        self._compress = compress
        self._copies: list[_Copy] = []
        self._said: set[tuple[str, str]] = set()
        self._progress = Progress(ctx)
        self._progress.wait()

    def run(self, disks: Sequence[Disk]) -> None:
        ctx = self._ctx
        for index, disk in enumerate(disks):
            copy = _Copy(disk, index)
            self._copies.append(copy)
            ctx.feedback(
                f"Exporting {disk.iv_name} from {self._name(self._source)} to "
                f"{self._name(self._target)}"
            )
            # Shielded, as a daemon whose name isn't known can't be ended.
            with ctx.shielded():
                copy.target = self._start_import(copy)
        poll(ctx, self._look)
        failed = [copy.disk.iv_name for copy in self._copies if copy.failed]
        if failed:
            raise OpExecError(
                f"Failed to transfer instance data of {', '.join(failed)} to node "
                f"{self._name(self._target)}"
            )
        self._undo.keep()
        with ctx.shielded():
            for daemon in (each for copy in self._copies for each in copy.daemons):
                answer = ctx.call_one(daemon.node, calls.IMPEXP_CLEANUP, (daemon.name,))
                if answer.failed:
                    ctx.warning(f"Could not remove the files of {daemon.name}: {answer.error}")

    def _name(self, node: str) -> str:
        return self._ctx.snapshot().nodes[node].name

    def _start_import(self, copy: _Copy) -> TransferDaemon:
        arguments = (
            self._options(copy),
            self._instance_at(self._target),
            copy.component,
            self._end_at(copy, self._target),
        )
        name = self._ctx.call_one(self._target, calls.IMPORT_START, arguments).or_fail(
            f"Can't start receiving {copy.disk.iv_name} on node {self._name(self._target)}"
        )
        return self._started(self._target, name, listens=True)

    def _start_export(self, copy: _Copy, port: int) -> TransferDaemon:
        address = self._ctx.snapshot().nodes[self._target].secondary_ip
        arguments = (
            self._options(copy),
            address,
            port,
            self._instance_at(self._source),
            copy.component,
            self._end_at(copy, self._source),
        )
        name = self._ctx.call_one(self._source, calls.EXPORT_START, arguments).or_fail(
            f"Can't start sending {copy.disk.iv_name} from node {self._name(self._source)}"
        )
        return self._started(self._source, name, listens=False)

    def _started(self, node: str, name: str, *, listens: bool) -> TransferDaemon:
        def end() -> None:
            self._ctx.call_one(node, calls.IMPEXP_CLEANUP, (name,)).or_fail("the node refuses")

        self._undo.push(f"end {name} on node {self._name(node)}", end)
        return TransferDaemon(node, name, self._ctx.seconds(), listens=listens)

    def _options(self, copy: _Copy) -> dict[str, Any]:
        return {
            "compress": self._compress,
            "magic": copy.magic,
            "connect_timeout": DISK_TRANSFER_CONNECT_TIMEOUT,
        }

    def _instance_at(self, node: str) -> dict[str, Any]:
        return node_objects.instance(self._ctx.snapshot(), self._instance, node)

    def _end_at(self, copy: _Copy, node: str) -> list[Any]:
        sent = node_objects.disk(self._ctx.snapshot(), copy.disk, self._instance, node)
        return [IEIO_RAW_DISK, [sent]]

    def _look(self) -> float | None:
        """Asks both nodes for their daemons; returns after how long to ask again."""
        self._update()
        for copy in self._copies:
            self._go_on(copy)
        if all(copy.done for copy in self._copies):
            return None
        copying = all(
            daemon.state in (DaemonState.CONNECTED, DaemonState.SUCCESS)
            for copy in self._copies
            for daemon in copy.daemons
        )
        return LATER if copying and all(copy.source for copy in self._copies) else SOON

    def _update(self) -> None:
        ctx = self._ctx
        waiting: dict[str, list[TransferDaemon]] = {}
        for copy in self._copies:
            for daemon in copy.daemons:
                if not daemon.ended:
                    waiting.setdefault(daemon.node, []).append(daemon)

        def names(target: Target) -> tuple[list[str]]:
            return ([daemon.name for daemon in waiting[target.key]],)

        for node, answer in ctx.call(waiting, calls.IMPEXP_STATUS, names).items():
            now = ctx.seconds()
            for place, daemon in enumerate(waiting[node]):
                if answer.failed:
                    daemon.unanswered(now)
                else:
                    daemon.update(answer.payload[place], now)

    def _go_on(self, copy: _Copy) -> None:
        name, target = copy.disk.iv_name, copy.target
        assert target is not None
        if copy.source is None and target.port is not None and not target.ended:
            self._ctx.feedback(f"{name} is now listening, starting export")
            with self._ctx.shielded():
                copy.source = self._start_export(copy, target.port)
        for daemon, doing, receives in (
            (target, "receiving", True),
            (copy.source, "sending", False),
        ):
            if daemon is not None:
                self._tell(name, daemon, doing, receives)
        if copy.failed:
            for daemon in copy.daemons:
                if not daemon.ended:
                    self._ctx.call_one(daemon.node, calls.IMPEXP_ABORT, (daemon.name,))
                    daemon.fail("the other end failed")

    def _tell(self, name: str, daemon: TransferDaemon, doing: str, receives: bool) -> None:
        verb = "receive" if receives else "send"
        lines: dict[DaemonState, Callable[[], str]] = {
            DaemonState.CONNECTED: lambda: f"{name} is {doing} data on {self._name(daemon.node)}",
            DaemonState.SUCCESS: lambda: f"{name} finished {doing} data",
            DaemonState.FAILED: lambda: (
                f"{name} failed to {verb} data: {daemon.reason}"
                + (
                    f" (recent output: {' '.join(daemon.status.output)})"
                    if daemon.status.output
                    else ""
                )
            ),
        }
        if daemon.state in lines and (daemon.name, daemon.state.name) not in self._said:
            self._said.add((daemon.name, daemon.state.name))
            self._ctx.feedback(lines[daemon.state]())
        if daemon.state is DaemonState.CONNECTED and not receives:
            self._progress.tell(f"{name} sent {_amount(daemon.status)}")


def _amount(status: DaemonStatus) -> str:
    parts = [f"{status.megabytes or 0}M"]
    if status.throughput is not None:
        parts.append(f"{status.throughput:.1f} MiB/s")
    if status.percent is not None:
        parts.append(f"{status.percent:.0f}%")
    if status.left is not None:
        parts.append(f"ETA {time_left(status.left)}")
    return ", ".join(parts)
