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
from ganeti_masterd.query import slices as slices_module
from ganeti_masterd.query.slices import Slices, then
from ganeti_masterd.timing import Timers


class Turns:
    """A reactor that is stepped turn by turn; each reading of its clock takes time."""

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
    """The queue of long work."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.slices = Slices(Timers(self.reactor), 80)  # type: ignore[arg-type]

    def test_short(self) -> None:
        """Short work is done at once."""
        self.assertEqual(self.slices.run(range(8), 10, list), [list(range(8))])
        self.assertEqual(self.slices.run([], 10, list), [[]])
        self.assertEqual(self.reactor.calls, [])

    def test_crowd(self) -> None:
        """Many long answers aren't all made at once: with much at hand one is finished first."""
        self.patch(slices_module, "MOST_KEPT", 4000)
        held: list[bytes] = []
        highest = 0

        def part(items: Sequence[int]) -> bytes:
            nonlocal highest
            held.append(b"x" * 100 * len(items))
            highest = max(highest, sum(map(len, held)))
            return held[-1]

        def done(parts: list[bytes]) -> None:
            for each in parts:
                held.remove(each)

        for _ in range(50):
            work = self.slices.run(range(40), 10, part)  # 4000 bytes each, 200,000 in all
            assert isinstance(work, Deferred)
            work.addCallback(done)
        self.reactor.turns()
        self.assertEqual(held, [])
        self.assertLess(highest, 9000)

    def test_long(self) -> None:
        """Long work takes several turns; its parts are in order, and none is lost."""
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.assertNoResult(done)
        self.assertEqual(self.reactor.turns(), 4)
        parts = self.successResultOf(done)
        self.assertEqual([item for part in parts for item in part], list(range(30)))

    def test_costly(self) -> None:
        """A slice ends when its time is up, even if it has not used its weight."""
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
        """An exception fails only its own work."""

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
        """Unfinished work fails when the queue is closed."""
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.slices.close()
        self.failureResultOf(done, DaemonStopping)
        self.reactor.turns()

    def test_close_for_good(self) -> None:
        """Once closed it refuses long work; work that fits one slice is still done."""
        self.slices.close()
        done = self.slices.run(range(30), 10, list)
        assert isinstance(done, Deferred)
        self.failureResultOf(done, DaemonStopping)
        self.assertEqual(self.slices.run(range(2), 10, list), [[0, 1]])

    def test_cancel(self) -> None:
        """Cancelled work takes no more turns; other work goes on."""
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
        """Work that is cancelled during its slice ends with that batch."""
        seen: list[int] = []

        def cancelling(part: Sequence[int]) -> None:
            seen.extend(part)
            done.cancel()

        done: Any = self.slices.run(range(30), 10, cancelling)
        self.reactor.turns()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(seen, [0])

    def test_cancel_then_raise(self) -> None:
        """An exception in work that was cancelled meanwhile is ignored."""

        def failing(part: Sequence[int]) -> None:
            done.cancel()
            raise ValueError("no")

        done: Any = self.slices.run(range(30), 10, failing)
        self.reactor.turns()
        self.failureResultOf(done, CancelledError)

    def test_cancel_lets_go(self) -> None:
        """Objects that cancelled work held are released at once."""

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
        """The function is applied to a value at once, to a Deferred's result when it fires."""
        self.assertEqual(then(1, lambda one: one + 1), 2)
        waiting: Deferred[int] = Deferred()
        after: Any = then(waiting, str)
        waiting.callback(2)
        self.assertEqual(self.successResultOf(after), "2")
