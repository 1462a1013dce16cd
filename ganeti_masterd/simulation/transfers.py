"""Import and export daemons: pairs of processes that copy a disk. Pure.

An import listens on a port; an export connects to it. Their progress is computed from the clock: a
daemon needs :data:`STARTUP` seconds until it has a status, and data is copied at the speed at which
the pair began. Daemons that never connect, or whose magic differs, fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.constants import (
    DISK_TRANSFER_CONNECT_TIMEOUT,
    IEM_EXPORT,
    IEM_IMPORT,
    RIE_CONNECT_RETRIES,
)
from ganeti_masterd.simulation.shelves import Shelf

#: Seconds until a daemon has written its first status.
STARTUP = 0.5

#: Seconds after which an export gives up if no import listens; it tries once a second.
EXPORT_PATIENCE = float(RIE_CONNECT_RETRIES)

#: Seconds that an import waits for its export by default.
IMPORT_PATIENCE = float(DISK_TRANSFER_CONNECT_TIMEOUT)

FIRST_PORT = 40000
PORTS = 20000


class Transfer(Struct, frozen=True):
    """One daemon; ``size`` in MiB, times in seconds since the epoch.

    ``io`` and ``where`` say what it reads or writes (see
    :mod:`ganeti_masterd.simulation.backups`). ``length`` is how long the copy
    takes once both are connected. ``abroad``: the other end may be in another cluster.
    """

    node: str
    mode: str
    started: float
    io: str
    where: list[Any]
    instance: dict[str, Any]
    size: int
    magic: str | None
    port: int
    patience: float
    peer: str | None = None
    connected: float | None = None
    length: float = 0.0
    ended: float | None = None
    status: int | None = None
    message: str | None = None
    abroad: bool = False
    sent: bool = False


class Wires(Protocol):
    """What transfers need from the cluster."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def joined(self, one: str, other: str) -> bool:
        """Returns whether two nodes can reach each other."""

    def transfer_speed(self) -> float | None:
        """MiB/s; None: a copy takes no time."""

    def deliver(self, source: Transfer, target: Transfer) -> None:
        """Copies what the source reads to the target."""

    def send_away(self, source: Transfer) -> None:
        """Lays down for another cluster what the source reads."""

    def has_arrived(self, source: Transfer) -> bool:
        """Whether another cluster has taken it."""

    def withdraw(self, source: Transfer) -> None:
        """Takes back what was laid down for another cluster."""

    def receive(self, target: Transfer) -> int | None:
        """Takes what another cluster has laid down; returns its size, None if there is nothing."""


