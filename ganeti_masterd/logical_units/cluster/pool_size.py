"""Changes the size of the pool of master candidates: nodes are promoted or demoted.

A pool that is too small is filled up, as in other opcodes. Only here is one that is too large made
smaller: candidates beyond the new size are demoted, last names first, but never the master. (The
real master daemon 3.0.2 doesn't demote any, and only warns that there are too many.)
"""

from __future__ import annotations

from collections.abc import Callable

from ganeti_masterd.config.candidates import demotions
from ganeti_masterd.config.changes import Update
from ganeti_masterd.config.objects import Cluster, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.pool import PoolChange, change_pool, demotion
from ganeti_masterd.logical_units.nodes.setup import remove_candidate_key, tell_demoted
from ganeti_masterd.logical_units.steps.half_done import only_warned_of


def resize_pool(ctx: Context, size: int, change: Callable[[Cluster], Cluster]) -> None:
    """Makes ``change``, which sets the pool's size, and adjusts the roles of nodes.

    All of that is one transaction; the nodes are notified afterwards, and a failure there is a
    warning. Of the candidates beyond ``size`` only those whose locks the job holds are demoted: if
    others joined meanwhile, the log says that there are too many. Raises like ``change_pool``; must
    be called where a kill is deferred.
    """
    demoted: tuple[Node, ...] = ()

    def plan(snapshot: Snapshot) -> PoolChange:
        nonlocal demoted
        demoted = demotions(snapshot, size=size, among=ctx.owned(Level.NODE))
        return PoolChange(
            (Update(snapshot.cluster.uuid, change), *map(demotion, demoted)),
            leaving=frozenset(node.uuid for node in demoted),
            refill=True,
            size=size,
        )

    change_pool(ctx, plan)
    if demoted:
        _tell(ctx, demoted)


def _tell(ctx: Context, demoted: tuple[Node, ...]) -> None:
    """Logs the demoted nodes, and notifies them and the others."""
    names = natural(node.name for node in demoted)
    ctx.info(f"Demoted nodes from master candidate role: {', '.join(names)}")
    tell_demoted(ctx, demoted)
    if not ctx.snapshot().cluster.modify_ssh_setup:
        return
    for node in demoted:
        with only_warned_of(ctx):
            remove_candidate_key(ctx, node)
