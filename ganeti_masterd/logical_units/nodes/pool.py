"""Promotes and demotes master candidates, with their certificates.

A candidate may call node daemons, so its certificate's digest is in the configuration. Digests are
asked for first; then the roles, the digests and any related changes are made in one transaction. So
a node that doesn't answer leaves nothing half done. (The real master daemon 3.0.2 changes the role
first.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.candidates import may_be_candidate, pool, promotions
from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Cluster, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ConfigurationError, OpExecError
from ganeti_masterd.logical_units.base import names_of
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.setup import add_candidate_key
from ganeti_masterd.logical_units.steps.half_done import only_warned_of
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult, Target

#: How many times a transaction is planned if the pool changes meanwhile.
TRIES = 20

#: The argument of the call that asks a node for its certificate's digest.
DIGEST_REQUEST = [["ssl", "get", None]]


class PoolMoved(ConfigurationError):
    """The pool has changed since a change was planned."""


class PoolChange(Struct, frozen=True):
    """A transaction that touches the pool.

    ``changes`` make the nodes in ``joining`` candidates; the nodes in ``leaving`` (uuids) aren't
    candidates afterwards, whether or not they were before, see :func:`demotion`. With ``refill``
    other nodes are promoted until the pool is full without those leaving. ``size`` is the new pool
    size if that changes, too.
    """

    changes: tuple[Change, ...]
    joining: tuple[Node, ...] = ()
    leaving: frozenset[str] = frozenset()
    refill: bool = False
    size: int | None = None


PoolPlan = Callable[[Snapshot], PoolChange]


def change_pool(ctx: Context, plan: PoolPlan) -> tuple[Node, ...]:
    """Makes the change that ``plan`` returns; returns the promoted nodes.

    ``plan`` is called with the current configuration, and again if another job has changed the pool
    meanwhile; it may raise. Raises ``OpExecError``, with nothing changed, if a joining node doesn't
    return its certificate's digest, or if the pool would shrink because no node that could be
    promoted does. A failure after the change is a warning. Must be called where a kill is deferred.
    """
    digests: dict[str, str] = {}
    silent: dict[str, NodeResult[Any]] = {}
    for _ in range(TRIES):
        snapshot = ctx.snapshot()
        change = plan(snapshot)
        promoted = _promoted(snapshot, change, silent)
        unknown = [n for n in (*change.joining, *promoted) if n.uuid not in digests]
        if unknown:
            answers = ask_digests(ctx, unknown)
            for node in unknown:
                digest = digest_of(answers[node.uuid])
                if digest is not None:
                    digests[node.uuid] = digest
                elif node in change.joining:
                    raise _no_digest(answers[node.uuid])
                else:
                    silent[node.uuid] = answers[node.uuid]
            continue
        if silent:
            _check_full(ctx, snapshot, change, promoted, silent)
        try:
            ctx.change_all(_transaction(snapshot, change, promoted, digests))
        except PoolMoved:
            continue
        if change.refill:
            _tell(ctx, change, promoted)
        return promoted
    raise OpExecError("The master candidates kept changing; nothing was done, try again")


def ask_digests(ctx: Context, nodes: Iterable[Node]) -> Mapping[str, NodeResult[Any]]:
    """Asks nodes for their certificates' digests; returns the answers by uuid."""
    return ctx.call(map(Target.anyway, nodes), calls.NODE_CRYPTO_TOKENS, (DIGEST_REQUEST,))


def digest_of(answer: NodeResult[Any]) -> str | None:
    """Returns the digest in a node's answer, or None if there is none."""
    if not answer.failed:
        for kind, digest in answer.payload:
            if kind == "ssl":
                return str(digest)
    return None


def certified(
    planned: Cluster, joined: Mapping[str, str], left: Collection[str]
) -> Callable[[Cluster], Cluster]:
    """Returns a function that updates the cluster's certificates, for a transaction on the pool.

    It raises :class:`PoolMoved` if the candidates, or the number that there should be, have changed
    since ``planned``.
    """

    def change(cluster: Cluster) -> Cluster:
        if (
            cluster.candidate_certs.keys() != planned.candidate_certs.keys()
            or cluster.candidate_pool_size != planned.candidate_pool_size
        ):
            raise PoolMoved("the master candidates have changed")
        kept = {uuid: d for uuid, d in cluster.candidate_certs.items() if uuid not in left}
        certs = {**kept, **joined}
        if certs == cluster.candidate_certs:
            return cluster
        return replace(cluster, candidate_certs=certs)

    return change


def _transaction(
    snapshot: Snapshot,
    change: PoolChange,
    promoted: Sequence[Node],
    digests: Mapping[str, str],
) -> list[Change]:
    joined = {node.uuid: digests[node.uuid] for node in (*change.joining, *promoted)}
    cluster = snapshot.cluster
    return [
        Update(cluster.uuid, certified(cluster, joined, change.leaving)),
        *change.changes,
        *(Update(node.uuid, _promote) for node in promoted),
    ]


def demotion(node: Node) -> Update:
    """Returns the change that demotes a node, for a transaction on the pool."""
    return Update(node.uuid, _demote)


def _demote(node: Node) -> Node:
    if not node.master_candidate:
        raise PoolMoved(f"node '{node.name}' has changed")
    return replace(node, master_candidate=False)


def _promote(node: Node) -> Node:
    if node.master_candidate or not may_be_candidate(node):
        raise PoolMoved(f"node '{node.name}' has changed")
    return replace(node, master_candidate=True)


def _promoted(snapshot: Snapshot, change: PoolChange, unfit: Collection[str]) -> tuple[Node, ...]:
    if not change.refill:
        return ()
    return promotions(snapshot, size=change.size, without=change.leaving, unfit=unfit)


def _check_full(
    ctx: Context,
    snapshot: Snapshot,
    change: PoolChange,
    promoted: Sequence[Node],
    silent: Mapping[str, NodeResult[Any]],
) -> None:
    """Refuses to let the pool shrink because nodes that could be promoted don't answer."""
    short = pool(snapshot, size=change.size, without=change.leaving).missing - len(promoted)
    if short <= 0:
        return
    reasons = "; ".join(f"{answer.node}: {answer.error}" for answer in silent.values())
    text = (
        f"Not enough master candidates: {short} more would have to be promoted, but these nodes"
        f" do not tell their certificate ({reasons})"
    )
    if short > pool(snapshot).missing:
        raise OpExecError(f"{text}; set them offline first")
    ctx.warning(text)


def _no_digest(answer: NodeResult[Any]) -> OpExecError:
    return OpExecError(
        f"Could not retrieve the SSL digest of node {answer.node}:"
        f" {answer.error or 'it has no certificate'}"
    )


def _tell(ctx: Context, change: PoolChange, promoted: Sequence[Node]) -> None:
    """Logs the promoted nodes, and lets them log in to the others."""
    snapshot = ctx.snapshot()
    if promoted:
        names = names_of(snapshot, [node.uuid for node in promoted])
        ctx.info(f"Promoted nodes to master candidate role: {names}")
        if snapshot.cluster.modify_ssh_setup:
            for node in promoted:
                with only_warned_of(ctx):
                    add_candidate_key(ctx, node)
    found = pool(snapshot, without=change.leaving)
    if found.surplus:
        ctx.info(f"Note: more nodes are candidates ({found.now}) than desired ({found.wanted})")
