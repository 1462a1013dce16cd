"""Payloads of node calls as typed values, and results of calls without a payload.

noded answers plain JSON; the structs below give the payloads of the common
calls a type (protocol/rpc.rst, Payloads). :func:`typed` reads a
payload, and turns a malformed one into a failure.

The functions at the end return the results of calls that got no answer, with the same messages for
real and simulated nodes.
"""

from __future__ import annotations

from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct

from ganeti_masterd.errors import ResultValidationError
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult, Target

P = TypeVar("P")
T = TypeVar("T")

#: Nodes whose SSH keys could not be changed, and why.
SSHFailures = list[tuple[str, str]] | None

OFFLINE = "Node is marked offline"

#: How many characters of a node's own words about a failure are kept; they go into job files.
MAX_ERROR = 64 * 1024


class StorageSpace(Struct, frozen=True):
    """Space in one storage unit, in MiB; None if the node doesn't have the unit."""

    type: str
    name: str
    storage_size: int | None
    storage_free: int | None


class HypervisorSpace(Struct, frozen=True):
    """Memory (MiB) and processors of a node as one hypervisor sees them."""

    memory_total: int
    memory_free: int
    memory_dom0: int
    cpu_total: int
    cpu_nodes: int = 1
    cpu_sockets: int = 1
    cpu_dom0: int = 1
    hv_version: Any = None


class NodeInfo(Struct, frozen=True, array_like=True):
    """``node_info``: the lists are in the order of the request, None if none was requested."""

    boot_id: str
    storage: list[StorageSpace] | None
    hypervisors: list[HypervisorSpace] | None


class RunningInstance(Struct, frozen=True):
    """An instance that a hypervisor knows; memory in MiB, state 0 is running."""

    memory: int
    vcpus: int
    state: Any
    time: float


class InstanceInfo(Struct, frozen=True):
    """``instance_info``: as :class:`RunningInstance`; all None for an unknown instance."""

    memory: int | None = None
    vcpus: int | None = None
    state: Any = None
    time: float | None = None

    def __post_init__(self) -> None:
        """Raises ``ValueError``, which makes a payload malformed, if only some fields are set."""
        known = {value is not None for value in (self.memory, self.vcpus, self.state, self.time)}
        if len(known) > 1:
            raise ValueError("an instance is told in full or not at all")

    @property
    def known(self) -> bool:
        """Whether the hypervisor knows the instance."""
        return self.state is not None


class ProviderRow(Struct, frozen=True, array_like=True):
    """One external storage provider of ``extstorage_diagnose``."""

    name: str
    path: str
    valid: bool
    message: str
    parameters: list[tuple[str, str]]


class OSRow(Struct, frozen=True, array_like=True):
    """One operating system definition of ``os_diagnose``."""

    name: str
    path: str
    valid: bool
    message: str
    variants: list[str]
    parameters: list[tuple[str, str]]
    api_versions: list[int]
    trusted: bool


class HookResult(Struct, frozen=True, array_like=True):
    """One script of ``hooks_runner``; status 0 skipped, 1 failed, 2 succeeded."""

    script: str
    status: int
    output: str


class DeviceStatus(Struct, frozen=True):
    """State of a block device; ``ldisk_status`` 1 ok, 2 syncing, 3 unknown, 4 faulty."""

    dev_path: str
    is_degraded: bool | None = None
    ldisk_status: int | None = None
    major: int | None = None
    minor: int | None = None
    sync_percent: float | None = None
    estimated_time: float | None = None


class Dimensions(Struct, frozen=True, array_like=True):
    """Size of a disk in bytes, and its spindles if the cluster uses them."""

    size: int
    spindles: int | None


class AssembledDevice(Struct, frozen=True, array_like=True):
    """``blockdev_assemble``; ``path`` and ``link`` are True if there was nothing to do."""

    path: str | bool
    link: str | bool | None
    uri: str | None = None


class LogicalVolume(Struct, frozen=True, array_like=True):
    """A volume of ``lv_list``; ``size`` is a string with a decimal number of MiB."""

    size: str
    inactive: bool
    online: bool


class MigrationStatus(Struct, frozen=True):
    """How far a migration is: ``active``, ``cancelled``, ``completed`` or ``failed``.

    Under KVM also ``postcopy-active``; a node that switches to it as it is asked says
    ``active``, and that in ``postcopy_status``. Memory is in bytes, None where the
    hypervisor doesn't count it.
    """

    status: str
    transferred_ram: int | None = None
    total_ram: int | None = None
    postcopy_status: str | None = None


