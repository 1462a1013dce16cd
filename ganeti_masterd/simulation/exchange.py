"""One call to one simulated node, from its request to its answer or failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.events import Events, NodeCalled
from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.gathering import Gathering
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.simulation import guests
from ganeti_masterd.simulation.calllog import CallLog
from ganeti_masterd.simulation.faults import Faults, SimulatedFault
from ganeti_masterd.simulation.node import NodeFailure, SimulatedNode, Unexpected
from ganeti_masterd.simulation.state import SharedState
from ganeti_masterd.timing import Timer, Timers

log = Logger()

UNEXPECTED = "Error while executing backend function: "


class SimulatedNetwork(Protocol):
    """What an exchange needs from the cluster."""

    closed: bool
    timers: Timers
    faults: Faults
    log: CallLog
    events: Events | None
    exchanges: dict[SimulatedExchange, None]
    cluster: SharedState

    def delay(self, name: str) -> float:
        """Seconds that a request takes to a node."""

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Calls a function after that time, unless all is closed before."""

    def reachable(self, name: str) -> bool:
        """Whether there is such a node."""

    def node(self, name: str) -> SimulatedNode:
        """The node of that name."""

    def implementation(self, name: str) -> Callable[..., Any] | None:
        """The function that answers a call; None if none is built."""


def at_once(
    nodes: SimulatedNetwork, target: Target, call: Call[Any], arguments: list[Any]
) -> NodeResult[Any] | Deferred[Any] | None:
    """Makes a call without delay, faults and observers: a fast path for most calls.

    Returns the answer, or, for a call that is still running, a Deferred to pass to
    :meth:`SimulatedExchange.wait_for`. Returns None if nothing was done because the call needs a
    complete :class:`SimulatedExchange`.
    """
    name = target.name
    function = nodes.implementation(call.name)
    log = nodes.log
    if (
        function is None
        or log.mode == "synced"
        or nodes.delay(name) > 0.0
        or not nodes.reachable(name)
        or nodes.faults.any(nodes.timers.seconds())
        or (nodes.events is not None and nodes.events.observed(NodeCalled))
    ):
        return None
    node = nodes.node(name)
    payload, error = _perform(function, node, call, arguments)
    if isinstance(payload, Deferred):
        return payload
    if node.state.changes or nodes.cluster.changes:
        log.changed()
    if log.on:
        log.add(name, call, arguments, error)
    return NodeResult(name, call.name, payload, error)


def _perform(
    function: Callable[..., Any], node: SimulatedNode, call: Call[Any], arguments: list[Any]
) -> tuple[Any, str | None]:
    """Returns payload (perhaps a Deferred of it) and error."""
    try:
        # Copies that have ended by now must be done before the call looks at their disks.
        node.world.transfers.settle()
        if node.ending is None or node.ending:
            guests.settle(node)
        return function(node, *arguments), None
    except Exception:
        return None, _text(node, call, Failure())


