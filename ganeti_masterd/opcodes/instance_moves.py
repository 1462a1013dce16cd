"""Opcodes that move an instance to other nodes."""

from __future__ import annotations

from ganeti_masterd.opcodes.base import Hooks
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt, ObjectName
from ganeti_masterd.opcodes.results import JobsResult
from ganeti_masterd.opcodes.targets import InstanceOpcode
from ganeti_masterd.opcodes.types import MigrationMode, ObjectNames


class InstanceFailover(InstanceOpcode, tag="OP_INSTANCE_FAILOVER", frozen=True, kw_only=True):
    """Stops an instance and starts it on another node."""

    HOOKS = Hooks("instance-failover", "INSTANCE")

    shutdown_timeout: NonNegativeInt = 120
    ignore_consistency: bool = False
    target_node: ObjectName | None = None
    target_node_uuid: NonEmptyStr | None = None
    ignore_ipolicy: bool = False
    cleanup: bool = False
    iallocator: NonEmptyStr | None = None


class InstanceMigrate(InstanceOpcode, tag="OP_INSTANCE_MIGRATE", frozen=True, kw_only=True):
    """Moves an instance to another node while it runs.

    live is the older parameter for mode; a job with both fails.
    """

    HOOKS = Hooks("instance-migrate", "INSTANCE")

    mode: MigrationMode | None = None
    live: bool | None = None
    target_node: ObjectName | None = None
    target_node_uuid: NonEmptyStr | None = None
    allow_runtime_changes: bool = True
    ignore_ipolicy: bool = False
    cleanup: bool = False
    iallocator: NonEmptyStr | None = None
    allow_failover: bool = False
    ignore_hvversions: bool = False


class InstanceMove(InstanceOpcode, tag="OP_INSTANCE_MOVE", frozen=True, kw_only=True):
    """Stops an instance and copies its disks to another node."""

    HOOKS = Hooks("instance-move", "INSTANCE")

    shutdown_timeout: NonNegativeInt = 120
    ignore_ipolicy: bool = False
    target_node: ObjectName
    target_node_uuid: NonEmptyStr | None = None
    compress: str = "none"
    ignore_consistency: bool = False


class InstanceChangeGroup(
    InstanceOpcode, tag="OP_INSTANCE_CHANGE_GROUP", frozen=True, kw_only=True
):
    """Submits the jobs that move an instance to another group."""

    HOOKS = Hooks("instance-change-group", "INSTANCE")
    RESULT = JobsResult

    early_release: bool = False
    iallocator: NonEmptyStr | None = None
    target_groups: ObjectNames | None = None
