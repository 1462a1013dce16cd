"""Calls about a simulated node as a member of the cluster, and its operating systems.

Facts that a node keeps (:attr:`NodeState.facts`): ``master_address``, the
master's address that is up here; ``watcher_pause``, when the watcher's pause
ends; ``exports``, the names of exports; ``starts``, how often the machine was
power-cycled; ``allocatable``, see :mod:`ganeti_masterd.simulation.units`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.constants import OS_API_V20, PROTOCOL_VERSION
from ganeti_masterd.simulation import scripts
from ganeti_masterd.simulation.hypervisor import known
from ganeti_masterd.simulation.node import (
    CONFIG_FILE,
    DATA_DIR,
    Implementations,
    NodeFailure,
    OSDefinition,
    SimulatedNode,
)
from ganeti_masterd.simulation.state import StoredFile

calls = Implementations()
calls.functions.update(scripts.calls.functions)

PAUSE_FILE = DATA_DIR + "/watcher.pause"
PAUSE_KEPT = 3600.0
DAEMONS = frozenset({"ganeti-kvmd"})
OS_CHECKS = frozenset({"parameters"})


def certificate_digest(node: SimulatedNode) -> str:
    """Returns the digest of the node's own certificate."""
    text = hashlib.sha1(node.name.encode("utf-8"), usedforsecurity=False).hexdigest().upper()
    return ":".join(text[place : place + 2] for place in range(0, len(text), 2))


def master_address(node: SimulatedNode) -> str | None:
    """Returns the master's address if it is up here."""
    address = node.state.facts.get("master_address")
    return None if address is None else str(address)


@calls("version")
def version(node: SimulatedNode) -> int:
    """The protocol's version."""
    return PROTOCOL_VERSION


@calls("master_node_name")
def master_node_name(node: SimulatedNode) -> str:
    """Who is master, as far as this node was told."""
    name = node.ssconf("master_node")
    if name is None:
        path = f"{DATA_DIR}/ssconf_master_node"
        raise NodeFailure(
            f"Cluster configuration incomplete: Can't read ssconf file {path}:"
            f" [Errno 2] No such file or directory: '{path}'"
        )
    return name


@calls("test_delay")
def test_delay(node: SimulatedNode, duration: float) -> Deferred[None] | None:
    """Waits."""
    if duration < 0:
        raise NodeFailure("Invalid sleep duration")
    return node.world.wait(duration) if duration else None


@calls("node_activate_master_ip")
def node_activate_master_ip(
    node: SimulatedNode, parameters: Mapping[str, Any], external: bool
) -> None:
    """Brings the master's address up; twice is fine."""
    address = str(parameters["ip"])
    if master_address(node) != address:
        node.state.facts["master_address"] = address


@calls("node_deactivate_master_ip")
def node_deactivate_master_ip(
    node: SimulatedNode, parameters: Mapping[str, Any], external: bool
) -> None:
    """Takes the master's address down; twice is fine."""
    _ = parameters["ip"]
    node.state.facts.pop("master_address")


@calls("node_change_master_netmask")
def node_change_master_netmask(
    node: SimulatedNode, old: int, new: int, address: str, device: str
) -> None:
    """Changes the netmask of the master's address, which must be up."""
    if old != new and master_address(node) != address:
        raise NodeFailure("The master IP address is not up, not attempting to change its netmask")


@calls("node_has_ip_address")
def node_has_ip_address(node: SimulatedNode, address: str) -> bool:
    """Whether an address is one of this node's: loopback, the master's, its own by ssconf."""
    if address == master_address(node) or address.startswith("127."):
        return True
    for key in ("node_primary_ips", "node_secondary_ips"):
        if f"{node.name} {address}" in (node.ssconf(key) or "").splitlines():
            return True
    return False


@calls("node_start_master_daemons", "node_stop_master")
def master_daemons(node: SimulatedNode, *_: Any) -> None:
    """Leaves the master daemons alone: they aren't simulated."""


@calls("node_ensure_daemon")
def node_ensure_daemon(node: SimulatedNode, daemon: str, run: bool) -> bool:
    """Starts or stops a daemon; false for one that can't be asked for."""
    return daemon in DAEMONS


@calls("node_crypto_tokens")
def node_crypto_tokens(node: SimulatedNode, requests: Sequence[Sequence[Any]]) -> list[list[str]]:
    """The digest of the node's certificate for each request of kind ``ssl``."""
    tokens: list[list[str]] = []
    for kind, action, _ in requests:
        if kind not in ("ssl", "ssh"):
            raise ValueError(f"Token type '{kind}' not supported.")
        if action != "get":
            raise ValueError(f"Action '{action}' is not supported.")
        if kind == "ssl":
            tokens.append([kind, certificate_digest(node)])
    return tokens


@calls("node_demote_from_mc")
def node_demote_from_mc(node: SimulatedNode) -> None:
    """Takes the configuration away from a node that is no candidate any more."""
    if master_node_name(node) == node.name:
        raise NodeFailure("ssconf status shows I'm the master node, will not demote")
    held = node.state.files.pop(CONFIG_FILE)
    if held is not None:
        node.state.files[f"{CONFIG_FILE}.backup-{int(node.world.now())}"] = held


