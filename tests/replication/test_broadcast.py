"""A broadcast settles however its calls end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.replication.broadcast import Broadcast
from ganeti_masterd.replication.candidate import RETRY
from ganeti_masterd.rpc.calls import SET_WATCHER_PAUSE
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.timing import Timers

ONE = Target("u1", "node1", "192.0.2.1")
TWO = Target("u2", "node2", "192.0.2.2")
PROCEDURE = SET_WATCHER_PAUSE.name

Results = Mapping[str, NodeResult]


class Door:
    """A door whose calls to node1 end as a test sets; node2 always answers."""

    pending = 0

    def __init__(self) -> None:
        self.behaviour: Callable[[Target], Deferred[Results]] | None = None
        self.got: list[tuple[str, Any]] = []

    def call(
        self, targets: Any, procedure: str, arguments: Any, *, timeout: float | None = None
    ) -> Deferred[Results]:
        (target,) = targets
        given = arguments(target) if callable(arguments) else arguments
        if target == ONE and self.behaviour is not None:
            return self.behaviour(target)
        self.got.append((target.name, given[0]))
        return succeed({target.key: NodeResult(target.name, procedure)})

    def close(self) -> Deferred[None]:
        return succeed(None)


def raises(target: Target) -> Deferred[Results]:
    raise RuntimeError("the door is broken")


class BroadcastTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.door = Door()
        self.broadcast = self.over(lambda value: [value])

    def over(self, arguments: Callable[[Any], Any]) -> Broadcast:
        broadcast = Broadcast(
            self.door,  # type: ignore[arg-type]
            Timers(self.clock),
            SET_WATCHER_PAUSE,
            arguments,
        )
        broadcast.name({"u1": ONE, "u2": TWO})
        return broadcast

    def comes_back(self, logged: type[Exception] | None = None) -> None:
        """Checks that a value which node1 fails to take settles, and arrives once node1 works."""
        self.broadcast.put(1)
        self.successResultOf(self.broadcast.settled())
        self.assertEqual(self.broadcast.behind, ("node1",))
        if logged is not None:
            self.assertEqual(len(self.flushLoggedErrors(logged)), 1)
        self.door.behaviour = None
        self.clock.advance(RETRY)
        self.assertEqual(self.broadcast.behind, ())
        self.assertIn(("node1", 1), self.door.got)
        self.broadcast.put(2)
        self.successResultOf(self.broadcast.settled())
        self.assertEqual(self.broadcast.behind, ())

    def test_once(self) -> None:
        """The arguments of a value are made once for all nodes, and anew for the next value."""
        made: list[Any] = []

        def arguments(value: Any) -> list[Any]:
            made.append(value)
            return [value]

        broadcast = self.over(arguments)
        broadcast.put(1)
        broadcast.put(2)
        broadcast.repeat()
        self.assertEqual(made, [1, 2, 2])
        self.assertEqual(len(self.door.got), 6)
        self.assertEqual({value for _, value in self.door.got}, {1, 2})

    def test_raises(self) -> None:
        """A call that raises at once counts as a node that can't be reached."""
        self.door.behaviour = raises
        self.comes_back(RuntimeError)

    def test_fails(self) -> None:
        """A call whose Deferred fails counts as a node that can't be reached."""
        self.door.behaviour = lambda target: fail(RuntimeError("lost"))
        self.comes_back(RuntimeError)

    def test_no_result(self) -> None:
        """A call whose results lack the node counts as a node that can't be reached."""
        self.door.behaviour = lambda target: succeed({})
        self.comes_back(KeyError)

    def test_node_error(self) -> None:
        """A call that the node refuses counts the same, and isn't logged as the daemon's error."""
        refusal = NodeResult("node1", PROCEDURE, None, "no")
        self.door.behaviour = lambda target: succeed({target.key: refusal})
        self.comes_back()

    def test_cancelled(self) -> None:
        """A call that is cancelled while in flight counts as a node that can't be reached."""
        call: Deferred[Results] = Deferred()
        self.door.behaviour = lambda target: call
        self.broadcast.put(1)
        done = self.broadcast.settled()
        self.assertNoResult(done)
        call.cancel()
        self.successResultOf(done)
        self.comes_back_from(call)

    def comes_back_from(self, call: Deferred[Results]) -> None:
        self.door.behaviour = None
        self.clock.advance(RETRY)
        self.assertEqual(self.broadcast.behind, ())

    def test_fails_later(self) -> None:
        """``settled`` fires when a call in flight fails."""
        call: Deferred[Results] = Deferred()
        self.door.behaviour = lambda target: call
        self.broadcast.put(1)
        done = self.broadcast.settled()
        call.errback(RuntimeError("lost"))
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.comes_back_from(call)

    def test_arguments(self) -> None:
        """If a call's arguments can't be built, the calls fail, and the next value is sent."""

        def arguments(value: int) -> list[int]:
            if value == 1:
                raise ValueError("unlucky")
            return [value]

        self.broadcast = self.over(arguments)
        self.broadcast.put(1)
        self.successResultOf(self.broadcast.settled())
        self.assertEqual(self.broadcast.behind, ("node1", "node2"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.broadcast.put(2)
        self.clock.advance(RETRY)
        self.assertEqual(self.door.got, [("node1", 2), ("node2", 2)])

    def test_settled_cancelled(self) -> None:
        """Cancelling one ``settled`` leaves the others waiting until they fire."""
        call: Deferred[Results] = Deferred()
        self.door.behaviour = lambda target: call
        self.broadcast.put(1)
        gone, stays = self.broadcast.settled(), self.broadcast.settled()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertNoResult(stays)
        call.callback({"u1": NodeResult("node1", PROCEDURE)})
        self.successResultOf(stays)

    def test_close(self) -> None:
        """Closing fires all ``settled``; the result of a call in flight is ignored."""
        call: Deferred[Results] = Deferred()
        self.door.behaviour = lambda target: call
        self.broadcast.put(1)
        done = self.broadcast.settled()
        self.broadcast.close()
        self.successResultOf(done)
        call.errback(RuntimeError("lost"))
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leaves_while_busy(self) -> None:
        """A node that left while its call failed gets the newest value when it is back."""
        call: Deferred[Results] = Deferred()
        self.door.behaviour = lambda target: call
        self.broadcast.put(1)
        self.broadcast.name({"u2": TWO})
        self.successResultOf(self.broadcast.settled())
        call.errback(RuntimeError("lost"))
        self.flushLoggedErrors(RuntimeError)
        self.door.behaviour = None
        self.broadcast.name({"u1": ONE, "u2": TWO})
        self.broadcast.send()
        # The lost call may still take effect there.
        self.assertEqual(self.broadcast.behind, ("node1",))
        self.successResultOf(self.broadcast.settled())
        self.clock.advance(RETRY)
        self.assertEqual(self.broadcast.behind, ())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leaves_after_a_failure(self) -> None:
        """A node that left after a failed call waits, too; one long gone gets the value at once."""
        self.door.behaviour = raises
        for seconds, behind in ((RETRY / 2, ("node1",)), (RETRY, ())):
            self.door.behaviour = raises
            self.broadcast.put(seconds)
            self.flushLoggedErrors(RuntimeError)
            self.broadcast.name({"u2": TWO})
            self.door.behaviour = None
            self.clock.advance(seconds)
            self.broadcast.name({"u1": ONE, "u2": TWO})
            self.broadcast.send()
            self.assertEqual(self.broadcast.behind, behind)
            self.clock.advance(RETRY)
            self.assertEqual(self.broadcast.behind, ())

    def test_repeat(self) -> None:
        """The newest value is sent to every node again; nothing is sent before there is one."""
        self.broadcast.repeat()
        self.assertEqual(self.door.got, [])
        self.broadcast.put(1)
        self.broadcast.repeat()
        self.assertEqual(self.door.got, [("node1", 1), ("node2", 1)] * 2)
        self.assertEqual(self.broadcast.behind, ())
