"""Disks travel between nodes, and clusters, by pairs of import and export daemons.

Node daemons start these processes; the master tells them of each other, and asks how far they
are. Options, time-outs and texts are those of real daemon 3.0.2 (protocol/rpc.rst).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.constants import DISK_TRANSFER_CONNECT_TIMEOUT, IEIO_RAW_DISK, IEIO_SCRIPT
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.daemons import DaemonState, DaemonStatus, TransferDaemon
from ganeti_masterd.logical_units.disks.noting import transfer_daemon
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.polling import Progress, poll, time_left
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target

#: Seconds within which the ends in two clusters have to meet.
REMOTE_CONNECT_TIMEOUT = 180

#: Seconds between two looks: until all listen and are connected, and while they copy.
SOON = 1.0
LATER = 5.0


class TransferEnd(Struct, frozen=True):
    """What a daemon reads or writes: on a node (its uuid), of a kind, with its arguments."""

    node: str
    io: str
    arguments: Sequence[Any]


def system_end(ctx: Context, instance: Instance, disk: Disk, index: int) -> TransferEnd:
    """Returns the end at a disk on the primary node, by its place.

    A script of the operating system reads or writes it; without one it is copied as it is.
    """
    primary = instance.primary_node
    sent = node_objects.disk(ctx.snapshot(), disk, instance, primary)
    if instance.os:
        return TransferEnd(primary, IEIO_SCRIPT, [sent, index])
    return TransferEnd(primary, IEIO_RAW_DISK, [sent])


class DiskTransfer(Struct, frozen=True, kw_only=True):
    """One disk that travels, called ``label`` in the log; ``index`` is its place.

    At least one end is in this cluster. Without ``target`` the data goes to ``host`` and
    ``port`` of another cluster, which has given the ``magic``; without ``source`` it comes
    from another one.
    """

    label: str
    index: int
    source: TransferEnd | None = None
    target: TransferEnd | None = None
    host: str = ""
    port: int = 0
    magic: str = ""

    @property
    def inside(self) -> bool:
        """Whether both ends are in this cluster."""
        return self.source is not None and self.target is not None


class Protection(Struct, frozen=True):
    """How data between two clusters is encrypted: the key's name at our node, their certificate."""

    key_name: str
    authority: str

    def __repr__(self) -> str:
        return "Protection(...)"


class _Flow:
    """A transfer that is under way."""

    def __init__(self, transfer: DiskTransfer) -> None:
        self.transfer = transfer
        self.magic = transfer.magic or secrets.token_hex(20)
        self.receiver: TransferDaemon | None = None
        self.sender: TransferDaemon | None = None
        #: Why a daemon could not even be started.
        self.unstarted = ""
        self.finished = False

    @property
    def daemons(self) -> list[TransferDaemon]:
        return [each for each in (self.receiver, self.sender) if each is not None]

    @property
    def failed(self) -> bool:
        return bool(self.unstarted) or any(
            each.state is DaemonState.FAILED for each in self.daemons
        )

    @property
    def started(self) -> bool:
        """Whether all daemons are there that this cluster has to start."""
        wanted = (self.transfer.target, self.receiver), (self.transfer.source, self.sender)
        return all(end is None or daemon is not None for end, daemon in wanted)

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.failed or (self.started and all(each.ended for each in self.daemons))


