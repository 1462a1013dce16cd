"""OP_INSTANCE_GROW_DISK: a disk gets larger, while its instance runs or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.policy import PolicyDemand, violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import activate_disks, disk_nodes, shut_disks
from ganeti_masterd.logical_units.disks.making import exclusive_storage
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync, wipe_disks
from ganeti_masterd.logical_units.instances.base import InstanceUnit, require_online
from ganeti_masterd.logical_units.instances.requirements import require_room
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.logical_units.steps.wording import size_text
from ganeti_masterd.opcodes.instance_disks import InstanceGrowDisk
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target

MEBIBYTE = 1024 * 1024


class GrowDisk(InstanceUnit[InstanceGrowDisk], runs=InstanceGrowDisk):
    """Grows a disk: what is below it on each node, then the mirror, then the configuration.

    Each node grows by what it lacks, so that a second try after a failure half-way ends
    with the size that the first one was to reach. A disk that wasn't ready is shut down again.
    """

    node_levels = (Level.NODE, Level.NODE_RES)

    def check(self, ctx: Context) -> None:
        """Checks nodes, index, template, size, room and the group's policy, in this order."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        for node in snapshot.nodes_of(instance):
            require_online(snapshot, node)
        disks = snapshot.disks_of(instance)
        if self.op.disk >= len(disks):
            raise prereq(
                f"Invalid disk index: {self.op.disk} (instance {instance.name} has "
                + (f"disks 0 to {len(disks) - 1})" if disks else "no disks)"),
                ECODE_INVAL,
            )
        disk = disks[self.op.disk]
        if not disk.template.grows:
            raise prereq(
                f"Instance's disk layout {disk.dev_type} does not support growing", ECODE_INVAL
            )
        self._target = self.op.amount if self.op.absolute else disk.size + self.op.amount
        if self._target < disk.size:
            raise prereq(
                f"Requested size ({size_text(self._target)}) is smaller than current disk size "
                f"({size_text(disk.size)})",
                ECODE_STATE,
            )
        self._disk = disk.uuid
        self._check_room(ctx, instance, disk)
        self._check_policy(ctx, instance, disk)

    def _check_room(self, ctx: Context, instance: Instance, disk: Disk) -> None:
        snapshot = ctx.snapshot()
        nodes = disk_nodes(instance, disk)
        volume = disk.children[0] if disk.children else disk
        if not disk.template.lvm or volume.logical_id is None:
            return
        if not any(exclusive_storage(snapshot, node) for node in nodes):
            needed = {str(volume.logical_id[0]): self._target - disk.size}
            require_room(ctx, nodes, needed)

    def _check_policy(self, ctx: Context, instance: Instance, disk: Disk) -> None:
        snapshot = ctx.snapshot()
        group = snapshot.group_of(snapshot.nodes[instance.primary_node])
        policy = effective.instance_policy(snapshot.cluster, group)
        demand = PolicyDemand(None, None, [self._target], [disk.dev_type], None, None)
        # Of how many disks there are this says nothing.
        found = [text for text in violations(policy, demand) if not text.startswith("disk-count")]
        if found:
            text = f"Growing disk {self.op.disk} violates policy: {', '.join(found)}"
            if not self.op.ignore_ipolicy:
                raise prereq(text, ECODE_INVAL)
            ctx.warning(text)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns which disk grows by how much."""
        return {
            "DISK": self.op.disk,
            "AMOUNT": self.op.amount,
            "ABSOLUTE": self.op.absolute,
        }

    def exec(self, ctx: Context) -> None:
        """Grows it; the log says how far the mirror is."""
        before = self.instance(ctx.snapshot())
        disk = ctx.snapshot().disks[self._disk]
        with UndoStack(ctx) as undo:
            if not before.disks_active:
                undo.push(
                    f"shut down {disk.iv_name} of instance {before.name}",
                    lambda: shut_disks(ctx, self.instance(ctx.snapshot()), [disk]),
                )
            self._grow_all(ctx, before, disk)

    def _grow_all(self, ctx: Context, before: Instance, disk: Disk) -> None:
        if not activate_disks(ctx, before, [disk]).good:
            raise OpExecError(
                f"Cannot activate block device to grow ({disk.iv_name} of instance {before.name})"
            )
        delta = self._target - disk.size
        ctx.feedback(
            f"Growing disk {self.op.disk} of instance '{before.name}' by {size_text(delta)} to "
            f"{size_text(self._target)}"
        )
        wiped_from = self._size_before(ctx, before, disk)
        self._grow(ctx, before, disk)
        disk = self._record(ctx)
        # Nobody has to wait until the disk is wiped or in sync.
        ctx.release(Level.NODE)
        ctx.release(Level.NODE_RES)
        ctx.downgrade(Level.INSTANCE)
        if wiped_from is not None and wiped_from < disk.size:
            wipe_disks(ctx, before, [(self.op.disk, disk, wiped_from)])
        self._finish(ctx, disk)

    def _size_before(self, ctx: Context, instance: Instance, disk: Disk) -> int | None:
        """Returns from which MiB on new space is to be wiped; None where nothing is."""
        if not ctx.snapshot().cluster.prealloc_wipe_disks:
            return None
        primary = instance.primary_node
        sent = node_objects.disk(ctx.snapshot(), disk, instance, primary)
        (dimensions,) = ctx.call_one(primary, calls.BLOCKDEV_GETDIMENSIONS, ([sent],)).or_fail(
            f"Can't get the size of disk {self.op.disk} of instance {instance.name}"
        )
        if dimensions is None:
            raise OpExecError(
                f"Can't get the size of disk {self.op.disk} of instance {instance.name}: node "
                f"{ctx.snapshot().nodes[primary].name} doesn't find it"
            )
        return -(-dimensions.size // MEBIBYTE)

    def _grow(self, ctx: Context, instance: Instance, disk: Disk) -> None:
        nodes = disk_nodes(instance, disk)
        lacking = self._lacking(ctx, instance, disk, nodes)
        for dry_run, text in (
            (True, "Dry-run grow request failed to node"),
            (False, "Grow request failed to node"),
        ):
            # A node's own words follow; what was grown on another stays, see the class.
            _call_grow(ctx, instance, disk, lacking, dry_run=dry_run, backing=True, text=text)
        delta = self._target - disk.size
        _call_grow(
            ctx,
            instance,
            disk,
            {instance.primary_node: delta},
            dry_run=False,
            backing=False,
            text="Grow request failed to node",
        )

    def _lacking(
        self, ctx: Context, instance: Instance, disk: Disk, nodes: Sequence[str]
    ) -> dict[str, int]:
        """Returns by how many MiB each node has to grow; those that are large enough are not in it.

        A node that can't tell the size grows by the whole difference.
        """
        snapshot = ctx.snapshot()

        def arguments(target: Target) -> tuple[object, ...]:
            node = target.key
            if disk.children:
                return ([node_objects.disk_child(snapshot, disk, 0, instance, node)],)
            return ([node_objects.disk(snapshot, disk, instance, node)],)

        lacking = {}
        for node, answer in ctx.call(nodes, calls.BLOCKDEV_GETDIMENSIONS, arguments).items():
            found = answer.payload[0] if not answer.failed else None
            size = disk.size if found is None else found.size // MEBIBYTE
            if size < self._target:
                lacking[node] = self._target - size
        return lacking

    def _record(self, ctx: Context) -> Disk:
        target = self._target

        def grown(disk: Disk) -> Disk:
            children = disk.children
            if children:
                children = (replace(children[0], size=target), *children[1:])
            return replace(disk, size=target, children=children)

        changed: Disk = ctx.change(self._disk, grown)
        return changed

    def _finish(self, ctx: Context, disk: Disk) -> None:
        instance = self.instance(ctx.snapshot())
        if self.op.wait_for_sync:
            if not wait_for_sync(ctx, instance, [disk]):
                ctx.warning(
                    f"Disk {self.op.disk} of instance {instance.name} has grown, but syncing has "
                    "not returned a good status; check the instance"
                )
            if not instance.disks_active:
                shut_disks(ctx, instance, [disk])
        elif not instance.disks_active:
            ctx.warning(
                "Not shutting down the disk even if the instance is not supposed to be running "
                "because no wait for sync mode was requested"
            )


def _call_grow(
    ctx: Context,
    instance: Instance,
    disk: Disk,
    amounts: Mapping[str, int],
    *,
    dry_run: bool,
    backing: bool,
    text: str,
) -> None:
    """Calls nodes at once to grow a disk, or what is below it; raises ``OpExecError``."""
    snapshot = ctx.snapshot()

    def arguments(target: Target) -> tuple[object, ...]:
        node = target.key
        sent = node_objects.disk(snapshot, disk, instance, node)
        return sent, amounts[node], dry_run, backing, exclusive_storage(snapshot, node)

    for answer in ctx.call(amounts, calls.BLOCKDEV_GROW, arguments).values():
        answer.or_fail(f"{text} {answer.node}")
