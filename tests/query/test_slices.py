"""Long work in slices."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import DaemonStopping
from ganeti_masterd.query.slices import Slices, then
from ganeti_masterd.timing import Timers


class Turns:
    """A reactor whose turns are taken one by one; each look at the time costs."""

    def __init__(self, cost: float = 0.0) -> None:
        self.calls: list[Any] = []
        self.time = 0.0
        self.cost = cost

    def seconds(self) -> float:
        self.time += self.cost
        return self.time

    def callLater(self, delay: float, function: Any, *args: Any) -> Any:
        self.calls.append((function, args))
        return Clock().callLater(delay, function, *args)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for function, args in calls:
            function(*args)

    def turns(self) -> int:
        """Takes turns until nothing is left to do; returns how many."""
        count = 0
        while self.calls:
            self.turn()
            count += 1
        return count


class SliceTests(SynchronousTestCase):
    """The line of long work."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.slices = Slices(Timers(self.reactor), 80)  # type: ignore[arg-type]

    def test_short(self) -> None:
        """Short work is done at once."""
        self.assertEqual(self.slices.run(range(8), 10, list), [list(range(8))])
        self.assertEqual(self.slices.run([], 10, list), [[]])
        self.assertEqual(self.reactor.calls, [])

    def test_long(self) -> None:
        """Long work takes several turns; the parts come in order, none is lost."""
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.assertNoResult(done)
        self.assertEqual(self.reactor.turns(), 4)
        parts = self.successResultOf(done)
        self.assertEqual([item for part in parts for item in part], list(range(30)))

    def test_costly(self) -> None:
        """A slice ends when its time is up, whatever is left of its weight."""
        self.reactor.cost = 1.0
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.assertEqual(self.reactor.turns(), 30)
        self.assertEqual(len(self.successResultOf(done)), 30)

    def test_take_turns(self) -> None:
        """Several pieces of work take turns, one slice in each turn of the reactor."""
        order: list[str] = []
        one = self.slices.run(range(16), 10, lambda part: order.extend("a" * len(part)))
        two = self.slices.run(range(16), 10, lambda part: order.extend("b" * len(part)))
        assert isinstance(one, Deferred)
        assert isinstance(two, Deferred)
        self.reactor.turn()
        self.assertEqual(order, ["a"] * 8)
        self.assertEqual(self.reactor.turns(), 3)
        self.assertEqual("".join(order), ("a" * 8 + "b" * 8) * 2)
        self.successResultOf(one)
        self.successResultOf(two)

    def test_fault(self) -> None:
        """A fault fails its own work only."""

        def fail(part: Any) -> None:
            raise ValueError("no")

        bad = self.slices.run(range(30), 10, fail)
        good = self.slices.run(range(30), 10, list)
        assert isinstance(bad, Deferred)
        assert isinstance(good, Deferred)
        self.reactor.turns()
        self.failureResultOf(bad, ValueError)
        self.assertEqual(sum(len(part) for part in self.successResultOf(good)), 30)
        self.assertRaises(ValueError, self.slices.run, range(2), 10, fail)

    def test_close(self) -> None:
        """Work that is left at the end is given up."""
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.slices.close()
        self.failureResultOf(done, DaemonStopping)
        self.reactor.turns()

    def test_close_for_good(self) -> None:
        """Once closed it takes no long work; what fits one slice is still done."""
        self.slices.close()
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.failureResultOf(done, DaemonStopping)
        self.assertEqual(self.slices.run(range(2), 10, list), [[0, 1]])

    def test_cancel(self) -> None:
        """Cancelled work takes no more turns; the rest of the line goes on."""
        seen: list[int] = []
        gone = self.slices.run(range(30), 10, seen.extend)
        stays = self.slices.run(range(30), 10, list)
        assert isinstance(gone, Deferred)
        assert isinstance(stays, Deferred)
        self.reactor.turn()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.reactor.turns()
        self.assertEqual(seen, list(range(8)))
        self.assertEqual(sum(len(part) for part in self.successResultOf(stays)), 30)

    def test_cancel_within_a_slice(self) -> None:
        """Work that is cancelled while it has its turn ends with that batch."""
        seen: list[int] = []

        def cancelling(part: Sequence[int]) -> None:
            seen.extend(part)
            done.cancel()

        done: Any = self.slices.run(range(30), 10, cancelling)
        self.reactor.turns()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(seen, [0])

    def test_cancel_then_raise(self) -> None:
        """A fault of work that was cancelled meanwhile is nobody's."""

        def failing(part: Sequence[int]) -> None:
            done.cancel()
            raise ValueError("no")

        done: Any = self.slices.run(range(30), 10, failing)
        self.reactor.turns()
        self.failureResultOf(done, CancelledError)

    def test_cancel_lets_go(self) -> None:
        """What cancelled work held is free at once."""

        class Row:
            pass

        rows = [Row() for _ in range(30)]
        first = weakref.ref(rows[0])
        done: Any = self.slices.run(rows, 10, list)
        self.reactor.turn()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        del rows, done
        gc.collect()
        self.assertIsNone(first())

    def test_then(self) -> None:
        """What is there goes on at once, what isn't goes on when it is."""
        self.assertEqual(then(1, lambda one: one + 1), 2)
        waiting: Deferred[int] = Deferred()
        after: Any = then(waiting, str)
        waiting.callback(2)
        self.assertEqual(self.successResultOf(after), "2")