class Transferring:
    """Carries out transfers of one instance's disks; what is under way is ended by ``undo``.

    ``connect_in`` are the seconds within which two ends have to meet; ``osparams`` are laid
    over the instance's parameters of its operating system, for scripts that read or write.
    """

    def __init__(
        self,
        ctx: Context,
        undo: UndoStack,
        instance: Instance,
        *,
        compress: str = "none",
        protection: Protection | None = None,
        connect_in: int = DISK_TRANSFER_CONNECT_TIMEOUT,
        osparams: Params | None = None,
    ) -> None:
        self._ctx = ctx
        self._undo = undo
        self._instance = instance
        self._compress = compress
        self._protection = protection
        self._connect_in = connect_in
        self._osparams = osparams
        self._flows: list[_Flow] = []
        self._said: set[tuple[str, DaemonState]] = set()
        self._ended: Callable[[DiskTransfer, bool], object] = lambda transfer, good: None
        self._listening: Callable[[dict[int, tuple[int, str]]], object] | None = None
        self._progress = Progress(ctx)
        self._progress.wait()

    def run(
        self,
        transfers: Sequence[DiskTransfer],
        *,
        ended: Callable[[DiskTransfer, bool], object] | None = None,
        listening: Callable[[dict[int, tuple[int, str]]], object] | None = None,
    ) -> list[bool]:
        """Carries out all transfers; returns which of them have ended well, in order.

        One that fails doesn't end the others. ``ended`` is called for each as it has ended,
        with whether that went well, shielded from a kill. ``listening`` is called once all
        wait for the other cluster, with port and magic by index.
        """
        if ended is not None:
            self._ended = ended
        self._listening = listening
        for transfer in transfers:
            flow = _Flow(transfer)
            self._flows.append(flow)
            self._announce(transfer)
            # Shielded, as a daemon whose name isn't known can't be ended.
            with self._ctx.shielded():
                if transfer.target is not None:
                    flow.receiver = self._start(flow, transfer.target, receives=True)
                elif transfer.source is not None:
                    flow.sender = self._start(flow, transfer.source, receives=False)
        poll(self._ctx, self._look)
        return [not flow.failed for flow in self._flows]

    def _announce(self, transfer: DiskTransfer) -> None:
        if transfer.source is not None and transfer.target is not None:
            self._ctx.feedback(
                f"Exporting {transfer.label} from {self._name(transfer.source.node)} to "
                f"{self._name(transfer.target.node)}"
            )
        elif transfer.source is not None:
            self._ctx.feedback(f"Sending disk {transfer.index} to {transfer.host}:{transfer.port}")

    def _name(self, node: str) -> str:
        return self._ctx.snapshot().nodes[node].name

    # Daemons begin and end

    def _start(self, flow: _Flow, end: TransferEnd, *, receives: bool) -> TransferDaemon | None:
        ctx, transfer = self._ctx, flow.transfer
        component = f"disk{transfer.index}"
        sent = node_objects.instance(
            ctx.snapshot(), self._instance, end.node, osparams=self._osparams
        )
        about = (sent, component, [end.io, list(end.arguments)])
        options = self._options(flow)
        if receives:
            answer = ctx.call_one(end.node, calls.IMPORT_START, (options, *about))
        else:
            address = self._address(flow)
            answer = ctx.call_one(end.node, calls.EXPORT_START, (options, *address, *about))
        if answer.failed:
            kind = "import" if receives else "export"
            flow.unstarted = str(answer.error)
            ctx.warning(f"{kind} '{component}' on {answer.node} failed: {answer.error}")
            return None
        daemon = TransferDaemon(
            end.node,
            answer.payload,
            ctx.seconds(),
            listens=receives,
            connect_in=self._connect_in,
        )
        self._undo.push(
            f"end {daemon.name} on node {self._name(end.node)}", lambda: self._end(daemon)
        )
        # It would outlive this process, and keep what it reads and writes from being removed.
        fills = (transfer.index,) if receives else ()
        ctx.note_devices([transfer_daemon(ctx, self._instance, end.node, daemon.name, fills=fills)])
        return daemon

    def _address(self, flow: _Flow) -> tuple[str, int]:
        target = flow.transfer.target
        if target is None:
            return flow.transfer.host, flow.transfer.port
        assert flow.receiver is not None
        assert flow.receiver.port is not None
        return self._ctx.snapshot().nodes[target.node].secondary_ip, flow.receiver.port

    def _options(self, flow: _Flow) -> dict[str, Any]:
        options: dict[str, Any] = {
            "compress": self._compress,
            "magic": flow.magic,
            "connect_timeout": self._connect_in,
        }
        if self._protection is not None:
            options["key_name"] = self._protection.key_name
            options["ca_pem"] = self._protection.authority
        return options

    def _end(self, daemon: TransferDaemon) -> None:
        if not daemon.cleaned:
            self._ctx.call_one(daemon.node, calls.IMPEXP_CLEANUP, (daemon.name,)).or_fail(
                "the node refuses"
            )

    def _clean(self, daemon: TransferDaemon | None) -> None:
        if daemon is None:
            return
        answer = self._ctx.call_one(daemon.node, calls.IMPEXP_CLEANUP, (daemon.name,))
        if answer.failed:
            self._ctx.warning(f"Could not remove the files of {daemon.name}: {answer.error}")
        else:
            daemon.cleaned = True

    # How far they are

    def _look(self) -> float | None:
        """Asks all nodes for their daemons; returns after how long to ask again."""
        self._update()
        amounts: list[str] = []
        for flow in self._flows:
            if not flow.finished:
                self._go_on(flow, amounts)
        if amounts:
            self._progress.tell(*amounts)
        self._tell_listening()
        left = [flow for flow in self._flows if not flow.finished]
        if not left:
            return None
        copying = all(
            daemon.state in (DaemonState.CONNECTED, DaemonState.SUCCESS)
            for flow in left
            for daemon in flow.daemons
        )
        return LATER if copying and all(flow.started for flow in left) else SOON

    def _update(self) -> None:
        ctx = self._ctx
        waiting: dict[str, list[TransferDaemon]] = {}
        for flow in self._flows:
            for daemon in flow.daemons:
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

    def _go_on(self, flow: _Flow, amounts: list[str]) -> None:
        transfer, receiver = flow.transfer, flow.receiver
        if receiver is not None and receiver.port is not None and not receiver.ended:
            self._tell_port(flow, receiver)
            if flow.sender is None and transfer.source is not None:
                with self._ctx.shielded():
                    flow.sender = self._start(flow, transfer.source, receives=False)
        self._tell(transfer, receiver, "receiv")
        self._tell(transfer, flow.sender, "send")
        sender = flow.sender
        if (
            sender is not None
            and sender.state is DaemonState.CONNECTED
            and sender.status.megabytes is not None
        ):
            amounts.append(f"{transfer.label} sent {_amount(sender.status)}")
        if flow.failed:
            for daemon in flow.daemons:
                if not daemon.ended:
                    self._ctx.call_one(daemon.node, calls.IMPEXP_ABORT, (daemon.name,))
                    daemon.fail("the other end failed")
        if flow.done:
            with self._ctx.shielded():
                flow.finished = True
                self._clean(receiver)
                self._ended(transfer, not flow.failed)
                self._clean(flow.sender)

    def _tell_port(self, flow: _Flow, receiver: TransferDaemon) -> None:
        """Says once that a daemon listens."""
        if (receiver.name, DaemonState.READY) in self._said:
            return
        self._said.add((receiver.name, DaemonState.READY))
        label = flow.transfer.label
        self._ctx.feedback(
            f"{label} is now listening" + (", starting export" if flow.transfer.inside else "")
        )

    def _tell_listening(self) -> None:
        """Tells who waits for it that all daemons wait for another cluster."""
        ports = {
            flow.transfer.index: (flow.receiver.port, flow.magic)
            for flow in self._flows
            if flow.receiver is not None and flow.receiver.port is not None
        }
        if self._listening is None or len(ports) < len(self._flows):
            return
        listening, self._listening = self._listening, None
        listening({index: (int(port), magic) for index, (port, magic) in ports.items() if port})

    def _tell(self, transfer: DiskTransfer, daemon: TransferDaemon | None, stem: str) -> None:
        """Says once that a daemon is connected, has ended, or has failed."""
        if daemon is None or (daemon.name, daemon.state) in self._said:
            return
        doing, label = stem + "ing", transfer.label
        if daemon.state is DaemonState.CONNECTED:
            node = self._name(daemon.node)
            inside = transfer.inside
            text = f"is {doing} data on {node}" if inside else f"is now {doing} data"
        elif daemon.state is DaemonState.SUCCESS:
            text = f"finished {doing} data"
        elif daemon.state is DaemonState.FAILED:
            verb = "receive" if daemon.listens else "send"
            output = " ".join(daemon.status.output)
            text = f"failed to {verb} data: {daemon.reason}"
            text += f" (recent output: {output})" if output else ""
        else:
            return
        self._said.add((daemon.name, daemon.state))
        self._ctx.feedback(f"{label} {text}")


