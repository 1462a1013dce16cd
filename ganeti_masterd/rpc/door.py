"""The one way to call nodes: payloads come back in the type that the call declares.

Behind :class:`~ganeti_masterd.rpc.interfaces.INodeRPC` payloads are plain JSON,
as nodes send them. A node that answers in another shape is one more node that
failed, never an exception in the caller's loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.rpc.results import typed

P = TypeVar("P")


def call_nodes(
    nodes: INodeRPC,
    targets: Sequence[Target],
    call: Call[P],
    arguments: Arguments = (),
    *,
    timeout: float | None = None,
) -> Deferred[Mapping[str, NodeResult[P]]]:
    """Makes a call to every target at once.

    Fires as :meth:`INodeRPC.call` does, with one result for each target by its
    key. ``timeout`` (seconds) replaces the call's own.
    """
    answer: Deferred[Mapping[str, NodeResult[Any]]] = nodes.call(
        targets, call.name, arguments, timeout=timeout
    )
    if call.result is None:
        return answer
    return answer.addCallback(
        lambda results: {key: typed(result, call) for key, result in results.items()}
    )
