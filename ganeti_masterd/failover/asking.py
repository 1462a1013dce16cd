"""The calls that a fail-over makes to node daemons.

Each function makes the calls of one step and decides nothing. A node's failure is raised, or
returned as a value or a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import ssconf_values
from ganeti_masterd.failover.holdings import Held, OwnFiles, ids_to_ask
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.replication.calls import calls_for
from ganeti_masterd.replication.comparison import SLICE, CandidateComparison, digests_told
from ganeti_masterd.replication.states import ConfigFile, SentImage
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import INodeRPC, Target
from ganeti_masterd.startup.agreement import address_arguments
from ganeti_masterd.startup.votes import Vote, vote_of

#: Seconds for calls that noded answers at once, or after it has waited 10 s for the queue's lock.
PATIENCE = 30.0

#: Seconds for the old master's daemon to stop; daemon-util kills it after 30.
STOP_PATIENCE = 120.0


class NodeFailed(Exception):
    """A node did not do what it was asked to; the message has its name and the error."""


async def gather_votes(nodes: INodeRPC, others: Sequence[Target]) -> dict[str, Vote]:
    """Asks nodes for the master's name; the vote of one that doesn't answer is None."""
    if not others:
        return {}
    results = await call_nodes(nodes, others, calls.MASTER_NODE_NAME)
    return {
        target.name: None if (found := results[target.key]).failed else vote_of(found.payload)
        for target in others
    }


async def reachable(nodes: INodeRPC, targets: Sequence[Target]) -> set[str]:
    """Returns the names of those nodes whose daemons answer at all."""
    if not targets:
        return set()
    results = await call_nodes(nodes, targets, calls.VERSION, timeout=PATIENCE)
    return {target.name for target in targets if not results[target.key].failed}


async def answers(nodes: INodeRPC, target: Target) -> None:
    """Raises :class:`NodeFailed` unless a node's daemon answers."""
    await _one(nodes, target, "version", (), PATIENCE)


async def give_up_address(nodes: INodeRPC, old: Target, snapshot: Snapshot) -> None:
    """Has the old master take the master's address down; raises :class:`NodeFailed`."""
    await _one(nodes, old, "node_deactivate_master_ip", address_arguments(snapshot, old.key), None)


async def stop_master(nodes: INodeRPC, old: Target) -> None:
    """Has the old master's daemons stopped; raises :class:`NodeFailed` if one still runs.

    noded reports success even if a daemon couldn't be stopped. So a second call follows that takes
    the queue's lock and does nothing: it fails if a daemon of this project still holds the lock.
    luxid's lock is of another kind and doesn't make it fail.
    """
    await _one(nodes, old, "node_stop_master", (), STOP_PATIENCE)
    await _one(nodes, old, "jobqueue_rename", ([],), PATIENCE)


async def start_master(nodes: INodeRPC, own: Target, *, no_voting: bool) -> None:
    """Has this node's daemons started as on a master; raises :class:`NodeFailed`."""
    await _one(nodes, own, "node_start_master_daemons", (no_voting,), None)


async def holdings(
    nodes: INodeRPC, target: Target, files: QueueFiles, cluster_name: str, own: OwnFiles
) -> Held:
    """Asks a candidate which files it holds; raises :class:`NodeFailed`."""
    comparison = CandidateComparison(files, max(own.serial, *own.jobs, 0))
    while not comparison.complete:
        comparison.found(await _digests(nodes, target, comparison.paths(), cluster_name))
    asked = ids_to_ask(own, comparison.jobs)
    archived: dict[int, str] = {}
    for first in range(0, len(asked), SLICE):
        paths = {files.archived_job(job_id): job_id for job_id in asked[first : first + SLICE]}
        found = await _digests(nodes, target, list(paths), cluster_name)
        archived |= {paths[path]: digest for path, digest in found.items() if path in paths}
    return Held(target.name, comparison.config, comparison.serial, comparison.jobs, archived)


async def send_config(
    nodes: INodeRPC, targets: Sequence[Target], files: QueueFiles, image: SentImage
) -> list[str]:
    """Writes a configuration to candidates; returns a text for each failure."""
    ((procedure, arguments),) = calls_for([ConfigFile(image)], files)
    return await _each(nodes, targets, procedure, arguments)


async def send_ssconf(nodes: INodeRPC, targets: Sequence[Target], snapshot: Snapshot) -> list[str]:
    """Writes the simple configuration to nodes; returns a text for each failure."""
    return await _each(nodes, targets, "write_ssconf_files", (ssconf_values(snapshot),))


async def _digests(
    nodes: INodeRPC, target: Target, paths: Iterable[str], cluster_name: str
) -> Mapping[str, str]:
    arguments: list[Any] = [{"filelist": list(paths)}, cluster_name, {}]
    told = await _one(nodes, target, "node_verify", arguments, None)
    try:
        return digests_told(told)
    except ValueError as error:
        raise NodeFailed(f"{target.name}: {error}") from None


async def _one(
    nodes: INodeRPC, target: Target, procedure: str, arguments: Sequence[Any], timeout: float | None
) -> Any:
    results = await call_nodes(nodes, [target], CALLS[procedure], arguments, timeout=timeout)
    result = results[target.key]
    if result.error is not None:
        raise NodeFailed(f"{target.name}, call {procedure}: {result.error}")
    return result.payload


async def _each(
    nodes: INodeRPC, targets: Sequence[Target], procedure: str, arguments: Sequence[Any]
) -> list[str]:
    if not targets:
        return []
    results = await call_nodes(nodes, targets, CALLS[procedure], arguments, timeout=PATIENCE)
    return [
        f"{each.node}, call {procedure}: {each.error}"
        for each in results.values()
        if each.error is not None
    ]
