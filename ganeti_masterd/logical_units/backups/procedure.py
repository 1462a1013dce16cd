"""The steps of an export, and what they work on.

Texts and the order of calls are those of real daemon 3.0.2; where ours differs,
docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.constants import (
    DISK_TRANSFER_CONNECT_TIMEOUT,
    HELPER_VM_STARTUP,
    IEIO_FILE,
)
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import current, shut_disks, start_disks
from ganeti_masterd.logical_units.disks.snapshots import Snapshots
from ganeti_masterd.logical_units.disks.transferring import (
    REMOTE_CONNECT_TIMEOUT,
    DiskTransfer,
    Protection,
    TransferEnd,
    Transferring,
    system_end,
)
from ganeti_masterd.logical_units.instances.helper_vm import HelperImage, HelperVM
from ganeti_masterd.logical_units.instances.power import mark, turn_off, turn_on
from ganeti_masterd.logical_units.instances.removing import remove_stopped
from ganeti_masterd.logical_units.steps import exports, node_objects
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes.backups import BackupExport
from ganeti_masterd.rpc import calls

#: The tag of an instance, or of the cluster, by which private OS parameters are exported too.
PRIVATE_TAG = "ganeti-masterd:export-private-parameters"


class OtherCluster(Struct, frozen=True, kw_only=True):
    """Where another cluster waits for the disks: host, port and magic of each, and its certificate.

    ``key_name`` is that of our own key, at the primary node.
    """

    places: Sequence[tuple[str, int, str]]
    key_name: str
    authority: str

    def __repr__(self) -> str:
        return f"OtherCluster({len(self.places)} disks)"


class Zeroing(Struct, frozen=True):
    """How free space is zeroed: the helper VM's image, and the seconds that it may take."""

    image: HelperImage
    ends_in: float


