"""The one way to call nodes: returns payloads in the types that the calls declare.

:func:`call_nodes` calls several at once; :func:`ask_one` calls one and always fires with a result.
:class:`~ganeti_masterd.rpc.interfaces.INodeRPC` returns payloads as plain JSON, as nodes send them.
A payload of the wrong type makes that node's result a failure; it never raises in the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.rpc.results import typed

P = TypeVar("P")

log = Logger()


def call_nodes(
    nodes: INodeRPC,
    targets: Sequence[Target],
    call: Call[P],
    arguments: Arguments = (),
    *,
    timeout: float | None = None,
) -> Deferred[Mapping[str, NodeResult[P]]]:
    """Makes a call to every target at once.

    Fires like :meth:`INodeRPC.call`, with one result for each target by its key. ``timeout``
    (seconds) replaces the call's own.
    """
    answer: Deferred[Mapping[str, NodeResult[Any]]] = nodes.call(
        targets, call.name, arguments, timeout=timeout
    )
    if call.result is None:
        return answer
    return answer.addCallback(
        lambda results: {key: typed(result, call) for key, result in results.items()}
    )


def ask_one(
    nodes: INodeRPC,
    target: Target,
    call: Call[P],
    arguments: Arguments = (),
    *,
    timeout: float | None = None,
) -> Deferred[NodeResult[P]]:
    """Calls one node and fires with its result; never raises, never fails.

    For callers that count calls in flight and so need a result for each. An error on this side
    (arguments that can't be built, an ``INodeRPC`` that raises or fails, a missing result) is
    logged and becomes a result with an error. A cancelled call becomes one, too.
    """

    def only(results: Mapping[str, NodeResult[P]]) -> NodeResult[P]:
        return results[target.key]

    def lost(failure: Failure) -> NodeResult[P]:
        if failure.check(CancelledError):
            return NodeResult(target.name, call.name, error="The call was cancelled")
        log.failure(
            "Call {procedure} to node {node} failed on this side",
            failure,
            procedure=call.name,
            node=target.name,
        )
        kind, text = type(failure.value).__name__, failure.getErrorMessage()
        return NodeResult(target.name, call.name, error=f"{kind} on this side: {text}")

    answer: Deferred[Mapping[str, NodeResult[P]]] = maybeDeferred(
        call_nodes, nodes, [target], call, arguments, timeout=timeout
    )
    return answer.addCallback(only).addErrback(lost)
