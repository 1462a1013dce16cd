"""Nodes that answer as a test has scripted, and record the calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import Arguments, CallAbandoned, INodeRPC, NodeResult, Target

#: The results of one call.
_Results = Mapping[str, NodeResult[Any]]


class Failed(Struct, frozen=True):
    """An answer that makes the node fail with this text."""

    error: str


class Asked(Struct, frozen=True):
    """One call to one node, as it was made."""

    node: str
    procedure: str
    arguments: list[Any]
    timeout: float | None = None


@implementer(INodeRPC)
class ScriptedNodes:
    """An :class:`INodeRPC` whose answers are a table.

    ``answers`` maps a procedure, or (node name, procedure), which takes precedence, to a payload, a
    :class:`Failed`, or a function of target and arguments that returns either. A call without an
    answer succeeds with the emptiest payload that its declaration allows. ``asked`` has all calls
    in order, except those to offline nodes. With ``held``, results are returned when
    :meth:`release` is called.
    """

    def __init__(self, answers: Mapping[Any, Any] | None = None, *, held: bool = False) -> None:
        self.answers: dict[Any, Any] = dict(answers or {})
        self.held = held
        self.asked: list[Asked] = []
        self.pending = 0
        self._waiting: list[tuple[Deferred[_Results], dict[str, NodeResult[Any]]]] = []

    def call(
        self,
        targets: Sequence[Target],
        procedure: str,
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[Mapping[str, NodeResult[Any]]]:
        """See :meth:`INodeRPC.call`."""
        call = CALLS[procedure]
        found: dict[str, NodeResult[Any]] = {}
        for target in targets:
            if target.offline and not call.offline_too:
                found[target.key] = results.offline(target, procedure)
                continue
            given = list(arguments(target) if callable(arguments) else arguments)
            call.check(given)
            self.asked.append(Asked(target.name, procedure, given, timeout))
            found[target.key] = self._answer(target, procedure, given)
        if not self.held:
            return succeed(found)

        def canceled(done: Deferred[Mapping[str, NodeResult[Any]]]) -> None:
            self._waiting.remove((done, found))
            self.pending -= len(found)
            nodes = [result.node for result in found.values() if not result.offline]
            done.errback(CallAbandoned(procedure, nodes))

        done: Deferred[Mapping[str, NodeResult[Any]]] = Deferred(canceled)
        self._waiting.append((done, found))
        self.pending += len(found)
        return done

    def release(self, count: int | None = None) -> None:
        """Returns the results of the oldest ``count`` held calls (None: all)."""
        released = self._waiting[:count]
        del self._waiting[:count]
        for done, found in released:
            self.pending -= len(found)
            done.callback(found)

    def procedures(self) -> list[tuple[str, str]]:
        """Returns node and procedure of each call, in order."""
        return [(asked.node, asked.procedure) for asked in self.asked]

    def close(self) -> Deferred[None]:
        """Ends all held calls."""
        for place, (done, found) in enumerate(self._waiting):
            given_up = {
                key: NodeResult(r.node, r.procedure, None, "The call was given up")
                for key, r in found.items()
            }
            self._waiting[place] = (done, given_up)
        self.release()
        return succeed(None)

    def _answer(self, target: Target, procedure: str, arguments: list[Any]) -> NodeResult[Any]:
        here = target.name, procedure
        if here not in self.answers and procedure not in self.answers:
            return NodeResult(target.name, procedure, emptiest(CALLS[procedure]))
        answer = self.answers.get(here, self.answers.get(procedure))
        if callable(answer):
            answer = answer(target, arguments)
        if isinstance(answer, Failed):
            return NodeResult(target.name, procedure, None, answer.error)
        return NodeResult(target.name, procedure, answer)


def emptiest(call: Call[Any]) -> Any:
    """Returns the emptiest payload of the type that a call declares, as a node sends it."""
    candidates: tuple[Any, ...] = (None, [], {}, "", False, 0)
    for payload in (*candidates, [False, {}], [False, 0.0], ["", None, None]):
        with suppress(msgspec.ValidationError):
            if call.result is not None:
                msgspec.convert(payload, call.result)
            return payload
    return None  # a payload that the test must script itself
