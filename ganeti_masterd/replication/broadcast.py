"""One value that every online node is to hold, such as the simple configuration.

Only the newest value is sent. A node that fails is tried again after a pause that doubles each
time, and nobody waits for it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ganeti_masterd.replication.candidate import PATIENCE, RETRY, RETRY_AT_MOST
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.door import ask_one
from ganeti_masterd.rpc.interfaces import FixedArguments, INodeRPC, NodeResult, Target
from ganeti_masterd.timing import Timer, Timers

log = Logger()


class _Recipient:
    """One node, and the version of the value that it holds."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.holds = 0
        self.busy = False
        self.fault: str | None = None
        self.pause = RETRY
        self.timer: Timer | None = None
        #: Time (by the timers' clock) until which a failed call may still take effect at the node.
        self.unsafe_until = float("-inf")

    @property
    def away(self) -> bool:
        """Whether the node is in its pause: nothing is sent to it and nobody waits for it."""
        return self.fault is not None or (self.timer is not None and self.timer.active)


class Broadcast:
    """Sends the newest value with one call to all nodes named. Reactor thread only.

    ``arguments`` returns the call's arguments for a value, which must not change any more.
    """

    def __init__(
        self,
        nodes: INodeRPC,
        timers: Timers,
        call: Call[Any],
        arguments: Callable[[Any], Sequence[Any]],
    ) -> None:
        self._nodes = nodes
        self._timers = timers
        self._call = call
        self._arguments = arguments
        self._recipients: dict[str, _Recipient] = {}
        #: Nodes no longer named, kept while a call to them may still take effect.
        self._leaving: dict[str, _Recipient] = {}
        self._version = 0
        self._value: Any = None
        #: The call's arguments for the value, made once for all nodes; None until they are needed.
        self._given: FixedArguments | None = None
        self._waiters: list[tuple[int, Deferred[None]]] = []

    @property
    def behind(self) -> tuple[str, ...]:
        """The names of the nodes that don't hold the newest value."""
        return tuple(r.target.name for r in self._recipients.values() if r.holds != self._version)

    def name(self, targets: Mapping[str, Target]) -> None:
        """Sets the nodes to send to, by uuid; new ones get the value at the next :meth:`send`."""
        now = self._timers.seconds()
        for uuid in set(self._recipients) - set(targets):
            gone = self._recipients.pop(uuid)
            self._forget(gone)
            gone.holds = 0
            self._leaving[uuid] = gone
        self._leaving = {u: r for u, r in self._leaving.items() if r.busy or r.unsafe_until > now}
        for uuid, target in targets.items():
            recipient = self._recipients.get(uuid)
            if recipient is None:
                recipient = self._recipients[uuid] = self._joining(uuid, target, now)
            recipient.target = target
        self._tell()

    def _joining(self, uuid: str, target: Target, now: float) -> _Recipient:
        """Returns the recipient of a node that is new or comes back.

        A node that comes back gets nothing while a call made before it left may still take effect.
        """
        recipient = self._leaving.pop(uuid, None)
        if recipient is None:
            return _Recipient(target)
        if recipient.busy:
            return recipient
        recipient.timer = self._timers.later(recipient.unsafe_until - now, self._send, recipient)
        return recipient

    def put(self, value: Any) -> None:
        """Makes a value the newest one and sends it."""
        self.offer(value)
        self.send()

    def offer(self, value: Any) -> None:
        """Makes a value the newest one; the next :meth:`send` sends it."""
        self._version += 1
        self._value, self._given = value, None

    def send(self) -> None:
        """Sends the newest value to those that don't hold it; does nothing if there is none yet."""
        for recipient in list(self._recipients.values()):
            if not recipient.away:
                self._send(recipient)

    def repeat(self) -> None:
        """Sends the newest value, if there is one, to every node again."""
        if self._version:
            self.put(self._value)

    def settled(self) -> Deferred[None]:
        """Fires when every node that can be reached holds the value that is newest at this call.

        A node whose call fails for any reason counts as one that can't be reached. Cancelling ends
        only this wait; the value is still sent.
        """
        if self._reached(self._version):
            return succeed(None)
        done: Deferred[None] = Deferred(self._forget_waiter)
        self._waiters.append((self._version, done))
        return done

    def close(self) -> None:
        """Stops sending and fires all Deferreds of :meth:`settled`."""
        for recipient in self._recipients.values():
            self._forget(recipient)
        self._recipients.clear()
        self._tell()

    def _forget_waiter(self, done: Deferred[None]) -> None:
        self._waiters = [each for each in self._waiters if each[1] is not done]

    def _forget(self, recipient: _Recipient) -> None:
        if recipient.timer is not None:
            recipient.timer.cancel()

    def _send(self, recipient: _Recipient) -> None:
        version = self._version
        if recipient.busy or recipient.holds == version:
            return
        recipient.busy = True
        ask_one(
            self._nodes,
            recipient.target,
            self._call,
            lambda _: self._fixed(),
            timeout=PATIENCE,
        ).addCallback(self._answered, recipient, version).addErrback(
            lambda failure: log.failure(
                "What node {node} answered could not be noted",
                failure,
                node=recipient.target.name,
            )
        )

    def _fixed(self) -> FixedArguments:
        if self._given is None:
            self._given = FixedArguments(self._arguments(self._value))
        return self._given

    def _answered(self, result: NodeResult[Any], recipient: _Recipient, version: int) -> None:
        recipient.busy = False
        if result.error is not None:
            recipient.unsafe_until = self._timers.seconds() + RETRY
        if self._recipients.get(recipient.target.key) is not recipient:
            return
        if result.error is not None:
            self._failed(recipient, result.error)
        else:
            if recipient.fault is not None:
                log.info(
                    "Node {node} takes {procedure} again",
                    node=recipient.target.name,
                    procedure=self._call.name,
                )
            recipient.fault, recipient.pause = None, RETRY
            recipient.holds = version
            self._send(recipient)
        self._tell()

    def _failed(self, recipient: _Recipient, error: str) -> None:
        if recipient.fault is None:
            log.warn(
                "Node {node} did not take {procedure}, which is tried again: {error}",
                node=recipient.target.name,
                procedure=self._call.name,
                error=error,
            )
        recipient.fault = error
        recipient.timer = self._timers.later(recipient.pause, self._send, recipient)
        recipient.pause = min(2 * recipient.pause, RETRY_AT_MOST)

    def _reached(self, version: int) -> bool:
        # The last first: nodes mostly answer in order, so that it tells soonest.
        return all(r.away or r.holds >= version for r in reversed(self._recipients.values()))

    def _tell(self) -> None:
        ready = [done for version, done in self._waiters if self._reached(version)]
        if ready:
            self._waiters = [each for each in self._waiters if each[1] not in ready]
            for done in ready:
                done.callback(None)
