"""``node_verify``: one check for each key of the request (protocol/rpc.rst, Payloads)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ganeti_masterd.constants import PROTOCOL_VERSION, RELEASE_VERSION
from ganeti_masterd.simulation import volumes as lvm
from ganeti_masterd.simulation.hypervisor import SimulatedHypervisorError, known, names, space
from ganeti_masterd.simulation.mirroring import HELPER
from ganeti_masterd.simulation.node import Implementations, SimulatedNode, Unexpected
from ganeti_masterd.simulation.state import StoredFile
from ganeti_masterd.simulation.system import certificate_digest, missing_bridges
from ganeti_masterd.simulation.systems import os_diagnose
from ganeti_masterd.simulation.units import vg_list, volumes

calls = Implementations()

Check = Callable[[SimulatedNode, Any], Any]

#: Returned by a check that has nothing to report.
NOTHING = object()

DRBD_VERSION = "8.4.11"

#: From this many characters on, the digest of a file that several nodes hold is kept: config.data,
#: which all candidates compare again and again.
DIGESTED_ONCE = 1 << 16

#: Checks that only concern nodes that can run instances.
OF_INSTANCE_NODES = frozenset(
    {
        "bridges",
        "drbd-helper",
        "drbd-list",
        "drbd-version",
        "hvinfo",
        "hvparms",
        "hypervisor",
        "instancelist",
        "lvlist",
        "oslist",
        "pvlist",
        "vglist",
    }
)


@calls("node_verify", "node_verify_light")
def node_verify(
    node: SimulatedNode, wanted: Mapping[str, Any], cluster: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Makes the requested checks; unknown keys are left out of the answer."""
    spared = node.name in wanted.get("nonvmnodes", ())
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        check = CHECKS.get(key)
        if check is None or (spared and key in OF_INSTANCE_NODES):
            continue
        result = check(node, value)
        if result is not NOTHING:
            found[key] = result
    if "exclusive-pvs" in wanted and "pvlist" in found:
        found["exclusive-pvs"] = []
    return found


def _files(node: SimulatedNode, paths: Sequence[str]) -> dict[str, str]:
    """Returns the SHA-1 of each existing file, by the path as it was sent."""
    digests: dict[str, str] = {}
    for path in paths:
        local = node.local_path(path)
        stored = None if node.is_master else node.state.files.get(local)
        if stored is not None and len(stored.data) >= DIGESTED_ONCE:
            digests[path] = _large_digest(stored)
        elif (content := node.read(local)) is not None:
            digests[path] = _digest(content)
    return digests


@lru_cache(maxsize=2)
def _large_digest(file: StoredFile) -> str:
    """Returns a large file's SHA-1, which is computed once for all nodes that hold the same."""
    return _digest(file.content)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _reaches(node: SimulatedNode, name: str) -> bool:
    """Returns whether this node can reach another."""
    return node.world.reachable(name) and node.world.joined(node.name, name)


def _nodes(node: SimulatedNode, value: Sequence[Any]) -> dict[str, str]:
    """Returns the nodes that can't be reached by SSH; only candidates check that."""
    everyone, by_node, candidates = value
    if node.name not in candidates:
        return {}
    others = [*everyone, *by_node.get(node.name, ())]
    return {
        name: "ssh problem: exited with exit code 255 (no output)"
        for name in others
        if not _reaches(node, name)
    }


def _network(node: SimulatedNode, value: Sequence[Any]) -> dict[str, str]:
    """Returns the nodes that can't be reached at all; only candidates check that."""
    everyone, candidates = value
    if node.name not in candidates:
        return {}
    if all(name != node.name for name, _, _ in everyone):
        return {node.name: "Can't find my own primary/secondary IP in the node list"}
    return {
        name: "failure using the primary"
        + (" and secondary" if secondary != primary else "")
        + " interface(s)"
        for name, primary, secondary in everyone
        if not _reaches(node, name)
    }


def _master_address(node: SimulatedNode, value: Sequence[Any]) -> bool | None:
    """Returns whether the master's address answers; only candidates check that."""
    _, address, candidates = value
    return node.world.holds_address(address) if node.name in candidates else None


