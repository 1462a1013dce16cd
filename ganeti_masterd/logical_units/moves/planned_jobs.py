"""Jobs that move instances: read from an allocator's answer, ordered, and submitted.

The jobs check everything again, as the locks of the opcode that plans them end with it
(real daemon 3.0.2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import TypeVar

from msgspec.structs import replace

from ganeti_masterd.allocation.results import Moves
from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.instance_disks import InstanceReplaceDisks
from ganeti_masterd.opcodes.targets import InstanceOpcode

T = TypeVar("T")

PlannedJobs = list[list[Opcode]]


def jobs_of(
    ctx: Context,
    moves: Moves,
    asked: Collection[str],
    *,
    early_release: bool,
    shows_nodes: bool = False,
) -> PlannedJobs:
    """Returns the jobs of an allocator's answer; says in the log which instances go where.

    ``asked`` are the names of the instances that it was asked about; where they go is shown
    as their nodes, or their group. ``early_release`` is set wherever it has a meaning.

    Raises ``OpExecError``, and nothing moves, if any instance can't be moved, or if the
    answer is about others.
    """
    if moves.failed:
        reasons = ", ".join(f"{one.name} ({one.reason})" for one in moves.failed)
        text = f"Unable to evacuate instances {reasons}"
        ctx.warning(text)
        raise OpExecError(text)
    _check_answer(moves, asked)
    if moves.moved:
        where = ", ".join(
            f"{one.name} (to {', '.join(one.nodes) if shows_nodes else one.group})"
            for one in moves.moved
        )
        ctx.info(f"Instances to be moved: {where}")
    return [[_released(op, early_release) for op in job] for job in moves.jobs]


def _check_answer(moves: Moves, asked: Collection[str]) -> None:
    """Checks that an answer is about the instances of the question, each of them."""
    told = {one.name for one in moves.moved}
    told.update(name for job in moves.jobs for name in _instances(job))
    outside = natural(told - set(asked))
    if outside:
        raise OpExecError(
            f"The allocator moves instances that it wasn't asked about: {', '.join(outside)}"
        )
    missing = natural(set(asked) - told)
    if missing:
        raise OpExecError(
            f"The allocator says nothing about instances that are to be moved: {', '.join(missing)}"
        )


def _instances(job: Iterable[Opcode]) -> set[str]:
    return {op.instance_name for op in job if isinstance(op, InstanceOpcode)}


def _released(op: Opcode, early_release: bool) -> Opcode:
    if isinstance(op, InstanceReplaceDisks):
        return replace(op, early_release=early_release)
    return op


def nodes_of_jobs(snapshot: Snapshot, moves: Moves) -> list[set[str]]:
    """Returns for each job of an answer the nodes (uuids) that it works on. Pure.

    Those that its instances have and are to have; names that aren't known are left out.
    """
    new = {one.name: one.nodes for one in moves.moved}
    found = []
    for job in moves.jobs:
        nodes: set[str] = set()
        for name in _instances(job):
            instance = snapshot.lookup("instance", name)
            nodes.update(snapshot.nodes_of(instance) if instance is not None else ())
            known = (snapshot.lookup("node", node) for node in new.get(name, ()))
            nodes.update(node.uuid for node in known if node is not None)
        found.append(nodes)
    return found


def side_by_side(jobs: Sequence[T], nodes: Sequence[Collection[str]]) -> list[T]:
    """Returns jobs in an order in which many can run at the same time. Pure.

    ``nodes`` are those that each job works on. Jobs that share a node wait for each
    other in the order of their ids, and whatever needs one of their nodes waits behind
    them. So the jobs come in waves: within one no two share a node, and each is in the
    first wave where it can be.
    """
    taken: dict[str, set[int]] = {}
    waves = []
    for used in nodes:
        busy = set().union(*(taken.get(node, ()) for node in used))
        wave = next(each for each in count() if each not in busy)
        for node in used:
            taken.setdefault(node, set()).add(wave)
        waves.append(wave)
    order = sorted(range(len(jobs)), key=waves.__getitem__)
    return [jobs[index] for index in order]


def without_planned(ctx: Context, instances: Iterable[Instance]) -> list[Instance]:
    """Returns those instances that exist, in natural order; the others are named in the log.

    Forthcoming ones have no disks yet that could be moved.
    """
    found = {one.name: one for one in instances}
    planned = natural(name for name, one in found.items() if one.forthcoming)
    if planned:
        ctx.warning(f"Forthcoming instances stay where they are planned: {', '.join(planned)}")
    return [found[name] for name in natural(found) if not found[name].forthcoming]
