"""Sets up nodes in addition to their configuration: SSH keys, host names, daemons.

All of it is done by node calls, most of them to the master, which has the keys and the hosts file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.rpc.results import SSHFailures

P = TypeVar("P")

#: The daemon that notices instances that were shut down from within.
KVM_DAEMON = "ganeti-kvmd"


def add_ssh_key(ctx: Context, node: Node, *, candidate: bool, fetch: bool, failing: str) -> None:
    """Distributes a node's SSH key to the other nodes.

    With ``candidate`` the node may log in everywhere; with ``fetch`` it gets the others' public
    keys. Raises ``OpExecError`` with a message that begins with ``failing``.
    """
    snapshot = ctx.snapshot()
    arguments = (node.uuid, node.name, _names(snapshot), candidate, True, fetch)
    _exchange(ctx, calls.NODE_SSH_KEY_ADD, arguments, failing)


def add_candidate_key(ctx: Context, node: Node) -> None:
    """Lets a new master candidate log in everywhere; raises ``OpExecError``."""
    add_ssh_key(
        ctx,
        node,
        candidate=True,
        fetch=False,
        failing=f"Could not update the SSH setup of node '{node.name}' after promotion"
        f" (UUID: {node.uuid}).",
    )


def tell_demoted(ctx: Context, nodes: Iterable[Node]) -> None:
    """Makes demoted nodes set aside their candidates' files; a failure is a warning.

    Called once the configuration has their new role. Offline nodes are skipped.
    """
    online = [node.uuid for node in nodes if not node.offline]
    if not online:
        return
    for answer in ctx.call(online, calls.NODE_DEMOTE_FROM_MC).values():
        if answer.failed:
            ctx.warning(f"Node {answer.node} failed to demote itself: {answer.error}")


def remove_candidate_key(ctx: Context, node: Node) -> None:
    """Stops a former master candidate from logging in everywhere.

    Raises ``OpExecError``.
    """
    remove_ssh_key(
        ctx,
        node,
        authorized=True,
        public=False,
        failing=f"Could not adjust the SSH setup after demoting node '{node.name}'"
        f" (UUID: {node.uuid}).",
    )


def remove_ssh_key(
    ctx: Context,
    node: Node,
    *,
    authorized: bool,
    public: bool,
    clear: tuple[bool, bool] = (False, False),
    readd: bool = False,
    failing: str,
) -> None:
    """Removes a node's SSH key from the other nodes.

    ``authorized``: the node may no longer log in. ``public``: its public key is forgotten.
    ``clear``: the node's own files of authorized and public keys are emptied. Raises
    ``OpExecError`` with a message that begins with ``failing``.
    """
    snapshot = ctx.snapshot()
    candidates = [one.uuid for one in snapshot.candidates()]
    arguments = (
        node.uuid,
        node.name,
        candidates,
        _names(snapshot),
        authorized,
        public,
        *clear,
        readd,
    )
    _exchange(ctx, calls.NODE_SSH_KEY_REMOVE, arguments, failing)


def change_hosts(ctx: Context, mode: str, name: str, address: str | None) -> None:
    """Adds a node to the master's hosts file (mode "add") or removes it ("remove").

    Raises ``OpExecError``.
    """
    answer = _on_master(ctx, calls.ETC_HOSTS_MODIFY, (mode, name, address))
    answer.require("Can't update hosts file with new host data")


def ensure_kvm_daemon(ctx: Context, nodes: Iterable[str], *, silent: bool) -> None:
    """Starts or stops the KVM daemon on nodes (uuids), as the configuration requires.

    It must run if instances may be shut down from within and the node can have instances. Failures
    are logged; with ``silent`` only failures to start it.
    """
    snapshot = ctx.snapshot()
    cluster = snapshot.cluster
    used = "kvm" in cluster.enabled_hypervisors and cluster.enabled_user_shutdown
    known = [snapshot.nodes[uuid] for uuid in nodes if uuid in snapshot.nodes]
    for run, doing in ((True, "start"), (False, "stop")):
        chosen = [node.uuid for node in known if (used and node.vm_capable) is run]
        if not chosen:
            continue
        for answer in ctx.call(chosen, calls.NODE_ENSURE_DAEMON, (KVM_DAEMON, run)).values():
            if answer.failed and not answer.offline and (run or not silent):
                ctx.feedback(
                    f"Failed to {doing} KVM daemon on node '{answer.node}': {answer.error}"
                )


def set_up_switch(ctx: Context, params: Mapping[str, Any], node: Node) -> None:
    """Has a new node set up its virtual switch, if its parameters (in effect) ask for one.

    Raises ``OpExecError``.
    """
    if not params.get("ovs"):
        return
    link = params.get("ovs_link")
    if not link:
        ctx.info(
            "No physical interface for OpenvSwitch was given. OpenvSwitch will not have an"
            " outside connection. This might not be what you want."
        )
    answer = ctx.call_one(
        Target.anyway(node), calls.NODE_CONFIGURE_OVS, (params.get("ovs_name"), link)
    )
    answer.require("Failed to initialize OpenVSwitch on new node")


def _on_master(ctx: Context, call: Call[P], arguments: Sequence[object]) -> NodeResult[P]:
    return ctx.call_one(ctx.snapshot().master.uuid, call, arguments)


def _names(snapshot: Snapshot) -> list[str]:
    """Returns the names of all nodes, as each may become a candidate (real daemon 3.0.2)."""
    return [node.name for node in snapshot.nodes.values()]


def _exchange(
    ctx: Context, call: Call[SSHFailures], arguments: Sequence[object], failing: str
) -> None:
    """Has the master change keys everywhere; logs the nodes where that failed."""
    failures = _on_master(ctx, call, arguments).require(failing)
    if failures:
        ctx.feedback("Some nodes' SSH key files could not be updated:")
        for name, text in failures:
            ctx.feedback(f"{name}: {text}")
