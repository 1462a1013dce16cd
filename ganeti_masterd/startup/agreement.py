"""Asks the nodes whether this one is the master, and to bring up the master's address.

See protocol/startup.rst, The vote. This runs in a child process, before the daemon detaches
(:mod:`.child`); the result comes back as a :class:`VoteReport`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.steps.node_objects import master_address
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import INodeRPC, Target
from ganeti_masterd.startup.votes import PAUSE, TRIES, VoteOutcome, VoteVerdict, decide, vote_of
from ganeti_masterd.timing import Timers

#: Prints a line for the user who is starting the daemon.
Say = Callable[[str], object]


class ReportLine(Struct, frozen=True):
    """A line for the daemon's log."""

    level: Literal["info", "warn", "error"]
    text: str


class VoteReport(Struct, frozen=True):
    """The result of asking the nodes; ``refusal`` is why the daemon must not start, or None."""

    lines: list[ReportLine]
    refusal: str | None = None


class StartWishes(Struct, frozen=True):
    """Whether to hold the vote, to bring up the master's address, and to fail without it."""

    vote: bool = True
    master_ip: bool = True
    require_master_ip: bool = False


async def ask_nodes(
    nodes: INodeRPC, timers: Timers, snapshot: Snapshot, wishes: StartWishes, say: Say
) -> VoteReport:
    """Holds the vote, then has the master's address brought up, if ``wishes`` say so.

    ``say`` is called with a line for each round of votes that has to be repeated.
    """
    lines: list[ReportLine] = []
    if wishes.vote:
        verdict = await hold_vote(nodes, timers, snapshot, say)
        if verdict.outcome is VoteOutcome.LOST:
            return VoteReport(lines, f"This node must not act as master: {verdict.reason}")
        lines.append(ReportLine("info", f"This node is the master: {verdict.reason}"))
    else:
        lines.append(ReportLine("warn", "The nodes were not asked whether this one is the master"))
    if not wishes.master_ip:
        return VoteReport(lines)
    fault = await bring_up_address(nodes, snapshot)
    if fault is None:
        lines.append(ReportLine("info", f"The master's address {snapshot.cluster.master_ip} is up"))
    elif wishes.require_master_ip:
        return VoteReport(lines, fault)
    else:
        lines.append(ReportLine("error", fault))
    return VoteReport(lines)


async def hold_vote(nodes: INodeRPC, timers: Timers, snapshot: Snapshot, say: Say) -> VoteVerdict:
    """Asks all other nodes, including offline ones, until the verdict is not "again"."""
    master = snapshot.master
    others = [node for node in snapshot.nodes.values() if node.uuid != master.uuid]
    targets = list(map(Target.anyway, others))
    verdict = decide(master.name, [], 0)
    for tries_left in reversed(range(TRIES)):
        votes = await _votes(nodes, targets)
        verdict = decide(master.name, votes, tries_left)
        if verdict.outcome is not VoteOutcome.AGAIN:
            break
        say(f"{verdict.reason}; asking again in {PAUSE:g} s, {tries_left} times at most")
        await timers.sleep(PAUSE)
    return verdict


async def bring_up_address(nodes: INodeRPC, snapshot: Snapshot) -> str | None:
    """Has the master itself bring up the master's address; returns what is wrong, if anything."""
    master, cluster = snapshot.master, snapshot.cluster
    arguments = address_arguments(snapshot, master.uuid)
    results = await call_nodes(
        nodes, [Target.anyway(master)], calls.NODE_ACTIVATE_MASTER_IP, arguments
    )
    error = results[master.uuid].error
    if error is None:
        return None
    return f"The master's address {cluster.master_ip} can't be brought up on {master.name}: {error}"


def address_arguments(snapshot: Snapshot, master: str) -> tuple[dict[str, Any], bool]:
    """Returns the arguments of ``node_activate_master_ip`` and ``node_deactivate_master_ip``.

    ``master`` is the uuid of the node that has the address, or is to have it.
    """
    cluster = snapshot.cluster
    parameters = master_address(cluster, master, cluster.primary_ip_family)
    return parameters, cluster.use_external_mip_script


async def _votes(nodes: INodeRPC, targets: Sequence[Target]) -> list[str | None]:
    if not targets:
        return []
    results = await call_nodes(nodes, targets, calls.MASTER_NODE_NAME)
    return [None if each.failed else vote_of(each.payload) for each in results.values()]
