"""What all LUXI connections of a daemon share: the answers, the limits, the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from ganeti_masterd.constants import LUXI_DEF_RWTO
from ganeti_masterd.errors import LuxiError
from ganeti_masterd.luxi.aside import LargeRequests
from ganeti_masterd.luxi.budget import Budget
from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE
from ganeti_masterd.luxi.messages import LARGE, LuxiRequest, SizeBound
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.luxi.server import LuxiServer
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: The most clients that are served at once unless told otherwise.
MAX_CONNECTIONS = 4096
#: How many more places there are, for trusted users only.
KEPT_PLACES = 16
#: The most refused clients that may still read why; past it the oldest is cut off.
MAX_LINGERING = 256

#: Takes a request and who sent it; returns the result, an
#: :class:`~ganeti_masterd.luxi.messages.Encoded`, or a Deferred of either; may raise.
AnswerFunction = Callable[[LuxiRequest, Peer], object]


class LuxiFactory(ServerFactory):
    """Makes a :class:`LuxiServer` for each client and closes the idle ones.

    ``answer`` is called in the reactor thread for every request that could be
    understood. Ganeti's errors, raised or by Deferred, are the client's answer; any
    other exception is logged with its traceback and answered as ``OpExecError``. Its
    Deferred is cancelled when the client goes away.

    ``trusted`` users (uids) have :data:`KEPT_PLACES` more than ``max_connections``; each of the
    others has at most ``max_each`` (None: no bound of its own). ``budget`` bounds what is held for
    clients, and is shared with other factories. ``largest`` says how large the requests of each
    method may be, below ``max_message_size``, which holds for all. ``aside`` reads large
    requests; without it they are read as the others are, in the reactor thread.

    ``idle_timeout`` is in seconds (null: never). One timer serves all connections, so
    that closing may come up to a second later. ``requests`` counts the messages that
    came in. Stopping to listen leaves the connections as they are; :meth:`close` ends
    them.
    """

    noisy = False

    def __init__(
        self,
        answer: AnswerFunction,
        timers: Timers,
        *,
        idle_timeout: float | None = LUXI_DEF_RWTO,
        max_connections: int = MAX_CONNECTIONS,
        max_each: int | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        trusted: Collection[int] = (),
        budget: Budget | None = None,
        largest: SizeBound = lambda method: LARGE,
        aside: LargeRequests | None = None,
    ) -> None:
        self.answer = answer
        self.seconds = timers.seconds
        self.idle_timeout = float("inf") if idle_timeout is None else idle_timeout
        self.max_connections = max_connections
        self.largest = largest
        self.aside = aside
        self.budget = budget if budget is not None else Budget(trusted=trusted)
        #: The most connections of one user who isn't trusted.
        self.max_each = max_connections if max_each is None else max_each
        self._trusted = frozenset(trusted)
        self._by_user: Counter[int | None] = Counter()
        self.max_message_size = max_message_size
        self.requests = 0
        self._timers = timers
        self._made = 0
        self._open: set[LuxiServer] = set()
        self._lingering: dict[LuxiServer, None] = {}  # refused, oldest first
        self._sweep: Timer | None = None
        self._sweep_at = float("inf")
        self._closed: list[Deferred[None]] = []

    @property
    def connections(self) -> int:
        """How many clients are connected, without those that were refused."""
        return len(self._open)

    @property
    def descriptors(self) -> int:
        """How many connections may be open at a time, those that were refused included."""
        return self.max_connections + KEPT_PLACES + MAX_LINGERING

    def buildProtocol(self, addr: IAddress | None) -> LuxiServer:  # type: ignore[override]
        """Returns the protocol of a new connection."""
        self._made += 1
        return LuxiServer(self, self._made)

    def close(self) -> Deferred[None]:
        """Ends all connections; fires when the last is gone.

        What was answered is still sent; pending answers are cancelled. The caller stops
        listening first.
        """
        done: Deferred[None] = Deferred()
        self._closed.append(done)
        self._each(LuxiServer.close)
        self._tell_closed()
        return done

    # Called by the connections

    def connection_made(self, connection: LuxiServer) -> None:
        """Counts a new connection, or refuses it past the limit."""
        self._open.add(connection)
        uid = connection.peer.uid
        self._by_user[uid] += 1
        kept = KEPT_PLACES if uid in self._trusted else 0
        if len(self._open) > self.max_connections + kept:
            connection.refuse(
                LuxiError(
                    f"The master daemon serves {self.max_connections} connections already, "
                    "which is its limit (--max-connections); try again later"
                )
            )
        elif self._by_user[uid] > self.max_each and uid is not None and not kept:
            connection.refuse(
                LuxiError(
                    f"The master daemon serves {self.max_each} connections of user id {uid} "
                    "already, which is the limit for each user (--max-connections-per-user); "
                    "try again later"
                )
            )
        else:
            self.expect(connection.deadline)

    def connection_refused(self, connection: LuxiServer) -> None:
        """Takes a connection out of the count that only waits to be closed."""
        self._leave(connection)
        self._lingering[connection] = None
        if len(self._lingering) > MAX_LINGERING:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.cut_off()

    def connection_lost(self, connection: LuxiServer) -> None:
        """Forgets a connection that is gone."""
        self._leave(connection)
        self._lingering.pop(connection, None)
        if not self._open and not self._lingering and self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
            self._sweep_at = float("inf")
        self._tell_closed()

    def expect(self, deadline: float) -> None:
        """Makes sure that connections are looked at when ``deadline`` comes."""
        if deadline < self._sweep_at:
            if self._sweep is not None:
                self._sweep.cancel()
            self._sweep_at = deadline
            self._sweep = self._timers.later(deadline - self.seconds(), self._look)

    def _leave(self, connection: LuxiServer) -> None:
        """Gives the connection's place free, if it has one still."""
        if connection in self._open:
            self._open.remove(connection)
            uid = connection.peer.uid
            self._by_user[uid] -= 1
            if not self._by_user[uid]:
                del self._by_user[uid]

    def _look(self) -> None:
        """Tells the connections that are overdue, and comes back for the next."""
        self._sweep = None
        self._sweep_at = float("inf")
        now = self.seconds()

        def look_at(connection: LuxiServer) -> None:
            if connection.deadline <= now:
                connection.overdue(now)

        self._each(look_at)
        rest = self._connections()
        if rest:
            # A connection that is busy now is idle at the earliest when it was answered.
            soonest = min(now + self.idle_timeout, *(each.deadline for each in rest))
            if soonest < float("inf"):
                self.expect(max(soonest, now + min(1.0, self.idle_timeout / 100)))

    def _each(self, function: Callable[[LuxiServer], object]) -> None:
        """Calls the function with each connection that is still there when its turn comes.

        What a connection gives up may raise; that doesn't keep it from the others.
        """
        for connection in self._connections():
            if connection in self._open or connection in self._lingering:
                try:
                    function(connection)
                except Exception:
                    log.failure(
                        "Connection {number} gave up badly", number=connection.peer.connection
                    )

    def _connections(self) -> list[LuxiServer]:
        return [*self._open, *self._lingering]

    def _tell_closed(self) -> None:
        if self._closed and not self._open and not self._lingering:
            closed, self._closed = self._closed, []
            for done in closed:
                done.callback(None)
