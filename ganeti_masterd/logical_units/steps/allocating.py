"""How an opcode has an allocator find nodes: nodes are asked, the allocator, its answer read.

An installed script decides, or the allocator that is built in: where the
cluster has no default, where its default isn't installed, and by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ganeti_masterd.allocation import builtin
from ganeti_masterd.allocation.desk import NodeAnswers, PendingPlace, PlaceWanted
from ganeti_masterd.allocation.document import Questions, document, questions
from ganeti_masterd.allocation.requests import Allocate, AllocationRequest, MultiAllocate
from ganeti_masterd.allocation.scripts import AllocatorMissing, read_answer
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_NORES, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc import calls


def find_nodes(
    ctx: Context, request: AllocationRequest, name: str | None = None, *, what: str = "nodes"
) -> Any:
    """Returns what ``request`` reads of the answer of an allocator, None for the default one.

    ``what`` it is to find is for the message if it can't. Raises as :func:`find_nodes_by`.
    """
    return find_nodes_by(ctx, request, name, what=what)[1]


def find_nodes_by(
    ctx: Context, request: AllocationRequest, name: str | None = None, *, what: str = "nodes"
) -> tuple[str, Any]:
    """Returns the name of the allocator that was asked, and what :func:`find_nodes` returns.

    Raises ``OpPrereqError`` with ``insufficient_resources`` if it finds nothing,
    ``OpExecError`` if a node or the allocator can't be asked, and
    ``ResultValidationError`` if its answer isn't one.
    """
    told = describe(ctx, request)
    chosen, text = (
        ask_default(ctx, told, request.options)
        if name is None
        else (
            name,
            ask(ctx, name, told, request.options),
        )
    )
    answer = read_answer(text)
    if not answer.success:
        raise prereq(
            f"Can't compute {what} using iallocator '{chosen}': {answer.info}", ECODE_NORES
        )
    for warning in answer.warnings:
        ctx.warning(warning)
    return chosen, request.read(answer.result, told)


def place_ahead(ctx: Context, request: Allocate, name: str | None) -> PendingPlace | None:
    """Returns a place for a new instance, chosen without locks and pending until the job ends.

    None if there is none, or if another allocator than the built-in one is to decide: these
    take all nodes for themselves. Whoever holds the nodes' locks afterwards checks whether
    the place still holds. Raises ``OpExecError`` if a node can't be asked.
    """
    if (name or ctx.snapshot().cluster.default_iallocator or builtin.NAME) != builtin.NAME:
        return None
    wanted = PlaceWanted(ctx.job_id, request)
    return ctx.desk.place(wanted, lambda batch: _place_all(ctx, batch), ctx.checkpoint)


def _place_all(ctx: Context, batch: Sequence[PlaceWanted]) -> None:
    kept = ctx.desk.answers
    if kept is not None and kept.serve(batch[0].request, ctx.snapshot(), ctx.seconds()):
        snapshot, found = _places(ctx, batch, kept)
        if all(found):
            _settle(ctx, batch, snapshot, found)
            return
    snapshot, found = _places(ctx, batch, _fresh_answers(ctx, batch))
    _settle(ctx, batch, snapshot, found)


def _fresh_answers(ctx: Context, batch: Sequence[PlaceWanted]) -> NodeAnswers:
    before, now = ctx.snapshot(), ctx.seconds()
    first = batch[0].request
    asked = questions(before, first)
    info, running = _ask_nodes(ctx, asked)
    answers = ctx.desk.answers = NodeAnswers(first, before, now, asked, info, running)
    return answers


def _places(
    ctx: Context, batch: Sequence[PlaceWanted], answers: NodeAnswers
) -> tuple[Snapshot, list[list[str]]]:
    """Returns the configuration that was looked at, and each job's nodes, none without a place."""
    request = MultiAllocate(instances=[each.request for each in batch])
    # In this order: what was made and isn't pending any more is in the configuration.
    pending = ctx.desk.others()
    snapshot = ctx.snapshot()
    unseen = snapshot.instances.keys() - answers.before.instances.keys()
    found = builtin.place_each(
        document(
            snapshot,
            request,
            answers.asked,
            answers.info,
            answers.running,
            ctx.desk.descriptions,
        ),
        [each.request.described() for each in batch],
        [
            (each.request.described(), [_name(snapshot, node) for node in each.nodes])
            for each in pending
        ],
        [snapshot.instances[uuid].name for uuid in unseen],
        ctx.desk.occupancy,
    )
    return snapshot, list(found)


def _name(snapshot: Snapshot, uuid: str) -> str:
    node = snapshot.nodes.get(uuid)
    return "" if node is None else node.name


def _settle(
    ctx: Context,
    batch: Sequence[PlaceWanted],
    snapshot: Snapshot,
    found: Sequence[Sequence[str]],
) -> None:
    for wanted, nodes in zip(batch, found, strict=True):
        ctx.desk.settle(wanted, [snapshot.node(node).uuid for node in nodes], snapshot)


def _ask_nodes(ctx: Context, asked: Questions) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    info = ctx.call(asked.nodes, calls.NODE_INFO, lambda target: asked.info[target.key])
    return info, ctx.call(asked.nodes, calls.ALL_INSTANCES_INFO, asked.instances)


def describe(ctx: Context, request: AllocationRequest) -> dict[str, Any]:
    """Returns the document for a request, with what nodes say of themselves now.

    Raises as :func:`ganeti_masterd.allocation.document.document`.
    """
    snapshot = ctx.snapshot()
    asked = questions(snapshot, request)
    info, running = _ask_nodes(ctx, asked)
    return document(snapshot, request, asked, info, running)


def ask(ctx: Context, name: str, told: Mapping[str, Any], options: Mapping[str, str | None]) -> str:
    """Returns what the allocator of that name says, unread; raises as ``ctx.run_allocator``."""
    if name == builtin.NAME:
        return msgspec.json.encode(builtin.answer(told, options)).decode()
    return ctx.run_allocator(name, told, options)


def ask_default(
    ctx: Context, told: Mapping[str, Any], options: Mapping[str, str | None]
) -> tuple[str, str]:
    """Returns the name of the allocator that stands in where none is named, and what it says."""
    name = ctx.snapshot().cluster.default_iallocator or builtin.NAME
    try:
        return name, ask(ctx, name, told, options)
    except AllocatorMissing as error:
        ctx.warning(f"{error}, the built-in one decides")
        return builtin.NAME, ask(ctx, builtin.NAME, told, options)
