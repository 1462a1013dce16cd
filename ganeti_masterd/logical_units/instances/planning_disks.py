"""What changes to an instance's disks come to, each applied to what the one before leaves. Pure.

What nodes have to say is asked in ``modifying_disks``, which also does the work. Texts are those
of real daemon 3.0.2; where the rules differ, docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters.merging import DEFAULT
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import (
    TEMPLATES,
    DiskTemplate,
    summary_name,
    template_named,
)
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NOTUNIQUE,
    ECODE_STATE,
    TypeEnforcementError,
    prereq,
)
from ganeti_masterd.logical_units.base import names_of
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.instances import specification
from ganeti_masterd.logical_units.instances.device_changes import (
    ADD,
    ATTACH,
    MODIFY,
    DeviceChange,
    check_room_for,
    place_of,
)
from ganeti_masterd.logical_units.instances.naming import check_device_names, device_name

#: What an instance without disks, and one with disks of several templates, shows as its template.
_DISKLESS, _MIXED = "diskless", "mixed"

_MODES = ("ro", "rw")


class DiskStep(Struct, frozen=True, kw_only=True):
    """One change to the disks, ready to be done.

    ``index`` is that of the disk when the step's turn comes. An added disk has its
    ``template``, ``nodes`` (uuids, the primary first) and ``specification``; of one that is
    attached ``disk`` is the uuid; ``params`` are the changes to one that stays.
    """

    action: str
    index: int
    template: str = ""
    nodes: tuple[str, ...] = ()
    specification: DiskSpecification | None = None
    disk: str = ""
    params: Params = {}


class DiskPlan(Struct, frozen=True):
    """All changes to the disks, and the disks after them as far as they are known."""

    steps: Sequence[DiskStep]
    disks: Sequence[Disk]

    def nodes(self) -> set[str]:
        """Returns the uuids of the nodes on which disks are made or attached."""
        return {node for step in self.steps for node in step.nodes}


def plan_disks(
    snapshot: Snapshot,
    instance: Instance,
    changes: Sequence[DeviceChange],
    *,
    wait_for_sync: bool = True,
) -> DiskPlan:
    """Returns what changes come to. Raises ``OpPrereqError`` and ``TypeEnforcementError``."""
    planning = _DiskPlanning(snapshot, instance, wait_for_sync)
    steps = [planning.step(change) for change in changes]
    check_device_names("disk", [disk.name for disk in planning.disks])
    return DiskPlan(steps, planning.disks)


def attached_disk(snapshot: Snapshot, params: Mapping[Any, Any]) -> Disk:
    """Returns the disk that is to be attached, which no instance has. Raises ``OpPrereqError``."""
    if len(params) != 1 or not set(params) <= {"name", "uuid"}:
        raise prereq(
            "Only one argument is permitted in attach op, either name or uuid", ECODE_INVAL
        )
    ((key, value),) = params.items()
    if key == "uuid":
        found = [snapshot.disks[value]] if value in snapshot.disks else []
    else:
        found = [disk for disk in snapshot.disks.values() if disk.name == value]
    called = "UUID" if key == "uuid" else "name"
    if not found:
        raise prereq(f"No disk was found with this {called}: {value}", ECODE_INVAL)
    owners = [snapshot.owner_of(disk) for disk in found]
    free = [disk for disk, owner in zip(found, owners, strict=True) if owner is None]
    if not free:
        assert owners[0] is not None
        raise prereq(
            f"Disk '{value}' is attached to instance {owners[0].name} already", ECODE_STATE
        )
    if len(free) > 1:
        uuids = ", ".join(sorted(disk.uuid for disk in free))
        raise prereq(
            f"Several disks have the name '{value}', give one by its uuid: {uuids}",
            ECODE_NOTUNIQUE,
        )
    return free[0]


class _DiskPlanning:
    """The disks of an instance, as one change after another leaves them."""

    def __init__(self, snapshot: Snapshot, instance: Instance, wait_for_sync: bool) -> None:
        self._snapshot = snapshot
        self._instance = instance
        self._waits = wait_for_sync
        self.disks = list(snapshot.disks_of(instance))

    def step(self, change: DeviceChange) -> DiskStep:
        """Returns what one change comes to, and applies it to :attr:`disks`."""
        index = place_of("disk", change, self.disks)
        if change.action in (ADD, ATTACH):
            check_room_for("disks", len(self.disks), specification.MOST_DISKS)
            if not self._instance.disks_active and not self._waits:
                raise prereq(
                    f"Can't {change.action} a disk to an instance with deactivated disks and "
                    "--no-wait-for-sync given",
                    ECODE_INVAL,
                )
            make = self._added if change.action == ADD else self._attached
            return make(index, change.params)
        if change.action == MODIFY:
            return self._modified(index, change.params)
        self.disks.pop(index)
        return DiskStep(action=change.action, index=index)

    def _added(self, index: int, given: Mapping[Any, Any]) -> DiskStep:
        template = self._template(given)
        if "size" not in given:
            raise prereq("Required disk parameter 'size' missing", ECODE_INVAL)
        if template.only_adopts or "adopt" in given:
            raise prereq("Disks can only be adopted by a new instance", ECODE_INVAL)
        snapshot = self._snapshot
        primary = self._instance.primary_node
        nodes = (primary, *self._secondary()) if template.internal else (primary,)
        wanted = specification.read_disk(given, template, snapshot.cluster)
        group = snapshot.group_of(snapshot.nodes[primary])
        (wanted,) = specification.with_metadata_group([wanted], template, snapshot.cluster, group)
        self.disks.insert(
            index,
            Disk(
                dev_type=template.name,
                size=wanted.size,
                name=wanted.name,
                spindles=wanted.spindles,
                params=wanted.params,
                nodes=() if template.external else nodes,
                uuid=f"new {len(self.disks)}",
            ),
        )
        return DiskStep(
            action=ADD, index=index, template=template.name, nodes=nodes, specification=wanted
        )

    def _template(self, given: Mapping[Any, Any]) -> DiskTemplate:
        """Returns the template of a new disk: that of the others, or else the one given."""
        own = summary_name(disk.dev_type for disk in self.disks)
        if own not in (_DISKLESS, _MIXED):
            return template_named(own)
        if "dev_type" not in given:
            raise prereq(
                "Must specify disk type on diskless instance"
                if own == _DISKLESS
                else "Must specify disk type on an instance with disks of several types",
                ECODE_INVAL,
            )
        if given["dev_type"] not in TEMPLATES:
            raise prereq(f"Unknown disk template '{given['dev_type']}'", ECODE_INVAL)
        return specification.enabled_template(self._snapshot.cluster, given["dev_type"])

    def _secondary(self) -> tuple[str]:
        """Returns the secondary node that the mirrors have already."""
        for disk in self.disks:
            others = [node for node in disk.all_nodes() if node != self._instance.primary_node]
            if disk.template.internal and others:
                return (others[0],)
        raise prereq(
            f"Instance {self._instance.name} has no secondary node for a disk of this template; "
            "add a plain one, and convert the instance",
            ECODE_INVAL,
        )

    def _attached(self, index: int, given: Mapping[Any, Any]) -> DiskStep:
        disk = attached_disk(self._snapshot, given)
        own = summary_name(each.dev_type for each in self.disks)
        if own not in (_DISKLESS, disk.dev_type):
            raise prereq(
                f"Instance has '{own}' template while disk has '{disk.dev_type}' template",
                ECODE_INVAL,
            )
        there = {self._instance.primary_node}
        there |= {node for each in self.disks for node in each.all_nodes()}
        if disk.nodes and not there <= set(disk.all_nodes()):
            raise prereq(
                f"Disk nodes are {names_of(self._snapshot, disk.all_nodes())} while the "
                f"instance's nodes are {names_of(self._snapshot, there)}",
                ECODE_INVAL,
            )
        if any(each.uuid == disk.uuid for each in self.disks):
            raise prereq(f"Disk '{disk.uuid}' can't be attached twice", ECODE_INVAL)
        self.disks.insert(index, disk)
        nodes = disk.all_nodes() or (self._instance.primary_node,)
        return DiskStep(action=ATTACH, index=index, disk=disk.uuid, nodes=nodes)

    def _modified(self, index: int, given: Mapping[Any, Any]) -> DiskStep:
        disk = self.disks[index]
        if "size" in given:
            raise prereq("Disk size change not possible, use grow-disk", ECODE_INVAL)
        is_ext = disk.dev_type == "ext"
        for key in given:
            if is_ext and key in ("access", "provider"):
                raise prereq(f"Disk '{key}' parameter change is not possible", ECODE_INVAL)
            if key not in ("mode", "name") and (not is_ext or key in specification.DISK_KEYS):
                raise TypeEnforcementError(f"Unknown parameter '{key}'")
        if given.get("mode", "rw") not in _MODES:
            raise prereq(f"Invalid disk access mode '{given['mode']}'", ECODE_INVAL)
        params = dict(given)
        if "name" in params:
            params["name"] = device_name("disk", params["name"])
        self.disks[index] = modified_disk(disk, params)
        return DiskStep(action=MODIFY, index=index, params=params)


def modified_disk(disk: Disk, changes: Params) -> Disk:
    """Returns a disk with another mode or name, or with other parameters of its provider."""
    fields = {key: changes[key] for key in ("mode", "name") if key in changes}
    params = dict(disk.params)
    for key, value in changes.items():
        if key in fields:
            continue
        if value == DEFAULT:
            params.pop(key, None)
        else:
            params[key] = value
    return replace(disk, **fields, params=params)