class ExportState:
    """What the steps of an export work on.

    ``target`` is the uuid of the node that gets it, None where ``other`` is the cluster that
    does. ``snapshots``: the instance runs on while snapshots of its disks are copied.
    ``zeroing``: how free space is zeroed, None if it isn't. ``kept_nodes`` are the uuids of those
    that are held until the end.
    """

    def __init__(
        self,
        ctx: Context,
        instance: Instance,
        op: BackupExport,
        *,
        target: str | None,
        other: OtherCluster | None,
        snapshots: bool,
        zeroing: Zeroing | None = None,
        kept_nodes: Collection[str] = (),
    ) -> None:
        self.ctx = ctx
        self.op = op
        #: The instance as it was.
        self.before = instance
        self.source = instance.primary_node
        self.target = target
        self.other = other
        self.snapshots = snapshots
        self.zeroing = zeroing
        self._kept_nodes = kept_nodes
        #: The helper VM that zeroes free space, once it is there.
        self._helper: HelperVM | None = None
        self.disks = ctx.snapshot().disks_of(instance)
        #: Whether it may be stopped by us, so that it has to be started again.
        self._stopped = False
        #: Whether its disks are ready only for the export.
        self._activated = False
        self._taken = UndoStack(ctx)
        self._snapshots = Snapshots(ctx, instance)
        #: What is copied: the disks, or their snapshots.
        self._copied: Sequence[Disk] = self.disks

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``."""
        nodes = self.ctx.snapshot().nodes
        target = "the other cluster" if self.target is None else nodes[self.target].name
        zeroing = "" if self.zeroing is None else "--zero-free-space "
        return {
            "instance": self.before.name,
            "source": nodes[self.source].name,
            "target": target,
            "again": "move-instance"
            if self.target is None
            else f"gnt-backup export -n {target} {zeroing}{self.before.name}",
        }

    @property
    def local(self) -> bool:
        """Whether a node of this cluster gets it."""
        return self.target is not None

    @property
    def runs(self) -> bool:
        """Whether it is to run while it is exported, or after it."""
        return self.before.admin_state == "up"

    @property
    def stays(self) -> bool:
        """Whether it is still there after the export."""
        return not self.op.remove_instance

    @property
    def _name(self) -> str:
        return self.before.name

    # The steps

    def clear(self) -> None:
        """Removes from the target what an export has left there that broke off."""
        assert self.target is not None
        exports.remove_unfinished(self.ctx, self.target, self._name)

    def stop(self) -> None:
        """Stops the instance, but not its disks."""
        ctx = self.ctx
        ctx.feedback(f"Shutting down instance {self._name}")
        self._stopped = True
        turn_off(ctx, self.before, self.op.shutdown_timeout, self.op.reason).or_fail(
            f"Could not shutdown instance {self._name} on node {self.names()['source']}"
        )

    def restart(self) -> None:
        """Starts again what ran, if we have stopped it, and if nothing runs in its place."""
        if not (self._stopped and self.runs):
            return
        if self._helper is not None and self._helper.left:
            raise OpExecError("a helper VM may run in its place")
        self.start()

    def activate(self) -> None:
        """Makes the disks ready."""
        self._activated = True
        self.ctx.feedback(f"Activating disks for {self._name}")
        start_disks(self.ctx, self.before)

    def deactivate(self) -> None:
        """Shuts the disks down, unless the instance is to run on them."""
        if self._helper is not None and self._helper.left:
            raise OpExecError("a helper VM may use them")
        if self._activated and not self.runs:
            self._activated = False
            self.ctx.feedback(f"Deactivating disks for {self._name}")
            shut_disks(self.ctx, current(self.ctx, self.before))

    def zero(self) -> None:
        """Has a helper VM fill what is free on the disks with zeroes."""
        assert self.zeroing is not None
        self._helper = HelperVM(
            self.ctx,
            self.before,
            self.zeroing.image,
            doing="Zeroing free disk space",
            reason=self.op.reason,
        )
        self._helper.run(
            boots_in=HELPER_VM_STARTUP,
            ends_in=self.zeroing.ends_in,
            made=lambda: self.ctx.release(Level.NODE, self._kept_nodes),
        )

    def require_helper_gone(self) -> None:
        """Raises ``OpExecError`` if the helper VM may run on: it has taken back what it could."""
        if self._helper is not None and self._helper.left:
            raise OpExecError("it may run on")

    def take_snapshots(self) -> None:
        """Makes a snapshot of each disk."""
        self._copied = self._snapshots.take(self._taken, self.disks)

    def remove_snapshots(self) -> None:
        """Removes the snapshots that are there."""
        if not self._taken.run():
            raise OpExecError("some snapshots are left")

    def remove_snapshots_left(self) -> None:
        """Removes them once all is copied; one that stays is a warning, as the copy is whole."""
        self._taken.run()

    def start(self) -> None:
        """Starts the instance again."""
        ctx = self.ctx
        ctx.feedback(f"Starting instance {self._name}")
        turn_on(ctx, current(ctx, self.before), self.op.reason).or_fail(
            f"Could not start instance {self._name} on node {self.names()['source']}"
        )
        self._stopped = False

    def transfer(self) -> None:
        """Copies the disks; raises ``OpExecError`` that says which could not be."""
        other = self.other
        protection = None if other is None else Protection(other.key_name, other.authority)
        with UndoStack(self.ctx) as undo:
            transferring = Transferring(
                self.ctx,
                undo,
                self.before,
                compress=self.op.compress,
                protection=protection,
                connect_in=DISK_TRANSFER_CONNECT_TIMEOUT if self.local else REMOTE_CONNECT_TIMEOUT,
            )
            transfers = [self._transfer(index) for index in range(len(self._copied))]
            good = transferring.run(
                transfers, ended=lambda transfer, well: self._snapshots.remove(transfer.index)
            )
            if not all(good):
                failed = [str(index) for index, well in enumerate(good) if not well]
                raise OpExecError(
                    f"Export failed, errors in disk export: disk(s) {', '.join(failed)}"
                )
            undo.keep()

    def _transfer(self, index: int) -> DiskTransfer:
        ctx, disk = self.ctx, self._copied[index]
        source = system_end(ctx, self.before, disk, index)
        if self.target is None:
            assert self.other is not None
            host, port, magic = self.other.places[index]
            return DiskTransfer(
                label=f"Disk {index}",
                index=index,
                source=source,
                host=host,
                port=port,
                magic=magic,
            )
        kind = "snapshot" if self.snapshots else "disk"
        path = exports.path_of(ctx, self._name + exports.UNFINISHED, disk.uuid)
        return DiskTransfer(
            label=f"{kind}/{index}",
            index=index,
            source=source,
            target=TransferEnd(self.target, IEIO_FILE, [path]),
        )

    def discard(self) -> None:
        """Removes the files of an export that isn't complete."""
        if self.target is not None:
            self.clear()

    def finalize(self) -> None:
        """Has the target write what is exported, and give the export its name."""
        if self.target is None:
            return
        ctx, snapshot = self.ctx, self.ctx.snapshot()
        target = self.names()["target"]
        ctx.feedback(f"Finalizing export on {target}")
        now = current(ctx, self.before)
        private = PRIVATE_TAG in (*now.tags, *snapshot.cluster.tags)
        sent = node_objects.instance(snapshot, now, self.target)
        about = exports.writable(sent, private=private)
        disks = [exports.writable_disk(node_objects.plain_disk(disk)) for disk in self._copied]
        answer = ctx.call_one(self.target, calls.FINALIZE_EXPORT, (about, disks))
        if answer.failed and not self._is_final():
            ctx.warning(
                f"Could not finalize export for instance {self._name} on node {target}: "
                f"{answer.error}"
            )
            raise OpExecError("Export failed, errors in export finalization")

    def _is_final(self) -> bool:
        """Whether the target has done what it gave no answer to.

        It gives the export its name last of all.
        """
        assert self.target is not None
        try:
            names = exports.names_on(self.ctx, self.target)
        except OpExecError:
            return False
        return self._name in names and self._name + exports.UNFINISHED not in names

    def remove_instance(self) -> None:
        """Removes the instance, which is all in the export."""
        self.ctx.feedback(f"Removing instance {self._name}")
        now = current(self.ctx, self.before)
        if now.admin_state == "up":
            now = mark(self.ctx, now, admin_state="down", admin_state_source="admin")
        remove_stopped(self.ctx, now, ignore_failures=self.op.ignore_remove_failures)

    def remove_older(self) -> None:
        """Removes exports of the instance from other nodes; what fails is a warning."""
        ctx = self.ctx
        if ctx.snapshot().nodes.keys() <= {self.target}:
            return
        ctx.feedback(f"Removing old exports for instance {self._name}")
        # Another job may use one that has come since to a node that isn't locked.
        others = [node for node in ctx.owned(Level.NODE) if node != self.target]
        for node, names in exports.exports_on(ctx, others).items():
            if self._name not in names:
                continue
            answer = ctx.call_one(node, calls.EXPORT_REMOVE, (self._name,))
            if answer.failed:
                ctx.warning(
                    f"Could not remove older export for instance {self._name} on node "
                    f"{answer.node}: {answer.error}"
                )

    def forget_key(self) -> None:
        """Removes the key that was made for this export, however it has ended."""
        if self.other is None:
            return
        with self.ctx.shielded():
            answer = self.ctx.call_one(self.source, calls.X509_CERT_REMOVE, (self.other.key_name,))
            if answer.failed:
                self.ctx.warning(
                    f"Could not remove the key {self.other.key_name} from node {answer.node}: "
                    f"{answer.error}"
                )


