"""Calls to real node daemons over HTTPS: :class:`HTTPSNodes`.

Everything that noded expects from a client (protocol/rpc.rst, HTTP and protocol/rpc.rst, Addresses
and recipients): one request per connection, TLS pinned to the cluster's certificate, one timer for
each whole call, a limit on the calls in flight to a node. Any failure becomes a result with a
message. Nothing is ever retried, because a call whose answer is lost may have been carried out.
Bodies never appear in logs or errors.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from zope.interface import implementer

from ganeti_masterd.constants import DEFAULT_NODED_PORT
from ganeti_masterd.events import Events, NodeCalled
from ganeti_masterd.mailbox import RunInThread
from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.exchange import MAX_ANSWER, CallExchange, CallLine
from ganeti_masterd.rpc.gathering import Gathering
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.rpc.turns import IN_FLIGHT, LONG_IN_FLIGHT, Turns
from ganeti_masterd.rpc.wire import VirtualPaths, request_body
from ganeti_masterd.timing import Timers

#: The port of node daemons unless /etc/services has another.
PORT = DEFAULT_NODED_PORT

#: Seconds that a connection may take, TLS included.
PATIENCE = 5.0


def noded_port() -> int:
    """Returns the port of node daemons: that of ``ganeti-noded`` in /etc/services, or 1811."""
    try:
        return socket.getservbyname("ganeti-noded", "tcp")
    except OSError:
        return PORT


@implementer(INodeRPC)
class HTTPSNodes:
    """Calls real node daemons. Reactor thread only.

    - ``reactor``: makes connections (``IReactorTCP``) and resolves names.
    - ``port``: the port of all node daemons, see :func:`noded_port`.
    - ``root``: this node's root in a virtual cluster (``GANETI_ROOTDIR``), else empty.
    - ``patience``: seconds that a connection may take, TLS included.
    - ``in_flight``, ``long_in_flight``: limits on calls at once to one node, and on long ones among
      them; further calls wait, and their time-outs start when they are sent.
    - ``max_answer``: bytes; a longer answer is a failed call, and so is one with which all that
      come from the node at that time are longer together.
    - ``in_thread``: runs functions that read large answers in a thread.
    """

    def __init__(
        self,
        reactor: Any,
        timers: Timers,
        certificates: Certificates,
        *,
        port: int = PORT,
        root: str = "",
        events: Events | None = None,
        patience: float = PATIENCE,
        in_flight: int = IN_FLIGHT,
        long_in_flight: int = LONG_IN_FLIGHT,
        max_answer: int = MAX_ANSWER,
        in_thread: RunInThread | None = None,
    ) -> None:
        self.pending = 0
        self._timers = timers
        self._events = events
        self._limits = (in_flight, long_in_flight)
        self._paths = VirtualPaths(root)
        self._line = CallLine(
            reactor,
            timers,
            certificates,
            self._paths,
            port=port,
            patience=patience,
            max_answer=max_answer,
            in_thread=in_thread,
        )
        self._turns: dict[str, Turns[CallExchange]] = {}
        self._in_flight: dict[CallExchange, Gathering] = {}
        self._waiting: dict[CallExchange, Gathering] = {}
        self._closed = False
        #: Connections of abandoned calls that are not closed yet.
        self._leaving: set[Deferred[None]] = set()

    def call(
        self,
        targets: Sequence[Target],
        procedure: str,
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[Mapping[str, NodeResult[Any]]]:
        """See :meth:`INodeRPC.call`.

        Also raises ``ProgrammerError`` for arguments that can't be encoded as JSON, and for a path
        that isn't below the root.
        """
        call = CALLS[procedure]
        chosen = {target.key: target for target in targets}
        bodies: dict[str, tuple[bytes, float]] = {}
        shared: tuple[bytes, float] | None = None
        for target in chosen.values():
            if target.offline and not call.offline_too:
                continue
            if shared is None or callable(arguments):
                given = arguments(target) if callable(arguments) else arguments
                body = request_body(call, given, self._paths)
                shared = (body, call.seconds(given) if timeout is None else timeout)
            bodies[target.key] = shared
        gathering = Gathering(targets)
        for key, target in chosen.items():
            if key not in bodies:
                gathering.put(key, results.offline(target, procedure))
            elif self._closed:
                gathering.put(key, results.given_up(target, procedure))
            else:
                self._add(
                    gathering, CallExchange(self._line, target, call, *bodies[key], self._ended)
                )
        for address in dict.fromkeys(_address(chosen[key]) for key in bodies):
            self._proceed(address)
        return gathering.ready(procedure, self._abandon)

    def close(self) -> Deferred[None]:
        """See :meth:`INodeRPC.close`; fires when every connection is gone."""
        self._closed = True
        for turns in self._turns.values():
            turns.drop()
        for exchange in list(self._waiting):
            exchange.give_up()
        gone = [exchange.give_up() for exchange in list(self._in_flight)]
        return DeferredList([*gone, *self._leaving], consumeErrors=True).addCallback(lambda _: None)

    def _abandon(self, gathering: Gathering) -> list[str]:
        """Ends calls without a result; returns the names of the nodes that were reached."""
        for exchange in [each for each, owner in self._waiting.items() if owner is gathering]:
            self._turns[_address(exchange.target)].discard(exchange.rank, exchange)
            exchange.abandon()
        sent = [each for each, owner in self._in_flight.items() if owner is gathering]
        reached = [exchange.target.name for exchange in sent if exchange.reached]
        for exchange in sent:
            self._let_leave(exchange.abandon())
        return reached

    def _let_leave(self, gone: Deferred[None]) -> None:
        def left(_: object) -> None:
            self._leaving.discard(gone)

        self._leaving.add(gone)
        gone.addBoth(left)

    def _add(self, gathering: Gathering, exchange: CallExchange) -> None:
        address = _address(exchange.target)
        if address not in self._turns:
            self._turns[address] = Turns(*self._limits)
        self._turns[address].add(exchange.rank, exchange)
        self._waiting[exchange] = gathering
        self.pending += 1

    def _proceed(self, address: str) -> None:
        """Sends the calls to a node that the limits allow now."""
        turns = self._turns.get(address)
        while turns is not None and (exchange := turns.take()) is not None:
            self._in_flight[exchange] = self._waiting.pop(exchange)
            exchange.send()
        if turns is not None and turns.idle and self._turns.get(address) is turns:
            del self._turns[address]

    def _ended(self, exchange: CallExchange, result: NodeResult[Any]) -> None:
        """Hands a result on and makes room for the next call to its node."""
        self.pending -= 1
        gathering = self._waiting.pop(exchange, None)
        if gathering is None:
            gathering = self._in_flight.pop(exchange)
            address = _address(exchange.target)
            self._turns[address].ended(exchange.rank)
            self._publish(exchange, result)
            self._proceed(address)
        gathering.put(exchange.target.key, result)

    def _publish(self, exchange: CallExchange, result: NodeResult[Any]) -> None:
        events = self._events
        if events is not None and exchange.sent is not None and events.observed(NodeCalled):
            took = self._timers.seconds() - exchange.sent
            events.publish(NodeCalled(result.procedure, result.node, result.error, took))


def _address(target: Target) -> str:
    return target.address or target.name
