"""OP_INSTANCE_RENAME: an instance that is down gets another name.

Texts and the order of calls are those of real daemon 3.0.2; docs/differences.rst, Instances says
where ours differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import basename, dirname, join

from msgspec.structs import replace

from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_EXISTS, ECODE_INVAL, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import (
    activate_disks,
    current,
    disk_nodes,
    shut_disks,
)
from ganeti_masterd.logical_units.disks.making import OWNER
from ganeti_masterd.logical_units.instances import setting_up, specification
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_online,
    require_stopped,
)
from ganeti_masterd.logical_units.instances.nics import COMMUNICATION_PREFIX
from ganeti_masterd.logical_units.instances.resolving import check_address_unused, resolved_name
from ganeti_masterd.logical_units.nodes.addresses import normal_name
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes.instances import InstanceRename
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target


class RenameInstance(InstanceUnit[InstanceRename], runs=InstanceRename):
    """Renames an instance; for one that is only planned, no node is called.

    The directories of its disks are renamed first, and back if one of them fails. Name and paths
    are then written in one transaction. What follows (the names stored with the disks, the
    rename script of its operating system) can only fail with a warning.
    """

    forthcoming_too = True
    prepares = True

    new_name: str
    #: What the new name resolves to, None if that isn't looked up.
    address: str | None = None

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance; checks the new name as far as it goes without looking it up."""
        super().expand(snapshot)
        if self.op.ip_check and not self.op.name_check:
            raise prereq("IP address check requires a name check", ECODE_INVAL)
        self.new_name = normal_name(self.op.new_name)
        if not self.op.name_check:
            self._check_free(snapshot)

    def prepare(self, ctx: Context) -> None:
        """Looks the new name up, where that is wanted."""
        if self.op.name_check:
            found = resolved_name(ctx, self.op.new_name)
            self.new_name, self.address = found.name, found.address
            self._check_free(ctx.snapshot())

    def _check_free(self, snapshot: Snapshot) -> None:
        other = snapshot.instances.named(self.new_name)
        if other is not None and other.uuid != self.uuid:
            raise prereq(f"Instance '{self.new_name}' is already in the cluster", ECODE_EXISTS)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``; both names are held."""
        if level is Level.INSTANCE:
            name = self.instance(snapshot).name
            return exclusive(name, creating=() if name == self.new_name else self.new_name)
        return super().locks(level, snapshot)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the new name."""
        return {"INSTANCE_NEW_NAME": self.new_name}

    def check(self, ctx: Context) -> None:
        """Refuses what the instance's state, its nodes, or another instance don't allow."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self._check_free(snapshot)
        if self.op.ip_check and self.address is not None:
            check_address_unused(self.address, self.new_name)
        for disk in self._moved(snapshot, instance):
            specification.enabled_template(snapshot.cluster, disk.dev_type)
            owner = None if disk.uuid in instance.disks else snapshot.owner_of(disk)
            if owner is not None:
                raise prereq(
                    f"Directory {dirname(_path(disk))} of instance {instance.name} holds a disk "
                    f"of instance {owner.name}, cannot rename",
                    ECODE_STATE,
                )
        if not instance.forthcoming:
            require_online(snapshot, instance.primary_node)
            require_stopped(ctx, instance, "cannot rename")

    def _moved(self, snapshot: Snapshot, instance: Instance) -> list[Disk]:
        """Returns all disks in directories that are to be renamed, detached ones too."""
        if self.new_name == instance.name:
            return []
        directories = set(_own_directories(instance, snapshot.disks_of(instance)))
        if not directories:
            return []
        primary = instance.primary_node
        return [
            disk
            for disk in snapshot.disks.values()
            if _is_file(disk)
            and dirname(_path(disk)) in directories
            and (not disk.nodes or primary in disk.nodes)
        ]

    def exec(self, ctx: Context) -> str:
        """Renames it; returns the new name."""
        before = self.instance(ctx.snapshot())
        with UndoStack(ctx) as undo:
            if not before.forthcoming:
                self._rename_directories(ctx, undo, before)
            self._write(ctx, undo, before)
            undo.keep()
        if not before.forthcoming:
            self._tell(ctx, before.name)
        return self.new_name

    def _rename_directories(self, ctx: Context, undo: UndoStack, instance: Instance) -> None:
        primary = instance.primary_node
        node = ctx.snapshot().nodes[primary].name
        moved = self._moved(ctx.snapshot(), instance)
        if moved and instance.disks_active and not shut_disks(ctx, instance):
            raise OpExecError(
                f"Could not shut down the disks of instance {instance.name}; it is not renamed"
            )
        for old in dict.fromkeys(dirname(_path(disk)) for disk in moved):
            new = join(dirname(old), self.new_name)

            def back(old: str = old, new: str = new) -> None:
                ctx.call_one(primary, calls.FILE_STORAGE_DIR_RENAME, (new, old)).or_fail(
                    "the node refuses"
                )

            ctx.checkpoint()
            undo.push(f"make sure that directory '{old}' on node {node} has its name again", back)
            ctx.call_one(primary, calls.FILE_STORAGE_DIR_RENAME, (old, new)).or_fail(
                f"Could not rename on node {node} directory '{old}' to '{new}' (instance "
                f"{instance.name} keeps its name)"
            )

    def _write(self, ctx: Context, undo: UndoStack, before: Instance) -> None:
        """Writes the name and the paths, and exchanges the locks."""
        if self.new_name == before.name:
            return
        changes: list[Change] = [Update(self.uuid, _renamed(before.name, self.new_name))]
        changes += [
            Update(disk.uuid, _in_directory(self.new_name))
            for disk in self._moved(ctx.snapshot(), before)
        ]
        ctx.add_lock(Level.INSTANCE, self.new_name)
        undo.push(
            f"remove the lock of {self.new_name}",
            lambda: ctx.remove_lock(Level.INSTANCE, self.new_name),
        )
        ctx.change_all(changes)
        undo.keep()
        ctx.remove_lock(Level.INSTANCE, before.name)

    def _tell(self, ctx: Context, old: str) -> None:
        """Stores the new name with the disks and has the operating system learn of it."""
        instance = self.instance(ctx.snapshot())
        state = (
            f"has its new name (it was {old}) and is down, but its disks or its operating system "
            "may still have the old one"
        )
        with setting_up.staying(ctx, instance, state):
            if not activate_disks(ctx, instance).good:
                raise OpExecError("Disk consistency error")
            instance = current(ctx, instance)
            self._set_info(ctx, instance)
            if instance.os:
                self._run_script(ctx, instance, old)
        with ctx.shielded():
            shut_disks(ctx, current(ctx, instance))

    def _set_info(self, ctx: Context, instance: Instance) -> None:
        snapshot = ctx.snapshot()
        for index, disk in enumerate(snapshot.disks_of(instance)):

            def arguments(target: Target, disk: Disk = disk) -> tuple[object, ...]:
                sent = node_objects.disk(snapshot, disk, instance, target.key)
                return sent, OWNER + instance.name

            nodes = disk_nodes(instance, disk)
            for answer in ctx.call(nodes, calls.BLOCKDEV_SETINFO, arguments).values():
                if answer.failed:
                    ctx.warning(
                        f"Error setting info on node {answer.node} for disk {index}: {answer.error}"
                    )

    def _run_script(self, ctx: Context, instance: Instance, old: str) -> None:
        primary = instance.primary_node
        sent = node_objects.instance(ctx.snapshot(), instance, primary)
        ctx.info("Running instance OS rename script...")
        answer = ctx.call_one(
            primary, calls.INSTANCE_RUN_RENAME, (sent, old, self.op.debug_level or 0)
        )
        if answer.failed:
            private = specification.OsParameters(private=instance.osparams_private)
            ctx.warning(
                f"Could not run OS rename script for instance {instance.name} on node "
                f"{answer.node} (but the instance has been renamed in Ganeti): "
                f"{private.masked(str(answer.error))}"
            )


def _own_directories(instance: Instance, disks: Sequence[Disk]) -> Iterator[str]:
    """Returns the directories of an instance's disks that are named after it."""
    for disk in disks:
        directory = dirname(_path(disk)) if _is_file(disk) else ""
        if basename(directory) == instance.name:
            yield directory


def _is_file(disk: Disk) -> bool:
    """Whether a disk is a file in a directory of its instance."""
    return disk.dev_type in ("file", "sharedfile") and disk.logical_id is not None


def _path(disk: Disk) -> str:
    return str((disk.logical_id or ("", ""))[1])


def _renamed(old: str, new: str) -> Callable[[Instance], Instance]:
    """Returns what renames an instance, and the NIC that is called after it."""

    def changed(now: Instance) -> Instance:
        nics = tuple(
            replace(nic, name=COMMUNICATION_PREFIX + new)
            if nic.name == COMMUNICATION_PREFIX + old
            else nic
            for nic in now.nics
        )
        return replace(now, name=new, nics=nics)

    return changed


def _in_directory(name: str) -> Callable[[Disk], Disk]:
    """Returns what moves a disk to the directory of that name beside its own."""

    def changed(now: Disk) -> Disk:
        driver = (now.logical_id or ("",))[0]
        old = _path(now)
        path = join(dirname(dirname(old)), name, basename(old))
        return replace(now, logical_id=(driver, path))

    return changed
