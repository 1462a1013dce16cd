"""Calls about a simulated node as a member of the cluster.

A node's facts (:attr:`NodeState.facts`) are: ``master_address``, the master's address if it is up
here; ``watcher_pause``, the end of the watcher's pause; ``starts``, the number of restarts;
``unallocatable``, physical volumes that accept no new volumes; ``keys``, certificates by name;
``exports``, the names of exports without content, which exist once the directory of exports does;
``switches``, Open vSwitches with their links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.constants import PROTOCOL_VERSION
from ganeti_masterd.simulation import scripts, volumes
from ganeti_masterd.simulation.hypervisor import SimulatedHypervisorError, known
from ganeti_masterd.simulation.node import (
    CONFIG_FILE,
    DATA_DIR,
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
    member,
)
from ganeti_masterd.simulation.state import StoredFile

calls = Implementations()
calls.functions.update(scripts.calls.functions)

PAUSE_FILE = DATA_DIR + "/watcher.pause"
DAEMONS = frozenset({"ganeti-kvmd"})


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
    """Returns the master's name in this node's ssconf."""
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
    """Brings the master's address up; does nothing if it is up."""
    address = str(member(parameters, "ip"))
    if master_address(node) != address:
        node.state.facts["master_address"] = address


@calls("node_deactivate_master_ip")
def node_deactivate_master_ip(
    node: SimulatedNode, parameters: Mapping[str, Any], external: bool
) -> None:
    """Takes the master's address down; does nothing if it is down."""
    _ = member(parameters, "ip")
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
    """Starts or stops a daemon; returns False for one that can't be controlled."""
    return daemon in DAEMONS


@calls("node_crypto_tokens")
def node_crypto_tokens(node: SimulatedNode, requests: Sequence[Sequence[Any]]) -> list[list[str]]:
    """The digest of the node's certificate for each request of kind ``ssl``."""
    tokens: list[list[str]] = []
    for kind, action, _ in requests:
        if kind not in ("ssl", "ssh"):
            raise Unexpected(f"Token type '{kind}' not supported.")
        if action != "get":
            raise Unexpected(f"Action '{action}' is not supported.")
        if kind == "ssl":
            tokens.append([kind, certificate_digest(node)])
    return tokens


@calls("node_demote_from_mc")
def node_demote_from_mc(node: SimulatedNode) -> None:
    """Removes the configuration from a node that is no longer a candidate."""
    if master_node_name(node) == node.name:
        raise NodeFailure("ssconf status shows I'm the master node, will not demote")
    held = node.state.files.pop(CONFIG_FILE)
    if held is not None:
        node.state.files[f"{CONFIG_FILE}.backup-{int(node.world.now())}"] = held


@calls("node_leave_cluster")
def node_leave_cluster(node: SimulatedNode, modify_ssh: bool) -> str:
    """Forgets everything; the node answers again at once, as a new one."""
    restart(node)
    for path, _ in volumes.of_node(node):
        volumes.remove(node, path)
    node.state.wipe()
    return "Shutdown scheduled"


@calls("node_powercycle")
def node_powercycle(node: SimulatedNode, hypervisor: str, parameters: Mapping[str, Any]) -> str:
    """Restarts the machine."""
    try:
        known(hypervisor)
    except SimulatedHypervisorError as error:
        raise Unexpected(str(error))
    restart(node)
    return "Reboot scheduled in 5 seconds"


def restart(node: SimulatedNode) -> None:
    """Restarts the machine: no instance runs, no mirror is up, the boot id changes."""
    world = node.world
    for name in node.state.instances:
        node.state.instances.pop(name)
    for minor in world.mirrors.of_node(node.name):
        world.mirrors.lose(node.name, minor)
    world.transfers.lose(node.name)
    node.state.facts["starts"] = (node.state.facts.get("starts") or 0) + 1


@calls("set_watcher_pause")
def set_watcher_pause(node: SimulatedNode, until: float | None) -> Deferred[None] | None:
    """Pauses the watcher until then (seconds since the epoch); None ends the pause."""
    if until is None:
        node.state.facts.pop("watcher_pause")
        return node.discard(PAUSE_FILE)
    if isinstance(until, bool) or not isinstance(until, (int, float)):
        raise NodeFailure("Duration must be numeric")
    node.state.facts["watcher_pause"] = int(until)
    return node.keep({PAUSE_FILE: StoredFile(0, f"{int(until)}\n", 0o644, "root", "root")})


@calls("get_watcher_pause")
def get_watcher_pause(node: SimulatedNode) -> int | None:
    """When the pause ends, or None if there is none now."""
    until = node.state.facts.get("watcher_pause")
    if until is None or node.world.now() > until:
        return None
    return int(until)


@calls("bridges_exist")
def bridges_exist(node: SimulatedNode, bridges: Sequence[str]) -> None:
    """Fails if a bridge is missing."""
    missing = missing_bridges(node, bridges)
    if missing:
        raise NodeFailure(f"Missing bridges {', '.join(missing)}")


def missing_bridges(node: SimulatedNode, bridges: Sequence[str]) -> list[str]:
    """Returns those of the bridges that aren't there."""
    there = node.hardware.bridges
    switches = node.state.facts.get("switches") or {}
    return (
        []
        if there is None
        else [name for name in bridges if name not in there and name not in switches]
    )


@calls("etc_hosts_modify")
def etc_hosts_modify(node: SimulatedNode, mode: str, name: str, address: str | None) -> bool:
    """Accepts a change of the hosts file, which a simulated node doesn't have."""
    if mode not in ("add", "remove"):
        raise Unexpected("Mode not supported")
    return True


@calls("node_configure_ovs")
def node_configure_ovs(node: SimulatedNode, name: str, link: str | None) -> None:
    """Creates an Open vSwitch if it doesn't exist, and connects it; it then is a bridge."""
    node.state.facts["switches"] = {**(node.state.facts.get("switches") or {}), name: link}


@calls("node_ssh_key_add")
def node_ssh_key_add(
    node: SimulatedNode,
    uuid: str,
    name: str,
    candidates: Sequence[str],
    to_authorized: bool,
    to_public: bool,
    get_public: bool,
) -> None:
    """Adds a node's key on all nodes, if ``to_authorized`` is set."""
    if to_authorized:
        _let_in(node, {**_ssh_keys(node), uuid: name})


@calls("node_ssh_key_remove")
def node_ssh_key_remove(node: SimulatedNode, uuid: str, name: str, *_: Any) -> None:
    """Removes a node's key from all nodes."""
    _let_in(node, {key: held for key, held in _ssh_keys(node).items() if key != uuid})


@calls("node_ssh_keys_renew")
def node_ssh_keys_renew(
    node: SimulatedNode, uuids: Sequence[str], names: Sequence[str], *_: Any
) -> None:
    """Gives nodes new keys; authorized ones stay authorized."""
    if len(uuids) != len(names):
        raise NodeFailure("List of node UUIDs and node names does not match in length.")


def _ssh_keys(node: SimulatedNode) -> dict[str, str]:
    return dict(node.world.cluster.facts.get("ssh_keys") or {})


def _let_in(node: SimulatedNode, keys: dict[str, str]) -> None:
    node.world.cluster.facts["ssh_keys"] = keys