class SimulatedExchange:
    """One call to one node, from its request to its answer or failure."""

    __slots__ = (
        "_arguments",
        "_began",
        "_call",
        "_ended",
        "_fault",
        "_gathering",
        "_nodes",
        "_seconds",
        "_target",
        "_timer",
    )

    def __init__(
        self,
        nodes: SimulatedNetwork,
        gathering: Gathering,
        target: Target,
        call: Call[Any],
        arguments: list[Any],
        seconds: float,
    ) -> None:
        self._nodes = nodes
        self._gathering = gathering
        self._target = target
        self._call = call
        self._arguments = arguments
        self._seconds = seconds
        self._timer: Timer | None = None
        self._fault: SimulatedFault | None = None
        self._ended = False
        self._began = 0.0

    def begin(self) -> None:
        """Sends the request; the call's time-out starts here."""
        nodes = self._nodes
        name = self._target.name
        self._began = nodes.timers.seconds()
        delay = nodes.delay(name)
        disturbance = nodes.faults.disturb(name, self._call.name, self._began)
        if disturbance is not None:
            delay += disturbance.seconds
            self._fault = disturbance.fault
        if delay > 0.0:
            nodes.later(delay, self._arrive)
        else:
            self._arrive()
        self._watch()

    def wait_for(self, payload: Deferred[Any]) -> None:
        """Takes over a call that is still running at the node; its time-out starts here."""
        self._began = self._nodes.timers.seconds()
        self._await(self._nodes.node(self._target.name), payload)
        self._watch()

    def _watch(self) -> None:
        """Counts the call as pending until its end or time-out, unless it has ended."""
        if not self._ended:
            self._nodes.exchanges[self] = None
            self._timer = self._nodes.timers.later(self._seconds, self._expire)

    def give_up(self) -> None:
        """Ends the exchange without an answer because the daemon stops."""
        self._end(results.given_up(self._target, self._call.name))

    def is_part_of(self, gathering: Gathering) -> bool:
        """Returns whether its result goes to that gathering."""
        return self._gathering is gathering

    def abandon(self) -> str:
        """Ends the exchange because its caller cancelled it; returns the node, which goes on."""
        self._end(results.abandoned(self._target, self._call.name))
        return self._target.name

    def _expire(self) -> None:
        self._end(results.timed_out(self._target, self._call.name, self._seconds))

    def _arrive(self) -> None:
        """Handles the arrival of the request, or fails if the node can't be reached."""
        nodes = self._nodes
        target = self._target
        fault = self._fault
        if nodes.closed:
            return
        if fault is not None and fault.kind == "unreachable":
            self._end(results.unreachable(target, self._call.name, "Connection refused"))
            return
        if not nodes.reachable(target.name):
            self._end(results.unreachable(target, self._call.name, "No route to host"))
            return
        if fault is not None and fault.kind == "error":
            self._finish(None, fault.text)
            return
        if fault is not None and fault.kind == "silent":
            if nodes.log.on:
                nodes.log.add(target.name, self._call, self._arguments, "(no answer)")
            return
        function = nodes.implementation(self._call.name)
        if function is None:
            self._finish(None, f"simulated node: {self._call.name} is not built")
            return
        node = nodes.node(target.name)
        payload, error = _perform(function, node, self._call, self._arguments)
        if isinstance(payload, Deferred):
            self._await(node, payload)
        else:
            self._did(node, payload, error)

    def _await(self, node: SimulatedNode, payload: Deferred[Any]) -> None:
        payload.addCallbacks(
            lambda value: self._did(node, value, None),
            lambda failure: self._did(node, None, _text(node, self._call, failure)),
        )

    def _did(self, node: SimulatedNode, payload: Any, error: str | None) -> None:
        """Handles the result of the call at the node."""
        if node.state.changes or self._nodes.cluster.changes:
            self._nodes.log.changed()
        self._finish(payload, error)

    def _finish(self, payload: Any, error: str | None) -> None:
        """Answers the call, in the mode ``synced`` after its line is on the disk."""
        target, name, log = self._target, self._call.name, self._nodes.log
        result = NodeResult(target.name, name, payload, error)
        if not log.on or self._nodes.closed:
            self._answer(result)
            return
        if log.mode != "synced":
            log.add(target.name, self._call, self._arguments, error)
            self._answer(result)
            return

        def told(trouble: str | None) -> None:
            if trouble is None:
                self._answer(result)
            else:
                text = f"simulated node: the disk failed: {trouble}"
                self._answer(NodeResult(target.name, name, None, text))

        log.add(target.name, self._call, self._arguments, error, told)

    def _answer(self, result: NodeResult[Any]) -> None:
        fault = self._fault
        if fault is not None and fault.kind == "lost":
            return
        if fault is not None and fault.kind == "garbage":
            result = NodeResult(result.node, result.procedure, fault.payload)
        self._end(result)

    def _end(self, result: NodeResult[Any]) -> None:
        if self._ended:
            log.debug(
                "Node {node} answers {call} when nobody waits for it any more",
                node=result.node,
                call=result.procedure,
            )
            return
        self._ended = True
        nodes = self._nodes
        if self._timer is not None:
            self._timer.cancel()
            del nodes.exchanges[self]
        events = nodes.events
        if events is not None and events.observed(NodeCalled):
            took = nodes.timers.seconds() - self._began
            events.publish(NodeCalled(result.procedure, result.node, result.error, took))
        self._gathering.put(self._target.key, result)


def _text(node: SimulatedNode, call: Call[Any], failure: Failure) -> str:
    """Returns noded's message for a failure; logs a bug in the simulation as such."""
    text = str(failure.value)
    if failure.check(NodeFailure):
        return text
    # Real files of a node (the master's root, scripts) fail as they would on a real one.
    if failure.check(Unexpected, OSError):
        return f"{UNEXPECTED}{text}"
    log.failure(
        "Bug in the simulation of {call} on {node}", failure, call=call.name, node=node.name
    )
    return f"simulated node: {call.name}: a bug in the simulation: {failure.getErrorMessage()}"
