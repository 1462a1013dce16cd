"""Opcodes with which the queue, the locks and the allocators are tried out."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt
from ganeti_masterd.opcodes.types import (
    AllocatorDirection,
    AllocatorMode,
    AnyInnerOpcodes,
    DiskTemplateName,
    EvacuationMode,
    Hypervisor,
    Nics,
    ObjectNames,
    SecretParams,
)


class TestDelay(Opcode, tag="OP_TEST_DELAY", frozen=True, kw_only=True):
    """Waits for duration seconds, on the master, on nodes, or both.

    It does so once, or repeat times if that is more than 0.
    """

    SUMMARY = "duration"

    duration: float
    on_master: bool = True
    on_nodes: ObjectNames = ()
    on_node_uuids: ObjectNames | None = None
    repeat: NonNegativeInt = 0
    interruptible: bool = False
    no_locks: bool = True


class TestAllocator(Opcode, tag="OP_TEST_ALLOCATOR", frozen=True, kw_only=True):
    """Asks an allocator, or shows what it would be asked (direction in)."""

    SUMMARY = "iallocator"
    RESULT = str

    direction: AllocatorDirection
    mode: AllocatorMode
    name: NonEmptyStr
    nics: Nics | None = None
    disks: tuple[Any, ...] | None = None
    hypervisor: Hypervisor | None = None
    iallocator: NonEmptyStr | None = None
    tags: ObjectNames = ()
    memory: NonNegativeInt | None = None
    vcpus: NonNegativeInt | None = None
    os: NonEmptyStr | None = None
    disk_template: DiskTemplateName | None = None
    instances: ObjectNames | None = None
    evac_mode: EvacuationMode | None = None
    target_groups: ObjectNames | None = None
    spindle_use: NonNegativeInt = 1
    count: NonNegativeInt = 1
    group_name: NonEmptyStr | None = None


class TestJqueue(Opcode, tag="OP_TEST_JQUEUE", frozen=True, kw_only=True):
    """Tries the queue: notifies a test client, logs messages, or fails."""

    RESULT = bool

    notify_waitlock: bool = False
    notify_exec: bool = False
    log_messages: tuple[str, ...] = ()
    fail: bool = False


class TestDummy(Opcode, tag="OP_TEST_DUMMY", frozen=True, kw_only=True):
    """Returns, says, raises or submits what its parameters hold.

    Null is a value for each of them.
    """

    result: Any
    messages: Any
    fail: Any
    submit_jobs: AnyInnerOpcodes


class TestOsParams(Opcode, tag="OP_TEST_OS_PARAMS", frozen=True, kw_only=True):
    """Takes secret OS parameters, so that their way can be followed."""

    osparams_secret: SecretParams | None = None