def _hypervisors(node: SimulatedNode, hypervisors: Sequence[str]) -> dict[str, Any]:
    """Returns the error of each hypervisor (None: no error)."""
    found: dict[str, Any] = {}
    for hypervisor in hypervisors:
        try:
            known(hypervisor)
            found[hypervisor] = None
        except SimulatedHypervisorError as error:
            found[hypervisor] = f"Error while checking hypervisor: {error}"
    return found


def _parameters(node: SimulatedNode, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Returns the sets of hypervisor parameters that are wrong."""
    wrong: list[list[Any]] = []
    for source, hypervisor, _ in rows:
        try:
            known(hypervisor)
        except SimulatedHypervisorError as error:
            wrong.append([source, hypervisor, str(error)])
    return wrong


def _instances(node: SimulatedNode, hypervisors: Sequence[str]) -> list[str] | str:
    """Returns the running instances, or an error message."""
    try:
        return [name for hypervisor in hypervisors for name in names(node, hypervisor)]
    except SimulatedHypervisorError as error:
        return str(error)


def _space(node: SimulatedNode, hypervisor: str) -> dict[str, int]:
    """Returns memory and processors; noded doesn't expect an error here."""
    try:
        return space(node, hypervisor)
    except SimulatedHypervisorError as error:
        raise Unexpected(str(error))


def _time(node: SimulatedNode, _: Any) -> list[int]:
    """The node's clock, in seconds and microseconds."""
    seconds, micro = divmod(int(node.world.now() * 1000000), 1000000)
    return [seconds, micro]


def _physical_volumes(node: SimulatedNode, groups: Any) -> list[dict[str, Any]]:
    """Returns the physical volumes of the groups (None: of all) that accept new volumes."""
    return [
        {
            "name": physical.name,
            "vg_name": group.name,
            "size": float(physical.size),
            "free": float(physical.size - lvm.used(node, physical.name)),
            "attributes": "a--",
            "lv_list": [],
        }
        for group in node.hardware.groups
        for physical in group.volumes
        if (not groups or group.name in groups) and lvm.usable(node, physical.name)
    ]


def _logical_volumes(node: SimulatedNode, _: Any) -> dict[str, list[Any]]:
    """The logical volumes of all groups, whichever is asked for (noded 3.0.2)."""
    return volumes(node)


def _mirrors(node: SimulatedNode, _: Any) -> list[int]:
    """The minors in use."""
    return sorted(node.world.mirrors.of_node(node.name))


def _allowed_paths(node: SimulatedNode, name: str) -> Any:
    """Returns forbidden paths of file storage; only one node is asked."""
    return [] if name == node.name else NOTHING


#: The function that answers each key of a request.
CHECKS: Mapping[str, Check] = {
    "allowed-file-storage-paths": _allowed_paths,
    "bridges": missing_bridges,
    "client-cert": lambda node, value: [None, certificate_digest(node)],
    "drbd-helper": lambda node, value: [True, HELPER],
    "drbd-list": _mirrors,
    "drbd-version": lambda node, value: DRBD_VERSION,
    "filelist": _files,
    "file-storage-path": lambda node, value: NOTHING,
    "hvinfo": _space,
    "hvparms": _parameters,
    "hypervisor": _hypervisors,
    "instancelist": _instances,
    "lvlist": _logical_volumes,
    "master-ip": _master_address,
    "node-net-test": _network,
    "nodelist": _nodes,
    "nodesetup": lambda node, value: [],
    "oob-paths": lambda node, value: [None] * len(value),
    "oslist": lambda node, value: os_diagnose(node),
    "pvlist": _physical_volumes,
    "shared-file-storage-path": lambda node, value: NOTHING,
    "ssh-clutter": lambda node, value: [],
    "ssh-setup": lambda node, value: [],
    "time": _time,
    "user-scripts": lambda node, value: [],
    "version": lambda node, value: [PROTOCOL_VERSION, RELEASE_VERSION],
    "vglist": lambda node, value: vg_list(node),
}
