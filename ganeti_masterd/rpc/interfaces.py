"""The interface through which nodes are called: :class:`INodeRPC`, and its values.

Names, positional JSON arguments and payloads are noded's own (protocol/rpc.rst). There are two
implementations: real node daemons over HTTPS, and simulated nodes. No code above this layer knows
which one is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import Attribute, Interface

from ganeti_masterd.errors import ECODE_ENVIRON, OpExecError, OpPrereqError

P = TypeVar("P")


class Addressed(Protocol):
    """What a call needs to know about a node of the configuration."""

    @property
    def uuid(self) -> str:
        """The key of its results."""

    @property
    def name(self) -> str:
        """The node's host name."""

    @property
    def primary_ip(self) -> str:
        """The address on which its daemon listens."""

    @property
    def offline(self) -> bool:
        """Whether the node is marked offline."""


class Target(Struct, frozen=True):
    """A node to call; ``key`` is the key of its results (a uuid in opcodes)."""

    key: str
    name: str
    address: str
    offline: bool = False

    @classmethod
    def of(cls, node: Addressed) -> Self:
        """Returns the target of a configured node; it won't be called if it is marked offline."""
        return cls(node.uuid, node.name, node.primary_ip, node.offline)

    @classmethod
    def anyway(cls, node: Addressed) -> Self:
        """Returns the target of a node, which will be called even if it is marked offline."""
        return cls(node.uuid, node.name, node.primary_ip)


class NodeResult(Struct, Generic[P], frozen=True):
    """One node's answer: a payload of type P, or why there is none. Never raises by itself.

    ``error`` is None on success, and the payload is None on failure. ``offline`` means
    that the node is marked offline and was not called; ``unsent`` that there was no connection, so
    that the call can't take effect later either: both imply an error. ``typed`` is the same result
    with its payload in the type that the call declares, if a thread has made it already.
    """

    node: str
    procedure: str
    payload: P = None  # type: ignore[assignment]
    error: str | None = None
    offline: bool = False
    typed: Any = None
    unsent: bool = False

    @property
    def failed(self) -> bool:
        """Whether there is no payload."""
        return self.error is not None

    def require(self, doing: str, *, prereq: bool = False) -> P:
        """Returns the payload, or raises an error that says what failed and where.

        Raises ``OpPrereqError`` with ``environment_error`` if ``prereq``, else
        ``OpExecError``.
        """
        if self.error is None:
            return self.payload
        message = f"{doing}: node {self.node}, call {self.procedure}: {self.error}"
        if prereq:
            raise OpPrereqError(message, ECODE_ENVIRON)
        raise OpExecError(message)

    def or_fail(self, text: str) -> P:
        """Returns the payload, or raises ``OpExecError`` with ``text: `` and the node's words."""
        if self.error is not None:
            raise OpExecError(f"{text}: {self.error}")
        return self.payload

    def or_refuse(self, text: str, code: str = ECODE_ENVIRON) -> P:
        """Returns the payload, or raises ``OpPrereqError`` in the form of :meth:`or_fail`."""
        if self.error is not None:
            raise OpPrereqError(f"{text}: {self.error}", code)
        return self.payload


class CallAbandoned(CancelledError):
    """A call was cancelled. The nodes named in ``nodes`` may still carry it out."""

    def __init__(self, procedure: str, nodes: Sequence[str]) -> None:
        super().__init__(procedure, *nodes)
        self.procedure = procedure
        self.nodes = tuple(nodes)

    def still_under_way(self) -> str:
        """Returns a text about what may go on at which nodes; empty if no node was reached."""
        if not self.nodes:
            return ""
        return f"{self.procedure} may still be under way at {', '.join(self.nodes)}"


class FixedArguments(tuple[Any, ...]):
    """Positional arguments that nobody changes any more, down to their parts.

    A door may convert them once for all calls that are given the same object.
    """

    __slots__ = ()


#: Positional arguments of a call: the same for all nodes, or a function of the node.
Arguments = Sequence[Any] | Callable[[Target], Sequence[Any]]


class INodeRPC(Interface):
    """Calls node daemons, many at once; reactor thread only."""

    pending: int = Attribute("How many calls to nodes are in flight or wait their turn.")

    def call(
        targets: Sequence[Target],
        procedure: str,
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[Mapping[str, NodeResult[Any]]]:
        """Calls ``procedure`` on every target at once.

        ``procedure`` is a name in :data:`ganeti_masterd.rpc.calls.CALLS`. Payloads are plain
        JSON, as the nodes sent them: callers use :func:`ganeti_masterd.rpc.door.call_nodes`,
        which gives them their types.

        Fires with one result for each target, keyed by ``Target.key``, in the
        order given. It never fails because of a node: unreachable, refusing,
        slow and offline nodes are results with an error. ``timeout`` (seconds)
        replaces the procedure's own. Raises ``ProgrammerError`` at once for a
        procedure that isn't in the table of calls, or a wrong number of arguments.

        Cancelling the Deferred makes it fail with ``CallAbandoned``. Requests that were not sent
        yet are dropped and connections are closed, but a node goes on with what it has begun.
        """

    def close() -> Deferred[None]:
        """Ends calls in flight with an error each; fires when everything is closed."""
