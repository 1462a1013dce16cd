"""Opcodes of an instance's disks."""

from __future__ import annotations

from ganeti_masterd.opcodes.base import Hooks
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt, ObjectName
from ganeti_masterd.opcodes.targets import InstanceOpcode
from ganeti_masterd.opcodes.types import DiskIndex, ObjectNames, RecreatedDisks, ReplaceMode


class InstanceActivateDisks(
    InstanceOpcode, tag="OP_INSTANCE_ACTIVATE_DISKS", frozen=True, kw_only=True
):
    """Assembles an instance's disks; the result lists node, disk and device path."""

    RESULT = list[tuple[NonEmptyStr, NonEmptyStr, NonEmptyStr | None]]

    ignore_size: bool = False
    wait_for_sync: bool = False


class InstanceDeactivateDisks(
    InstanceOpcode, tag="OP_INSTANCE_DEACTIVATE_DISKS", frozen=True, kw_only=True
):
    """Shuts an instance's disks down."""

    force: bool = False


class InstanceGrowDisk(InstanceOpcode, tag="OP_INSTANCE_GROW_DISK", frozen=True, kw_only=True):
    """Grows a disk by amount MiB, or to amount MiB if absolute is set."""

    HOOKS = Hooks("disk-grow", "INSTANCE")

    wait_for_sync: bool = True
    disk: DiskIndex
    amount: NonNegativeInt
    absolute: bool = False
    ignore_ipolicy: bool = False


class InstanceRecreateDisks(
    InstanceOpcode, tag="OP_INSTANCE_RECREATE_DISKS", frozen=True, kw_only=True
):
    """Recreates lost disks of an instance as empty ones; all of them if no disks are given."""

    HOOKS = Hooks("instance-recreate-disks", "INSTANCE")

    disks: RecreatedDisks = ()
    nodes: ObjectNames = ()
    node_uuids: ObjectNames | None = None
    iallocator: NonEmptyStr | None = None


class InstanceReplaceDisks(
    InstanceOpcode, tag="OP_INSTANCE_REPLACE_DISKS", frozen=True, kw_only=True
):
    """Replaces mirrored disks in place, or on a new secondary node."""

    HOOKS = Hooks("mirrors-replace", "INSTANCE")

    early_release: bool = False
    ignore_ipolicy: bool = False
    mode: ReplaceMode
    disks: tuple[DiskIndex, ...] = ()
    remote_node: ObjectName | None = None
    remote_node_uuid: NonEmptyStr | None = None
    iallocator: NonEmptyStr | None = None