_STOPPED = "{instance} is stopped, and the watcher starts it again if it is to run"
_SNAPSHOTS = (
    "there may be snapshots on {source}, which the next start of the daemon removes, or the next "
    "export replaces"
)
_HELPER = (
    "a helper VM may run in its place on {source}: 'gnt-instance shutdown {instance}' stops it, as "
    "does the next start of the daemon if that has crashed, and 'gnt-instance startup {instance}' "
    "starts the instance again"
)
_FILES = "{target} may have {instance}.new, which isn't complete and which the next export removes"
_AGAIN = "{again}"

#: The export has its name only when all of it is on the target.
EXPORT: Procedure[ExportState] = Procedure(
    "Export",
    (
        Step(
            does="remove what an export of {instance} has left on {target} that broke off",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=ExportState.clear,
            skip=lambda state: not state.local,
        ),
        Step(
            does="stop {instance} on {source}",
            leaves=_STOPPED,
            finish=_AGAIN,
            run=ExportState.stop,
            undo=ExportState.restart,
            skip=lambda state: not state.op.shutdown,
            shielded=True,
        ),
        Step(
            does="activate the disks of {instance}",
            leaves="The disks of {instance} may be active, until they are deactivated",
            finish=_AGAIN,
            run=ExportState.activate,
            undo=ExportState.deactivate,
            skip=lambda state: state.before.disks_active,
        ),
        Step(
            does="zero the free space of the disks, in a helper VM on {source}",
            leaves=f"{_STOPPED}; {_HELPER}",
            finish=_AGAIN,
            run=ExportState.zero,
            undo=ExportState.require_helper_gone,
            skip=lambda state: state.zeroing is None,
        ),
        Step(
            does="make snapshots of the disks of {instance} on {source}",
            leaves=f"{_STOPPED}; {_SNAPSHOTS}",
            finish=_AGAIN,
            run=ExportState.take_snapshots,
            undo=ExportState.remove_snapshots,
            skip=lambda state: not state.snapshots,
        ),
        Step(
            does="start {instance} again",
            leaves=f"{_STOPPED}; {_SNAPSHOTS}",
            finish=_AGAIN,
            run=ExportState.start,
            skip=lambda state: not (state.snapshots and state.op.shutdown),
            shielded=True,
        ),
        Step(
            does="copy the disks, or their snapshots, to {target}",
            leaves=f"{{instance}} may be stopped, and the watcher starts it again if it is to run; "
            f"{_SNAPSHOTS}; {_FILES}",
            finish=_AGAIN,
            run=ExportState.transfer,
            undo=ExportState.discard,
        ),
        Step(
            does="remove the snapshots that are left",
            leaves=f"{_SNAPSHOTS}; {_FILES}",
            finish=_AGAIN,
            run=ExportState.remove_snapshots_left,
            skip=lambda state: not state.snapshots,
            shielded=True,
        ),
        Step(
            does="make the export the one of {instance} on {target}, in place of an older one",
            leaves="{target} has the export, or {instance}.new and, if it failed in that very "
            "moment, the older one no more",
            finish=_AGAIN,
            run=ExportState.finalize,
            final=True,
            shielded=True,
        ),
        Step(
            does="start {instance} again, if there are no snapshots",
            leaves="The export is complete; the watcher starts {instance} again",
            finish="gnt-instance startup {instance}",
            run=ExportState.restart,
            skip=lambda state: not state.stays,
            shielded=True,
        ),
        Step(
            does="shut the disks of {instance} down, if the export has activated them",
            leaves="The export is complete; the disks of {instance} may be active",
            finish="gnt-instance deactivate-disks {instance}",
            run=ExportState.deactivate,
            shielded=True,
        ),
        Step(
            does="remove {instance}",
            leaves="The export is complete; {instance} is stopped, marked to be down, and may lack "
            "some of its disks",
            finish="gnt-instance remove {instance}",
            run=ExportState.remove_instance,
            skip=lambda state: state.stays,
            shielded=True,
        ),
        Step(
            does="remove older exports of {instance} from other nodes",
            leaves="The export is complete; other nodes may have older ones",
            finish=_AGAIN,
            run=ExportState.remove_older,
            skip=lambda state: not state.local,
            shielded=True,
        ),
    ),
)
