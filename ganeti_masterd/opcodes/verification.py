"""Opcodes that look for faults in the configuration, on nodes and in disks."""

from __future__ import annotations

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt, ObjectName
from ganeti_masterd.opcodes.results import JobsResult
from ganeti_masterd.opcodes.types import ObjectNames, VerifyCheck, VerifyCode


class ClusterVerify(Opcode, tag="OP_CLUSTER_VERIFY", frozen=True, kw_only=True):
    """Submits the jobs that verify the configuration and each group, or one group only."""

    RESULT = JobsResult

    debug_simulate_errors: bool = False
    error_codes: bool = False
    skip_checks: tuple[VerifyCheck, ...] = ()
    ignore_errors: tuple[VerifyCode, ...] = ()
    verbose: bool = False
    group_name: ObjectName | None = None
    verify_clutter: bool = False


class ClusterVerifyConfig(Opcode, tag="OP_CLUSTER_VERIFY_CONFIG", frozen=True, kw_only=True):
    """Looks for faults in the configuration; the result is true if there are none."""

    RESULT = bool

    debug_simulate_errors: bool = False
    error_codes: bool = False
    ignore_errors: tuple[VerifyCode, ...] = ()
    verbose: bool = False


class ClusterVerifyGroup(Opcode, tag="OP_CLUSTER_VERIFY_GROUP", frozen=True, kw_only=True):
    """Looks for faults of a group's nodes and instances; the result is true if there are none."""

    HOOKS = Hooks("cluster-verify", "CLUSTER")
    SUMMARY = "group_name"
    RESULT = bool

    group_name: ObjectName
    debug_simulate_errors: bool = False
    error_codes: bool = False
    skip_checks: tuple[VerifyCheck, ...] = ()
    ignore_errors: tuple[VerifyCode, ...] = ()
    verbose: bool = False
    verify_clutter: bool = False


class ClusterVerifyDisks(Opcode, tag="OP_CLUSTER_VERIFY_DISKS", frozen=True, kw_only=True):
    """Submits the jobs that verify the disks of each group, or of one group only."""

    RESULT = JobsResult

    group_name: ObjectName | None = None


class GroupVerifyDisks(Opcode, tag="OP_GROUP_VERIFY_DISKS", frozen=True, kw_only=True):
    """Looks for disks in a group that are missing or not active.

    The result lists errors by node, instances whose disks need activation, and missing
    volumes by instance.
    """

    SUMMARY = "group_name"
    RESULT = tuple[dict[str, str], list[str], dict[str, list[list[str]]]]

    group_name: ObjectName


class ClusterRepairDiskSizes(Opcode, tag="OP_CLUSTER_REPAIR_DISK_SIZES", frozen=True, kw_only=True):
    """Corrects disk sizes in the configuration that differ from those on the nodes.

    The result is a list of instance, disk index, what was corrected, and the size in MiB.
    """

    RESULT = list[tuple[NonEmptyStr, NonNegativeInt, NonEmptyStr, NonNegativeInt]]

    instances: ObjectNames = ()