class Transfers:
    """All daemons of the cluster by their name."""

    def __init__(self, shelf: Shelf[Transfer], wires: Wires) -> None:
        self._shelf = shelf
        self._wires = wires

    def start(self, name: str, transfer: Transfer) -> None:
        """Starts a daemon."""
        if transfer.mode == IEM_IMPORT:
            taken = {each.port for _, each in self._shelf.items() if each.mode == IEM_IMPORT}
            port = next(FIRST_PORT + at for at in range(PORTS) if FIRST_PORT + at not in taken)
            transfer = replace(transfer, port=port)
        self._shelf[name] = transfer

    def status(self, node: str, name: str) -> dict[str, Any] | None:
        """Returns the content of a daemon's status file; None if there is none (yet)."""
        self.settle()
        transfer = self._shelf.get(name)
        now = self._wires.now()
        if transfer is None or transfer.node != node or now < transfer.started + STARTUP:
            return None
        return _shown(transfer, now)

    def abort(self, node: str, name: str) -> None:
        """Ends a daemon by a signal; does nothing if it is unknown or has ended."""
        self.settle()
        transfer = self._shelf.get(name)
        if transfer is not None and transfer.node == node and transfer.ended is None:
            self._end(name, 1, "Exited due to signal 15")
            self._end_peer(transfer.peer)

    def cleanup(self, node: str, name: str) -> None:
        """Ends a daemon if it runs, and forgets it; does nothing if it is unknown."""
        self.abort(node, name)
        transfer = self._shelf.get(name)
        if transfer is not None and transfer.node == node:
            self._shelf.pop(name)

    def lose(self, node: str) -> None:
        """Forgets the daemons of a node that restarts; their other ends fail."""
        self.settle()
        for name, transfer in self._shelf.items():
            if transfer.node == node:
                self._shelf.pop(name)
                if transfer.ended is None:
                    self._end_peer(transfer.peer)

    def settle(self) -> None:
        """Updates all daemons to the current time."""
        # Before each call, and most clusters never had one.
        if not self._shelf.version or not len(self._shelf):
            return
        now = self._wires.now()
        for name, transfer in self._shelf.items():
            if transfer.mode == IEM_EXPORT and transfer.ended is None:
                self._settle_export(name, transfer, now)
        for name, transfer in self._shelf.items():
            if transfer.abroad and transfer.peer is None and transfer.ended is None:
                self._settle_abroad(name, transfer, now)
        for name, transfer in self._shelf.items():
            if transfer.ended is None and transfer.connected is None:
                until = transfer.started + STARTUP + transfer.patience
                if now >= until:
                    self._end(name, 1, "Exited with status 1", until)

    def _settle_abroad(self, name: str, transfer: Transfer, now: float) -> None:
        """Updates an end whose other end is in another cluster, if there is one."""
        if now < transfer.started + STARTUP:
            return
        if transfer.mode == IEM_EXPORT:
            if self._wires.has_arrived(transfer):
                self._shelf[name] = replace(transfer, connected=now)
                self._end(name, 0, None, now)
            elif not transfer.sent:
                self._wires.send_away(transfer)
                self._shelf[name] = replace(transfer, sent=True)
            return
        size = self._wires.receive(transfer)
        if size is not None:
            self._shelf[name] = replace(transfer, connected=now, size=size)
            self._end(name, 0, None, now)

    def _settle_export(self, name: str, export: Transfer, now: float) -> None:
        if export.connected is None:
            self._connect(name, export, now)
            export = self._shelf[name]
        if export.connected is None or export.peer is None:
            return
        target = self._shelf.get(export.peer)
        if target is None or target.ended is not None:
            self._end(name, 1, "Exited with status 1")
        elif not self._wires.joined(export.node, target.node):
            self._end(name, 1, "Exited with status 1")
            self._end_peer(export.peer)
        elif now >= export.connected + export.length:
            done = export.connected + export.length
            self._wires.deliver(export, target)
            self._end(name, 0, None, done)
            self._end(export.peer, 0, None, done)

    def _connect(self, name: str, export: Transfer, now: float) -> None:
        """Connects two daemons, if the import listens in time."""
        for other, listening in self._shelf.items():
            if listening.mode != IEM_IMPORT or listening.port != export.port:
                continue
            if export.abroad and listening.magic != export.magic:
                continue  # the port is that of another cluster's node
            at = max(export.started, listening.started) + STARTUP
            until = listening.started + STARTUP + listening.patience
            if now < at or at >= until or listening.ended is not None or listening.peer:
                return
            if not self._wires.joined(export.node, listening.node):
                return
            if export.magic != listening.magic:
                for each in (name, other):
                    self._end(each, 1, "Exited with status 1", at)
                return
            speed = self._wires.transfer_speed()
            length = 0.0 if speed is None else export.size / speed
            self._shelf[name] = replace(export, peer=other, connected=at, length=length)
            self._shelf[other] = replace(
                listening, peer=name, connected=at, length=length, size=export.size
            )
            return

    def _end_peer(self, name: str | None) -> None:
        if name is not None:
            peer = self._shelf.get(name)
            if peer is not None and peer.ended is None:
                self._end(name, 1, "Exited with status 1")

    def _end(self, name: str, status: int, message: str | None, at: float | None = None) -> None:
        ended = self._wires.now() if at is None else at
        if status != 0 and self._shelf[name].sent:
            self._wires.withdraw(self._shelf[name])
        self._shelf[name] = replace(self._shelf[name], ended=ended, status=status, message=message)


def _shown(transfer: Transfer, now: float) -> dict[str, Any]:
    shown: dict[str, Any] = {"recent_output": []}
    if transfer.mode == IEM_IMPORT:
        shown["listen_port"] = transfer.port
    if transfer.connected is not None and now >= transfer.connected:
        shown["connected"] = True
        until = now if transfer.ended is None else transfer.ended
        part = 1.0
        if transfer.length and transfer.status != 0:
            part = min(1.0, (until - transfer.connected) / transfer.length)
        shown["progress_mbytes"] = int(transfer.size * part)
        if transfer.mode == IEM_EXPORT:
            shown["progress_percent"] = int(100 * part)
        if transfer.ended is None and transfer.length:
            shown["progress_throughput"] = transfer.size / transfer.length
            if transfer.mode == IEM_EXPORT:
                shown["progress_eta"] = transfer.length * (1.0 - part)
    if transfer.ended is not None:
        shown["exit_status"] = transfer.status
        if transfer.message is not None:
            shown["error_message"] = transfer.message
    shown["ctime"] = transfer.started
    shown["mtime"] = now if transfer.ended is None else transfer.ended
    return shown


def options(given: Mapping[str, Any]) -> tuple[str | None, float]:
    """Returns magic and patience (seconds) from the options of an import."""
    patience = given.get("connect_timeout")
    return given.get("magic"), IMPORT_PATIENCE if patience is None else float(patience)
