"""Opcodes for testing the queue, the locks and the allocators."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt, ObjectName
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
    Tag,
)


class TestDelay(Opcode, tag="OP_TEST_DELAY", frozen=True, kw_only=True):
    """Waits for duration seconds, on the master, on nodes, or both.

    Waits once, or repeat times if that is more than 0.
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
    """Runs an allocator, or with direction "in" shows the request that it would get."""

    SUMMARY = "iallocator"
    RESULT = str

    direction: AllocatorDirection
    mode: AllocatorMode
    name: ObjectName
    nics: Nics | None = None
    disks: tuple[Any, ...] | None = None
    hypervisor: Hypervisor | None = None
    iallocator: NonEmptyStr | None = None
    tags: tuple[Tag, ...] = ()
    memory: NonNegativeInt | None = None
    vcpus: NonNegativeInt | None = None
    os: NonEmptyStr | None = None
    disk_template: DiskTemplateName | None = None
    instances: ObjectNames | None = None
    evac_mode: EvacuationMode | None = None
    target_groups: ObjectNames | None = None
    spindle_use: NonNegativeInt = 1
    count: NonNegativeInt = 1
    group_name: ObjectName | None = None


class TestJqueue(Opcode, tag="OP_TEST_JQUEUE", frozen=True, kw_only=True):
    """Exercises the queue: notifies a test client, logs messages, or fails."""

    RESULT = bool

    notify_waitlock: bool = False
    notify_exec: bool = False
    log_messages: tuple[str, ...] = ()
    fail: bool = False


class TestDummy(Opcode, tag="OP_TEST_DUMMY", frozen=True, kw_only=True):
    """Returns, logs, raises or submits the values of its parameters.

    All must be given; each may be null.
    """

    result: Any
    messages: Any
    fail: Any
    submit_jobs: AnyInnerOpcodes


class TestOsParams(Opcode, tag="OP_TEST_OS_PARAMS", frozen=True, kw_only=True):
    """Takes secret OS parameters, so that tests can see where they end up."""

    osparams_secret: SecretParams | None = None
