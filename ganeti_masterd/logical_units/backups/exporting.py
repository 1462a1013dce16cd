"""OP_BACKUP_EXPORT: the disks of an instance are copied to files of a node, or to another cluster.

Texts and the order of calls are those of real daemon 3.0.2; docs/procedures.rst shows the steps,
docs/differences.rst what is different.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import HELPER_VM_STARTUP, ZEROING_TIMEOUT_PER_MIB
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.backups.procedure import (
    EXPORT,
    ExportState,
    OtherCluster,
    Zeroing,
)
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.snapshots import can_snapshot
from ganeti_masterd.logical_units.instances.base import InstanceUnit, require_online
from ganeti_masterd.logical_units.instances.environment import instance_environment
from ganeti_masterd.logical_units.instances.helper_vm import (
    boots_from_disk,
    find_image,
    require_memory_for_it,
)
from ganeti_masterd.logical_units.instances.requirements import (
    require_compression,
)
from ganeti_masterd.logical_units.steps import exports, signing
from ganeti_masterd.logical_units.steps.procedure import carry_out
from ganeti_masterd.opcodes.backups import BackupExport


class ExportInstance(InstanceUnit[BackupExport], runs=BackupExport):
    """Exports an instance: all of it, or nothing that could be taken for it.

    Locked are the instance, the node that gets the export, those that have an older one and,
    until a helper VM has its disk there, the primary.
    """

    prepares = True

    #: The uuid of the node that gets it; None for another cluster.
    target: str | None
    #: The uuids of other nodes that have an older export of the instance.
    older: frozenset[str] = frozenset()
    #: Where the other cluster waits for it.
    other: OtherCluster | None = None
    #: How free space is zeroed; None if it isn't.
    zeroing: Zeroing | None = None

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance and the node; checks the arguments by themselves."""
        op = self.op
        if op.zero_free_space and not op.compress:
            raise prereq("Zeroing free space does not make sense unless compression is used")
        if op.zero_free_space and not op.shutdown:
            raise prereq("Unless the instance is shut down, zeroing cannot be used.")
        super().expand(snapshot)
        self.target = None
        if op.mode == "local":
            if not isinstance(op.target_node, str):
                raise prereq("A local export needs the name of a node", ECODE_INVAL)
            self.target = snapshot.node(op.target_node_uuid or op.target_node).uuid
            return
        if isinstance(op.target_node, str):
            raise prereq("A remote export needs the places of the disks", ECODE_INVAL)
        if op.x509_key_name is None:
            raise prereq("Missing X509 key name for encryption", ECODE_INVAL)
        if op.destination_x509_ca is None:
            raise prereq("Missing destination X509 CA", ECODE_INVAL)

    def prepare(self, ctx: Context) -> None:
        """Looks for older exports, so that their nodes can be locked."""
        if self.target is None:
            return
        name = self.instance(ctx.snapshot()).name
        others = [node for node in ctx.snapshot().nodes if node != self.target]
        found = exports.exports_on(ctx, others, quiet=True)
        self.older = frozenset(node for node, names in found.items() if name in names)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``."""
        if level is Level.NODE:
            wanted = {*self.kept_nodes(snapshot)}
            if self.op.zero_free_space:
                # Until the helper VM has its disk nobody else is to take the room.
                wanted.add(self.instance(snapshot).primary_node)
            if wanted:
                return exclusive(wanted)
        return super().locks(level, snapshot)

    def kept_nodes(self, snapshot: Snapshot) -> frozenset[str]:
        """Returns the uuids of the nodes that are held until the end."""
        if self.target is None:
            return frozenset()
        return frozenset({self.target, *(self.older & snapshot.nodes.keys())})

    def check(self, ctx: Context) -> None:
        """Refuses what can't be done; whether there can be snapshots is decided here."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        op = self.op
        self._environment = instance_environment(snapshot, instance)
        require_online(snapshot, instance.primary_node)
        if op.remove_instance and instance.admin_state == "up" and not op.shutdown:
            raise prereq("Can not remove instance without shutting it down before", ECODE_STATE)
        if self.target is None:
            self.other = self._other_cluster(ctx, instance)
        else:
            require_online(snapshot, self.target)
            if snapshot.nodes[self.target].drained:
                raise prereq(
                    f"Can't use drained node {snapshot.nodes[self.target].name}", ECODE_STATE
                )
        self._check_zeroing(snapshot, instance)
        if op.long_sleep and not op.shutdown:
            raise prereq(
                "The long sleep option only makes sense when the instance can be shut down.",
                ECODE_INVAL,
            )
        require_compression(snapshot.cluster, op.compress)
        if not instance.disks:
            raise prereq(
                f"Instance {instance.name} has no disks: there is nothing to export", ECODE_STATE
            )
        self._check_snapshots(snapshot, instance)
        self.zeroing = self._find_zeroing(ctx, instance)

    def _check_zeroing(self, snapshot: Snapshot, instance: Instance) -> None:
        op = self.op
        if not op.zero_free_space:
            if op.zeroing_timeout_fixed is not None or op.zeroing_timeout_per_mib is not None:
                raise prereq(
                    "Zeroing timeout options can only be used only with the --zero-free-space "
                    "option",
                    ECODE_INVAL,
                )
            return
        filled = effective.hypervisor(snapshot.cluster, instance)
        if instance.hypervisor == "kvm" and not filled.get("user_shutdown"):
            raise prereq(
                "Instance shutdown detection must be enabled for zeroing to work", ECODE_INVAL
            )
        if not boots_from_disk(instance.hypervisor, filled):
            raise prereq("Booting from disk must be set for zeroing to work", ECODE_INVAL)
        if not snapshot.cluster.zeroing_image:
            raise prereq("A zeroing image must be set for zeroing to work", ECODE_INVAL)

    def _find_zeroing(self, ctx: Context, instance: Instance) -> Zeroing | None:
        """Finds the image, and room for it; None if nothing is to be zeroed."""
        op, snapshot = self.op, ctx.snapshot()
        if not op.zero_free_space:
            return None
        place = snapshot.cluster.zeroing_image
        image = find_image(ctx, place, instance.primary_node, {})
        if instance.admin_state != "up":
            require_memory_for_it(ctx, instance)
        fixed, per_mib = op.zeroing_timeout_fixed, op.zeroing_timeout_per_mib
        fixed = HELPER_VM_STARTUP if fixed is None else fixed
        per_mib = ZEROING_TIMEOUT_PER_MIB if per_mib is None else per_mib
        total = sum(disk.size for disk in snapshot.disks_of(instance))
        return Zeroing(image, fixed + per_mib * total)

    def _check_snapshots(self, snapshot: Snapshot, instance: Instance) -> None:
        """Refuses to stop an instance for long, or to copy disks that it writes on."""
        runs_on = instance.admin_state == "up" and not self.op.remove_instance
        self.snapshots = runs_on and can_snapshot(snapshot.disks_of(instance))
        if not runs_on or self.snapshots:
            return
        if not self.op.shutdown:
            raise prereq(
                "Not all disks could be snapshotted, and you requested a live export; aborting",
                ECODE_STATE,
            )
        if not self.op.long_sleep:
            raise prereq(
                "Not all disks could be snapshotted, and you did not allow the instance to "
                "remain offline for a longer time through the --long-sleep option; aborting",
                ECODE_STATE,
            )

    def _other_cluster(self, ctx: Context, instance: Instance) -> OtherCluster:
        """Returns where the other cluster waits, as it has signed it."""
        op = self.op
        places = op.target_node
        assert not isinstance(places, str)
        if len(places) != len(instance.disks):
            raise prereq(
                f"Received destination information for {len(places)} disks, but instance "
                f"{instance.name} has {len(instance.disks)} disks",
                ECODE_INVAL,
            )
        secret = signing.domain_secret(ctx.root)
        key = op.x509_key_name
        if key is None or len(key) != 3:
            raise prereq("Invalid data for X509 key name", ECODE_INVAL)
        if not signing.is_signed(secret, str(key[0]), key[1], key[2]):
            raise prereq("HMAC for X509 key name is wrong", ECODE_INVAL)
        try:
            authority = signing.certificate_of(secret, op.destination_x509_ca or "")
        except signing.Untrusted as error:
            raise prereq(f"Invalid destination X509 CA ({error})", ECODE_INVAL)
        found = []
        for index, place in enumerate(places):
            try:
                found.append(signing.place_of(secret, index, place))
            except (signing.Untrusted, ValueError) as error:
                raise prereq(f"Target info for disk {index}: {error}", ECODE_INVAL)
        return OtherCluster(places=found, key_name=str(key[0]), authority=authority)

    # Hooks

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master, the primary node, and the one that gets the export."""
        there = snapshot.instances.get(self.uuid)
        if there is not None:
            self._primary = there.primary_node
        target = () if self.target is None else (self.target,)
        nodes = tuple(dict.fromkeys((snapshot.master.uuid, self._primary, *target)))
        return HookNodes(nodes, nodes)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Describes the instance, and the export; the instance may be gone after it."""
        there = snapshot.instances.get(self.uuid)
        told = self._environment if there is None else instance_environment(snapshot, there)
        if self.target is not None:
            where = snapshot.nodes[self.target].name
        else:
            places = self.other.places if self.other is not None else ()
            where = " ".join(f"{host}:{port}" for host, port, _ in places)
        return {
            **told,
            "EXPORT_MODE": self.op.mode,
            "EXPORT_NODE": where,
            "EXPORT_DO_SHUTDOWN": self.op.shutdown,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
            "REMOVE_INSTANCE": bool(self.op.remove_instance),
        }

    def exec(self, ctx: Context) -> tuple[bool, list[bool]]:
        """Runs the procedure; returns that all is there, also of each disk."""
        instance = self.instance(ctx.snapshot())
        state = ExportState(
            ctx,
            instance,
            self.op,
            target=self.target,
            other=self.other,
            snapshots=self.snapshots,
            zeroing=self.zeroing,
            kept_nodes=self.kept_nodes(ctx.snapshot()),
        )
        try:
            carry_out(EXPORT, state)
        finally:
            state.forget_key()
        return True, [True] * len(instance.disks)