@calls("node_leave_cluster")
def node_leave_cluster(node: SimulatedNode, modify_ssh: bool) -> str:
    """Forgets everything. The daemon of a simulated node is at hand again at once."""
    node.state.wipe()
    return "Shutdown scheduled"


@calls("node_powercycle")
def node_powercycle(node: SimulatedNode, hypervisor: str, parameters: Mapping[str, Any]) -> str:
    """Restarts the machine: no instance runs, no mirror is active, another boot id."""
    known(hypervisor)
    for name in node.state.instances:
        node.state.instances.pop(name)
    node.state.facts["starts"] = (node.state.facts.get("starts") or 0) + 1
    return "Reboot scheduled in 5 seconds"


@calls("set_watcher_pause")
def set_watcher_pause(node: SimulatedNode, until: float | None) -> Deferred[None] | None:
    """Pauses the watcher until then (seconds since the epoch); null ends the pause."""
    if until is None:
        node.state.facts.pop("watcher_pause")
        return node.discard(PAUSE_FILE)
    if isinstance(until, bool) or not isinstance(until, (int, float)):
        raise NodeFailure("Duration must be numeric")
    node.state.facts["watcher_pause"] = int(until)
    return node.keep({PAUSE_FILE: StoredFile(0, f"{int(until)}\n", 0o644, "root", "root")})


@calls("get_watcher_pause")
def get_watcher_pause(node: SimulatedNode) -> int | None:
    """When the pause ends, or null if there is none now."""
    until = node.state.facts.get("watcher_pause")
    if until is None or node.world.now() > until:
        return None
    return int(until)


@calls("bridges_exist")
def bridges_exist(node: SimulatedNode, bridges: Sequence[str]) -> None:
    """Every bridge is there."""


@calls("etc_hosts_modify")
def etc_hosts_modify(node: SimulatedNode, mode: str, name: str, address: str | None) -> bool:
    """Takes a change of the hosts file, which a simulated node has no use for."""
    if mode not in ("add", "remove"):
        raise ValueError("Mode not supported")
    return True


@calls("export_list")
def export_list(node: SimulatedNode) -> list[str]:
    """The exports that are here."""
    exports = node.state.facts.get("exports")
    if exports is None:
        raise NodeFailure("No exports directory")
    return sorted(exports)


@calls("extstorage_diagnose")
def extstorage_diagnose(node: SimulatedNode) -> list[Any]:
    """No external storage providers."""
    return []


@calls("os_diagnose")
def os_diagnose(node: SimulatedNode) -> list[list[Any]]:
    """The installed operating systems."""
    return [
        [
            system.name,
            system.path,
            True,
            "",
            list(system.variants),
            [list(parameter) for parameter in system.parameters],
            list(system.api_versions),
            True,
        ]
        for system in node.systems
    ]


@calls("os_validate")
def os_validate(
    node: SimulatedNode,
    required: bool,
    name: str,
    checks: Sequence[str],
    parameters: Mapping[str, Any],
    force_variant: bool,
) -> bool:
    """Whether an operating system is here and takes the variant and parameters."""
    unknown = set(checks) - OS_CHECKS
    if unknown:
        raise NodeFailure(f"Unknown checks required for OS {name}: {unknown}")
    try:
        system = installed(node, name)
    except NodeFailure:
        if required:
            raise
        return False
    if not force_variant:
        _check_variant(system, name)
    if max(system.api_versions) >= OS_API_V20 and "parameters" in checks:
        wrong = sorted(set(parameters) - {parameter for parameter, _ in system.parameters})
        if wrong:
            raise NodeFailure(
                "The following parameters are not supported by the OS"
                f" {system.name}: {', '.join(wrong)}"
            )
    return True


@calls("instance_os_add")
def instance_os_add(
    node: SimulatedNode, instance: Mapping[str, Any], reinstall: bool, debug: int
) -> None:
    """Installs an operating system, which takes no time and leaves no trace."""
    installed(node, instance["os"])
    _ = instance["disks_info"]


@calls("instance_run_rename")
def instance_run_rename(
    node: SimulatedNode, instance: Mapping[str, Any], old_name: str, debug: int
) -> None:
    """Tells an operating system its new name."""
    installed(node, instance["os"])


def installed(node: SimulatedNode, name: str) -> OSDefinition:
    """Returns the definition of an operating system (its variant aside), or fails."""
    plain = name.partition("+")[0]
    for system in node.systems:
        if system.name == plain:
            return system
    raise NodeFailure(f"Directory for OS {plain} not found in search path")


def _check_variant(system: OSDefinition, name: str) -> None:
    variant = name.partition("+")[2]
    if not system.variants:
        if variant:
            raise NodeFailure(f"OS '{system.name}' does not support variants ('{variant}' passed)")
    elif not variant:
        raise NodeFailure(f"OS name '{name}' must include a variant")
    elif variant not in system.variants:
        raise NodeFailure(f"OS '{system.name}' does not support variant '{variant}'")
