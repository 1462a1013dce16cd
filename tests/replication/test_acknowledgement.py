"""When a commit is acknowledged, and how long it is waited for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.replication.acknowledgement import Ack, Acknowledgements, Mark, acknowledged
from ganeti_masterd.timing import Timers

MARKS = st.builds(Mark, st.none() | st.integers(0, 9), st.booleans())

HERE, BEHIND, STALE = Mark(5, True), Mark(4, True), Mark(None, False)


class RuleTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Whether publication 5 is acknowledged in each mode, for the usual cases."""
        for marks, candidates, majority in (
            ([], True, True),
            ([HERE], True, True),
            ([BEHIND], False, False),
            ([STALE], True, False),
            ([HERE, HERE], True, True),
            ([HERE, BEHIND], False, True),
            ([HERE, STALE], True, True),
            ([STALE, STALE], True, False),
            ([Mark(5, False), STALE], True, True),
            ([Mark(None, True), HERE], False, True),
            ([HERE, STALE, STALE], True, False),
        ):
            self.assertTrue(acknowledged(Ack.LOCAL, 5, marks))
            self.assertEqual(acknowledged(Ack.CANDIDATES, 5, marks), candidates, marks)
            self.assertEqual(acknowledged(Ack.MAJORITY, 5, marks), majority, marks)

    @settings(deadline=None)
    @given(st.sampled_from(Ack), st.integers(1, 9), st.lists(MARKS, max_size=6))
    def test_older_ones_are_done_too(self, ack: Ack, number: int, marks: list[Mark]) -> None:
        """If a publication is acknowledged, so are earlier ones, and it stays so as marks rise."""
        if acknowledged(ack, number, marks):
            self.assertTrue(acknowledged(ack, number - 1, marks))
            better = [Mark(None if m.watermark is None else 9, m.awaited) for m in marks]
            self.assertTrue(acknowledged(ack, number, better))


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.done = 0
        self.late: list[int] = []
        self.waiting = Acknowledgements(
            self.timers, 10, lambda number: number <= self.done, self.late.append
        )

    def test_in_order(self) -> None:
        """Deferreds fire in order, each once its publication is acknowledged."""
        told: list[int] = []
        for number in (1, 2, 3):
            self.waiting.wait(number).addCallback(lambda _, n=number: told.append(n))
        self.done = 2
        self.waiting.moved()
        self.assertEqual(told, [1, 2])
        self.assertEqual(len(self.waiting), 1)
        self.done = 3
        self.waiting.moved()
        self.assertEqual(told, [1, 2, 3])
        self.assertEqual(len(self.timers), 0)

    def test_done_already(self) -> None:
        """An acknowledged publication fires at once, unless earlier ones still wait."""
        self.done = 1
        self.successResultOf(self.waiting.wait(1))
        self.assertNoResult(self.waiting.wait(2))

    def test_overdue_once(self) -> None:
        """A publication that waits too long is reported once."""
        self.waiting.wait(1)
        self.clock.advance(4)
        self.waiting.wait(2)
        self.clock.advance(6)
        self.assertEqual(self.late, [1])
        self.clock.advance(4)
        self.assertEqual(self.late, [1, 2])
        self.clock.advance(100)
        self.assertEqual(self.late, [1, 2])

    def test_release(self) -> None:
        """``release`` fires all Deferreds and leaves no timer."""
        waiting = [self.waiting.wait(number) for number in (1, 2)]
        self.waiting.release()
        for each in waiting:
            self.successResultOf(each)
        self.assertEqual(len(self.timers), 0)

    def test_release_from_one_that_is_told(self) -> None:
        """A callback may release the rest, wait again, or cancel another Deferred."""
        waiting = [self.waiting.wait(number) for number in (1, 2, 3)]
        waiting[0].addCallback(lambda _: self.waiting.release())
        self.done = 3
        self.waiting.moved()
        for each in waiting:
            self.successResultOf(each)
        self.done = 0
        again = [self.waiting.wait(number) for number in (4, 5, 6)]
        again[0].addCallback(lambda _: again[1].cancel())
        anew: list[Deferred[None]] = []
        again[2].addCallback(lambda _: anew.append(self.waiting.wait(7)))
        again[0].addCallback(lambda _: self.waiting.release())
        self.waiting.release()
        self.failureResultOf(again[1], CancelledError)
        self.successResultOf(again[2])
        self.assertNoResult(anew[0])
        self.waiting.release()
        self.assertEqual((len(self.waiting), len(self.timers)), (0, 0))

    def test_report_that_raises(self) -> None:
        """If ``overdue`` raises, publications that are late afterwards are still reported."""
        self.patch(self.waiting, "_overdue", lambda number: self.late.append(number) or 1 // 0)
        self.waiting.wait(1)
        self.clock.advance(4)
        self.waiting.wait(2)
        self.clock.advance(6)
        self.clock.advance(4)
        self.assertEqual(self.late, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
