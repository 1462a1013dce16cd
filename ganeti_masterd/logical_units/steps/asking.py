"""Asking nodes, with answers in the shape that the table of calls declares.

A node that answers in another shape is one more node that failed, not an
exception in the middle of an opcode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.interfaces import Arguments, NodeResult, Target
from ganeti_masterd.rpc.results import checked


def ask(
    ctx: Context, nodes: Iterable[str | Target], procedure: str, arguments: Arguments = ()
) -> Mapping[str, NodeResult]:
    """Calls nodes, given by uuid or as targets; returns their answers by uuid.

    Payloads are of the type that the call declares. See ``Context.call``.
    """
    answers = ctx.call(nodes, procedure, arguments)
    shape = CALLS[procedure].result
    if shape is None:
        return answers
    return {key: checked(answer, shape) for key, answer in answers.items()}


def ask_one(
    ctx: Context, node: str | Target, procedure: str, arguments: Arguments = ()
) -> NodeResult:
    """Calls one node; returns its answer."""
    (answer,) = ask(ctx, (node,), procedure, arguments).values()
    return answer