class Console(Struct, frozen=True):
    """How to reach an instance's console; which fields are set depends on ``kind``."""

    instance: str
    kind: str
    message: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    command: list[str] | str | None = None
    display: str | int | None = None


def parse(payload: Any, shape: type[T], procedure: str = "") -> T:
    """Returns ``payload`` as ``shape``, any type that msgspec can convert to.

    Raises ``ResultValidationError``, which says where the payload is wrong.
    """
    try:
        return msgspec.convert(payload, shape)
    except msgspec.ValidationError as error:
        raise ResultValidationError(f"RPC {procedure}: malformed result: {error}")


def typed(result: NodeResult[Any], call: Call[P]) -> NodeResult[P]:
    """Returns the result with its payload in the type that ``call`` declares.

    A failed result is returned as it is; one whose payload is malformed becomes
    failed. Never raises.
    """
    if result.typed is not None:
        ahead: NodeResult[P] = result.typed
        return ahead
    if result.error is not None or call.result is None:
        return result
    try:
        payload = parse(result.payload, call.result, result.procedure)
    except ResultValidationError as error:
        return msgspec.structs.replace(result, payload=None, error=str(error))
    return msgspec.structs.replace(result, payload=payload)


def typed_in_pieces(result: NodeResult[Any], call: Call[P]) -> NodeResult[P]:
    """Returns what :func:`typed` returns; other threads run while it is made.

    The entries of a list or an object are converted one by one, as a call to convert all of them
    would hold the interpreter lock.
    """
    payload, origin = result.payload, get_origin(call.result)
    convert = msgspec.convert
    try:
        if origin is dict and type(payload) is dict:
            _, shape = get_args(call.result)
            made: Any = {name: convert(item, shape) for name, item in payload.items()}
        elif origin is list and type(payload) is list:
            (shape,) = get_args(call.result)
            made = [convert(item, shape) for item in payload]
        else:
            return typed(result, call)
    except msgspec.ValidationError:
        return typed(result, call)  # whose error says where in the whole it is
    return msgspec.structs.replace(result, payload=made)


def read_answer(target: Target, procedure: str, answer: Any) -> NodeResult[Any]:
    """Reads what a node daemon sent, the decoded ``[success, payload]``.

    See protocol/rpc.rst, HTTP.
    """
    if not isinstance(answer, (list, tuple)):
        fault = invalid(target, f"invalid result type {type(answer).__name__}, wanted a list")
    elif len(answer) != 2:
        fault = invalid(target, f"invalid result length {len(answer)}, wanted 2")
    elif answer[0]:
        return NodeResult(target.name, procedure, answer[1])
    else:
        text = answer[1]
        fault = _shortened(text if isinstance(text, str) else str(text))
        if not text:
            fault = "No error information"
    return NodeResult(target.name, procedure, None, fault)


def invalid(target: Target, fault: str) -> str:
    """Returns the text of an error about an answer that means nothing."""
    return f"RPC layer error: node {target.name}: {fault}"


def _shortened(text: str) -> str:
    if len(text) <= MAX_ERROR:
        return text
    return f"{text[:MAX_ERROR]}... ({len(text) - MAX_ERROR} more characters)"


def offline(target: Target, procedure: str) -> NodeResult[Any]:
    """The result for a node that is marked offline: it is not called."""
    return NodeResult(target.name, procedure, None, OFFLINE, True)


def unreachable(target: Target, procedure: str, reason: str) -> NodeResult[Any]:
    """The result for a node to which no connection could be made."""
    where = target.address or target.name
    fault = f"Can't connect to {where}: {reason}"
    return NodeResult(target.name, procedure, None, fault, unsent=True)


def timed_out(target: Target, procedure: str, seconds: float) -> NodeResult[Any]:
    """The result of a call that timed out; the node may still carry it out."""
    fault = f"Node {target.name} gave no answer within {seconds:g} seconds"
    return NodeResult(target.name, procedure, None, fault)


def abandoned(target: Target, procedure: str) -> NodeResult[Any]:
    """The result of a cancelled call; only events have it."""
    return NodeResult(target.name, procedure, None, "The call was abandoned by its caller")


def given_up(target: Target, procedure: str) -> NodeResult[Any]:
    """The result of a call in flight when the daemon stops."""
    return NodeResult(target.name, procedure, None, "The call was given up: the daemon stops")
