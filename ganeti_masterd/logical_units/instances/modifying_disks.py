"""Disks of an instance are added, attached, changed, removed and detached, while it runs or not.

Each change is whole: a new disk is published once its devices are there, one that goes leaves
the configuration before its devices do, each in one transaction. What was made for a change that
fails, or is broken off by a kill, is taken back; changes before it stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import (
    activate_disks,
    current,
    note_removed,
    remove_disks,
    shut_disks,
)
from ganeti_masterd.logical_units.disks.making import (
    create_directory,
    create_disks,
    directory_of,
    exclusive_storage,
)
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.renaming import rename_devices
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync, wipe_disks
from ganeti_masterd.logical_units.disks.trees import (
    DiskLocation,
    base_directory,
    build_disks,
    file_directory,
    renumbered,
)
from ganeti_masterd.logical_units.instances.base import require_stopped, require_usable
from ganeti_masterd.logical_units.instances.device_changes import (
    ADD,
    ATTACH,
    DETACH,
    MODIFY,
    REMOVE,
    ModifiedEntries,
)
from ganeti_masterd.logical_units.instances.hotplugging import (
    NOT_PLUGGED,
    PLUGGED,
    plug_disk,
    unplug_disk,
)
from ganeti_masterd.logical_units.instances.planning_disks import (
    DiskPlan,
    DiskStep,
    modified_disk,
)
from ganeti_masterd.logical_units.instances.publishing import WholeInstance, changes_between
from ganeti_masterd.logical_units.instances.requirements import (
    check_access,
    check_exclusive_storage,
    require_room,
    room_in_groups,
)
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.logical_units.steps.wording import size_text
from ganeti_masterd.opcodes.instances import InstanceSetParams
from ganeti_masterd.rpc import calls

#: What can't be done with a disk of an instance that runs, unless it is unplugged.
_WHILE_RUNNING = {
    DETACH: "can't detach volume from a running instance without using hotplug",
    REMOVE: "can't remove volume from a running instance without using hotplug",
}


def check_disk_changes(
    ctx: Context, instance: Instance, plan: DiskPlan, op: InstanceSetParams, *, hotplug: bool
) -> None:
    """Checks what the nodes have to say to changes of disks. Raises ``OpPrereqError``."""
    snapshot = ctx.snapshot()
    leaving = [step.action for step in plan.steps if step.action in _WHILE_RUNNING]
    if leaving and not hotplug:
        require_stopped(ctx, instance, _WHILE_RUNNING[leaving[0]])
    for node in sorted(plan.nodes()):
        if node != instance.primary_node:
            require_usable(snapshot, node)
    needed: dict[tuple[str, ...], dict[str, int]] = {}
    for step in plan.steps:
        if step.specification is None:
            continue
        wanted = [step.specification]
        base_directory(snapshot.cluster, step.template)
        check_exclusive_storage(snapshot, step.nodes, step.template, wanted)
        params = [step.specification.params]
        check_access(snapshot, step.nodes[0], instance.hypervisor, step.template, params)
        if any(exclusive_storage(snapshot, node) for node in step.nodes):
            continue
        groups = needed.setdefault(step.nodes, {})
        for group, size in room_in_groups(step.template, wanted).items():
            groups[group] = groups.get(group, 0) + size
    for nodes, groups in needed.items():
        require_room(ctx, nodes, groups)


class DiskModification:
    """Does the changes of one opcode to the disks of one instance."""

    def __init__(
        self,
        ctx: Context,
        instance: Instance,
        op: InstanceSetParams,
        entries: ModifiedEntries,
        *,
        hotplug: bool,
    ) -> None:
        """``entries`` gets what the result says of each change as it is done."""
        self._ctx = ctx
        self._uuid = instance.uuid
        self._op = op
        self._hotplug = hotplug
        #: The uuids of the disks that came, which may have to be synchronized and shut down.
        self._came: list[str] = []
        self.entries = entries

    def run(self, steps: Sequence[DiskStep]) -> None:
        """Does all, then waits until new mirrors are in sync. Raises ``OpExecError``.

        Disks that came to an instance whose disks are not active are shut down at the end,
        whatever that is.
        """
        does = {
            ADD: self._add,
            ATTACH: self._attach,
            DETACH: self._detach,
            MODIFY: self._modify,
            REMOVE: self._remove,
        }
        try:
            for step in steps:
                does[step.action](step)
            self._ctx.release(Level.NODE)
            if self._op.wait_for_sync:
                self._wait()
        finally:
            if not self._instance.disks_active and self._came:
                with self._ctx.shielded():
                    shut_disks(self._ctx, self._instance, self._newcomers())

    @property
    def _instance(self) -> Instance:
        return self._ctx.snapshot().instances[self._uuid]

    def _newcomers(self) -> list[Disk]:
        """Returns the disks that came, and are still the instance's."""
        held = self._ctx.snapshot().disks_of(self._instance)
        return [disk for disk in held if disk.uuid in self._came]

    def _wait(self) -> None:
        instance = self._instance
        if not wait_for_sync(self._ctx, instance, self._newcomers()):
            raise OpExecError(
                f"Failed to sync disks of {instance.name}: they belong to the instance, but a "
                "mirror is degraded"
            )

    # Disks that come

    def _add(self, step: DiskStep) -> None:
        ctx, instance, index = self._ctx, self._instance, step.index
        disks = ctx.snapshot().disks_of(instance)
        new = self._built(step, instance)
        if not new.template.internal:
            ctx.feedback(f"* disk {index}, size {size_text(new.size)}")
        with UndoStack(ctx) as undo:
            create_disks(ctx, undo, instance, [new], kept=disks)
            if ctx.snapshot().cluster.prealloc_wipe_disks:
                wipe_disks(ctx, instance, [(index, new, 0)])
            self._published(instance, disks, [*disks[:index], new, *disks[index:]])
            undo.keep()
        self._came.append(new.uuid)
        self.entries.append((f"disk/{index}", f"add:size={new.size},mode={new.mode}"))
        self._plug(new.uuid, index)

    def _built(self, step: DiskStep, instance: Instance) -> Disk:
        """Returns the new disk, under a name that no other disk has."""
        assert step.specification is not None
        ctx, number = self._ctx, step.index
        taken = {(disk.dev_type, disk.logical_id) for disk in ctx.snapshot().disks.values()}
        where = DiskLocation(
            instance_uuid=instance.uuid,
            nodes=step.nodes,
            directory=self._directory(instance, step.template),
            driver=self._op.file_driver or "loop",
        )
        naming = ReservedNaming(ctx)
        while True:
            (new,) = build_disks(step.template, [step.specification], where, naming, first=number)
            if (new.dev_type, new.logical_id) not in taken:
                return replace(new, iv_name=f"disk/{step.index}")
            # Only gluster names its disks by their numbers alone.
            number += 1

    def _directory(self, instance: Instance, template: str) -> str:
        base = base_directory(self._ctx.snapshot().cluster, template)
        if not base:
            return ""
        return file_directory(base, self._op.file_storage_dir, instance.name, template)

    def _attach(self, step: DiskStep) -> None:
        ctx, instance, index = self._ctx, self._instance, step.index
        disks = ctx.snapshot().disks_of(instance)
        old = ctx.snapshot().disks[step.disk]
        with UndoStack(ctx) as undo:
            new = replace(self._moved_in(undo, instance, old, index), iv_name=f"disk/{index}")
            after = [*disks[:index], new, *disks[index:]]
            grown = replace(instance, disks=tuple(disk.uuid for disk in after))

            def shut() -> None:
                shut_disks(ctx, grown, [new])

            undo.push(f"shut down disk {index} of instance {instance.name}", shut)
            if not activate_disks(ctx, grown, [new]).good:
                raise OpExecError(
                    f"Can't make disk {old.uuid} ready on its nodes; it is not attached to "
                    f"instance {instance.name}"
                )
            self._published(instance, [*disks, old], after)
            undo.keep()
        self._came.append(new.uuid)
        self.entries.append((f"disk/{index}", f"attach:size={new.size},mode={new.mode}"))
        self._plug(new.uuid, index)

    def _moved_in(self, undo: UndoStack, instance: Instance, disk: Disk, index: int) -> Disk:
        """Moves a file into the instance's directory, under a new name; returns the disk then."""
        if not directory_of(disk):
            return disk
        ctx = self._ctx
        directory = self._directory(instance, disk.dev_type)
        kept = [directory_of(each) for each in ctx.snapshot().disks_of(instance)]
        if directory not in kept:
            create_directory(ctx, undo, instance, directory)
        ctx.feedback(f"* disk {index}, size {size_text(disk.size)}")
        path = f"{directory}/{uuid4()}.{disk.dev_type}.disk{index}"
        return self._renamed(undo, instance, disk, index, path)

    def _renamed(
        self, undo: UndoStack, instance: Instance, disk: Disk, index: int, path: str
    ) -> Disk:
        new = replace(disk, logical_id=((disk.logical_id or ("loop",))[0], path))
        failure = f"Failed to rename the file of disk {index}"
        rename_devices(self._ctx, undo, instance, [(disk, new)], failure)
        return new

    def _plug(self, uuid: str, index: int) -> None:
        """Makes a new disk ready and plugs it in, where that is wanted; failures are warnings."""
        if not self._hotplug:
            return
        ctx, instance = self._ctx, self._instance
        disk, node = ctx.snapshot().disks[uuid], instance.primary_node
        answer = ctx.call_one(
            node,
            calls.BLOCKDEV_ASSEMBLE,
            (
                node_objects.disk(ctx.snapshot(), disk, instance, node),
                node_objects.instance(ctx.snapshot(), instance, node),
                True,
                index,
            ),
        )
        if answer.failed:
            ctx.warning(f"Can't assemble newly created disk {index}: {answer.error}")
            self.entries.append((f"disk/{index}", "assemble:failed"))
            return
        link, uri = answer.payload.link, answer.payload.uri
        good = plug_disk(ctx, instance, disk, index, link, uri)
        self.entries.append((f"disk/{index}", PLUGGED if good else NOT_PLUGGED))

    # Disks that stay

    def _modify(self, step: DiskStep) -> None:
        ctx, index = self._ctx, step.index
        uuid = self._instance.disks[index]

        def modified(now: Disk) -> Disk:
            new = modified_disk(now, step.params)
            return now if new == now else new

        ctx.change(uuid, modified)
        for key, value in step.params.items():
            what = key if key in ("mode", "name") else f"params:{key}"
            self.entries.append((f"disk.{what}/{index}", value))

    # Disks that go

    def _detach(self, step: DiskStep) -> None:
        ctx, instance, index = self._ctx, self._instance, step.index
        disks = ctx.snapshot().disks_of(instance)
        disk = disks[index]
        others = [each for each in disks if each is not disk]
        offline = ctx.snapshot().nodes[instance.primary_node].offline
        ctx.checkpoint()
        # It is short, and half of it would leave a disk that nobody can use.
        with ctx.shielded(), UndoStack(ctx) as undo:
            self._unplug(instance, disk, index)
            if instance.disks_active:
                undo.push(
                    f"make disk {index} of instance {instance.name} ready again",
                    lambda: activate_disks(ctx, instance, [disk]),
                )
            if not shut_disks(ctx, instance, [disk], ignore_primary=offline):
                raise OpExecError(
                    f"Can't shut down disk {index} of instance {instance.name}; it stays attached"
                )
            above, _, _ = directory_of(disk).rpartition("/")
            moved = disk
            if above:
                name = str((disk.logical_id or ("", ""))[1]).rpartition("/")[2]
                moved = self._renamed(undo, instance, disk, index, f"{above}/{name}")
            self._published(instance, others, others, apart=[(disk, moved)])
            undo.keep()
        self.entries.append((f"disk/{index}", DETACH))
        if self._hotplug:
            self.entries.append((f"disk/{index}", PLUGGED))

    def _remove(self, step: DiskStep) -> None:
        ctx, instance, index = self._ctx, self._instance, step.index
        disks = ctx.snapshot().disks_of(instance)
        disk = disks[index]
        others = [each for each in disks if each is not disk]
        ctx.checkpoint()
        # Once it is out of the configuration nobody else can finish this.
        with ctx.shielded():
            self._unplug(instance, disk, index)
            if self._hotplug:
                shut_disks(ctx, instance, [disk])
            note_removed(ctx, instance, [disk])
            self._published(instance, disks, others)
            if not remove_disks(ctx, current(ctx, instance), [disk], kept=others):
                ctx.warning(
                    f"Disk {index} ({disk.uuid}) is no longer one of instance {instance.name}; "
                    "what is left of it, see above, has to be removed by hand"
                )
        self.entries.append((f"disk/{index}", REMOVE))
        if self._hotplug:
            self.entries.append((f"disk/{index}", PLUGGED))

    def _unplug(self, instance: Instance, disk: Disk, index: int) -> None:
        """Unplugs a disk where that is wanted; raises ``OpExecError`` if it stays in use."""
        if self._hotplug and not unplug_disk(self._ctx, instance, disk, index):
            raise OpExecError(
                f"Can't unplug disk {index} of instance {instance.name}, which runs and may be "
                "using it; the disk stays"
            )

    def _published(
        self,
        instance: Instance,
        before: Sequence[Disk],
        after: Sequence[Disk],
        *,
        apart: Sequence[tuple[Disk, Disk]] = (),
    ) -> None:
        """Makes ``after`` the disks of the instance, in one transaction.

        ``before`` are all that the configuration has of them; ``apart`` are disks that the
        instance leaves in the configuration, as they were and as they are then.
        """
        ctx = self._ctx
        disks = renumbered(after)
        wanted = replace(instance, disks=tuple(disk.uuid for disk in disks))
        changes: list[Change] = changes_between(
            WholeInstance(instance, tuple(before)),
            WholeInstance(wanted, tuple(disks)),
            ctx.snapshot().cluster,
        )
        for old, new in apart:
            if old != new:
                changes.append(Update(old.uuid, _with_id(new)))
        ctx.change_all(changes)


def _with_id(new: Disk) -> Any:
    return lambda now: replace(now, logical_id=new.logical_id)