def copy_disks(
    ctx: Context, instance: Instance, source: str, target: str, *, compress: str = "none"
) -> None:
    """Copies an instance's disks, as they are, to disks with the same ids on another node.

    ``source`` and ``target`` are uuids of nodes; on the target the disks exist. Raises
    ``OpExecError`` if one of them can't be copied. No daemon is left then, nor after a kill.
    """
    disks = ctx.snapshot().disks_of(instance)
    if not disks:
        return
    transfers = [
        DiskTransfer(
            label=disk.iv_name,
            index=index,
            source=raw_end(ctx, instance, disk, source),
            target=raw_end(ctx, instance, disk, target),
        )
        for index, disk in enumerate(disks)
    ]
    with UndoStack(ctx) as undo:
        good = Transferring(ctx, undo, instance, compress=compress).run(transfers)
        failed = [disk.iv_name for disk, well in zip(disks, good, strict=True) if not well]
        if failed:
            raise OpExecError(
                f"Failed to transfer instance data of {', '.join(failed)} to node "
                f"{ctx.snapshot().nodes[target].name}"
            )
        undo.keep()


def raw_end(ctx: Context, instance: Instance, disk: Disk, node: str) -> TransferEnd:
    """Returns the end of a transfer that reads or writes a disk of a node, byte by byte."""
    sent = node_objects.disk(ctx.snapshot(), disk, instance, node)
    return TransferEnd(node, IEIO_RAW_DISK, [sent])


def _amount(status: DaemonStatus) -> str:
    parts = [f"{status.megabytes or 0}M"]
    if status.throughput is not None:
        parts.append(f"{status.throughput:.1f} MiB/s")
    if status.percent is not None:
        parts.append(f"{status.percent:.0f}%")
    if status.left is not None:
        parts.append(f"ETA {time_left(status.left)}")
    return ", ".join(parts)
