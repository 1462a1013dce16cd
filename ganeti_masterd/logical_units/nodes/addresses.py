"""Names and addresses of nodes: look-ups and checks.

The checks are the real master daemon's (3.0.2) with one difference: whether an address answers is
checked by the master's node daemon (``node_verify``), as all traffic to nodes is RPC here. The real
daemon connects to the address itself.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping

from msgspec import Struct

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    ECODE_ENVIRON,
    ECODE_INVAL,
    ECODE_NOTUNIQUE,
    ECODE_RESOLVER,
    OpExecError,
    OpPrereqError,
    ResultValidationError,
    prereq,
)
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.checks import is_ipv4_address, is_ipv6_address
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.rpc.results import parse

_HOST_NAME = re.compile(r"[a-z0-9._-]{1,255}")


class ResolvedHost(Struct, frozen=True):
    """A host: its full name and its address."""

    name: str
    address: str


def normal_name(name: str) -> str:
    """Returns a host name in lower case without a final dot; raises ``OpPrereqError``."""
    name = name.lower()
    if not _HOST_NAME.fullmatch(name) or ".." in name or name.startswith("."):
        raise prereq(f"Invalid hostname '{name}'")
    return name.rstrip(".")


def look_up(name: str, family: int) -> ResolvedHost:
    """Returns the full name and first address of a host, of a family (2: IPv4, 10: IPv6).

    Blocks as long as the system's resolver does. Raises ``OpPrereqError`` with ``resolver_error``
    if the name doesn't resolve.
    """
    full = normal_name(socket.getfqdn(name))
    try:
        found = socket.getaddrinfo(full, None, family)
    except OSError as error:
        raise prereq(f"The given name ({full}) does not resolve: {error.strerror}", ECODE_RESOLVER)
    return ResolvedHost(full, str(found[0][4][0]))


def given(name: str, address: str, family: int) -> ResolvedHost:
    """Returns a host with a given address; raises ``OpPrereqError`` if that is invalid."""
    valid = is_ipv4_address if family == socket.AF_INET else is_ipv6_address
    if not valid(address):
        version = 4 if family == socket.AF_INET else 6
        raise prereq(f"Primary IP ({address}) needs to be a valid IPv{version} address")
    return ResolvedHost(normal_name(name), address)


def check_secondary(address: str) -> None:
    """Refuses a secondary address that isn't an IPv4 address."""
    if not is_ipv4_address(address):
        raise prereq(f"Secondary IP ({address}) needs to be a valid IPv4 address")


def check_unused(others: Iterable[Node], primary: str, secondary: str) -> None:
    """Refuses addresses that another node has."""
    for node in others:
        if {node.primary_ip, node.secondary_ip} & {primary, secondary}:
            raise OpPrereqError(
                f"New node ip address(es) conflict with existing node {node.name}", ECODE_NOTUNIQUE
            )


def check_homing(master: Node, primary: str, secondary: str) -> None:
    """Refuses a node unless it and the master both have, or both lack, a secondary address."""
    master_single = master.primary_ip == master.secondary_ip
    if master_single == (primary == secondary):
        return
    if master_single:
        raise prereq("The master has no secondary ip but the new node has one", ECODE_INVAL)
    raise prereq("The master has a secondary ip but the new node doesn't have one", ECODE_INVAL)


def check_reachable(ctx: Context, snapshot: Snapshot, node: Node) -> None:
    """Refuses a node whose addresses don't answer from the master's; raises ``OpPrereqError``."""
    master = snapshot.master
    rows = [[one.name, one.primary_ip, one.secondary_ip] for one in (master, node)]
    checks = {"node-net-test": [rows, [master.name]]}
    answer = verify_on_master(ctx, snapshot, checks)
    answer_text = answer.get("node-net-test", {}).get(node.name)
    if answer_text:
        raise prereq(
            f"Node secondary ip not reachable by TCP based ping to node daemon port: {answer_text}",
            ECODE_ENVIRON,
        )


def check_holds(ctx: Context, node: Node, address: str, *, prerequisite: bool) -> None:
    """Checks that a node has an address.

    Raises ``OpPrereqError`` with ``environment_error`` if ``prerequisite``, else
    ``OpExecError``.
    """
    answer = ctx.call_one(Target.anyway(node), calls.NODE_HAS_IP_ADDRESS, (address,))
    there = answer.require(
        f"Failure checking secondary ip on node {node.name}", prereq=prerequisite
    )
    if not there:
        text = (
            f"Node claims it doesn't have the secondary ip you gave ({address}), please fix and"
            " re-run this command"
        )
        raise OpPrereqError(text, ECODE_ENVIRON) if prerequisite else OpExecError(text)


def verify_on_master(
    ctx: Context, snapshot: Snapshot, checks: Mapping[str, object]
) -> dict[str, dict[str, str]]:
    """Returns the master's node daemon's results of some checks; raises ``OpExecError``."""
    cluster = snapshot.cluster
    arguments = (checks, cluster.cluster_name, cluster.hvparams)
    answer = ctx.call_one(snapshot.master.uuid, calls.NODE_VERIFY, arguments)
    payload = answer.require("The master's node daemon can't check")
    try:
        return parse(payload, dict[str, dict[str, str]], answer.procedure)
    except ResultValidationError as error:
        raise OpExecError(f"The master's node daemon can't check: {error}")
