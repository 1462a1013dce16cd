"""A new size of the pool of master candidates: nodes join it, or leave it.

A pool that is too small is filled up, as everywhere. One that is too large is
made smaller here and nowhere else: candidates beyond the new size are demoted,
never the master, those whose names come last first. (The real master daemon
3.0.2 leaves them as they are, and says that they are too many.)
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
    """Makes ``change``, which sets the pool's size, and with it the roles of nodes.

    All of that in one transaction; the nodes are told afterwards, and what fails
    on them is a warning. Of the candidates beyond ``size`` those are demoted whose
    locks the job holds: where others joined meanwhile it is noted that there are
    too many. Raises as ``change_pool``; to be used where a kill is put off.
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
    """Says who was demoted, and lets these nodes and the others know."""
    names = natural(node.name for node in demoted)
    ctx.info(f"Demoted nodes from master candidate role: {', '.join(names)}")
    tell_demoted(ctx, demoted)
    if not ctx.snapshot().cluster.modify_ssh_setup:
        return
    for node in demoted:
        with only_warned_of(ctx):
            remove_candidate_key(ctx, node)
