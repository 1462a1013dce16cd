"""A call to one node that always ends with a result: :func:`ask_one`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target

log = Logger()


def ask_one(
    nodes: INodeRPC,
    target: Target,
    procedure: str,
    arguments: Arguments = (),
    *,
    timeout: float | None = None,
) -> Deferred[NodeResult[Any]]:
    """Calls one node and fires with its result; never raises, never fails.

    For callers that keep count of calls under way and must hear of the end of each. What is
    not the node's fault (arguments that can't be made, a door that raises or fails, a missing
    result) is logged and becomes a result with an error; so does a cancelled call.
    """

    def only(results: Mapping[str, NodeResult[Any]]) -> NodeResult[Any]:
        return results[target.key]

    def lost(failure: Failure) -> NodeResult[Any]:
        if failure.check(CancelledError):
            return NodeResult(target.name, procedure, None, "The call was cancelled")
        log.failure(
            "Call {procedure} to node {node} failed on this side",
            failure,
            procedure=procedure,
            node=target.name,
        )
        kind, text = type(failure.value).__name__, failure.getErrorMessage()
        return NodeResult(target.name, procedure, None, f"{kind} on this side: {text}")

    answer: Deferred[Mapping[str, NodeResult[Any]]] = maybeDeferred(
        nodes.call, [target], procedure, arguments, timeout=timeout
    )
    return answer.addCallback(only).addErrback(lost)
