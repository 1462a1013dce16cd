"""Hops: whatever happens in the reactor, the thread that waits is told, once."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet import reactor as _reactor  # noqa: TID251
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ganeti_masterd.errors import DaemonStopping, OpExecError, OpPrereqError
from ganeti_masterd.execution.hops import STOPPING, GivenUp, Hops
from ganeti_masterd.mailbox import Mailbox

reactor: Any = _reactor

#: Seconds after which a thread that is not told counts as stuck.
STUCK = 10.0


class Letters:
    """A reactor that does what threads ask of it when the test says so."""

    def __init__(self) -> None:
        self._letters: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self._letters.put((function, args))

    def read_one(self) -> None:
        """Does the oldest thing asked; waits until there is one."""
        function, args = self._letters.get(timeout=STUCK)
        function(*args)


class Waiting(Thread):
    """A thread that hops once, and keeps what came of it."""

    def __init__(self, hops: Hops, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._hops, self._function, self._args = hops, function, args
        self._outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        try:
            self._outcome.put((self._hops.wait(self._function, *self._args), None))
        except BaseException as error:
            self._outcome.put((None, error))

    def result(self) -> Any:
        """What the hop returned; raises what it raised, or ``Empty`` if it is stuck."""
        result, error = self._outcome.get(timeout=STUCK)
        self.join(STUCK)
        if error is not None:
            raise error
        return result

    @property
    def told(self) -> bool:
        return not self._outcome.empty()


class HopsTests(SynchronousTestCase):
    """The reactor's side step by step; the thread is a real one."""

    def setUp(self) -> None:
        self.letters = Letters()
        self.hops = Hops(self.letters)  # type: ignore[arg-type]

    def hop(self, function: Callable[..., Any], *args: Any) -> Waiting:
        """Hops in a thread, up to what the function returned in the reactor."""
        waiting = Waiting(self.hops, function, *args)
        self.letters.read_one()
        return waiting

    def test_value(self) -> None:
        """A value is returned as it is, and no hop is left open."""
        self.assertEqual(self.hop(lambda one, two: one + two, 1, 2).result(), 3)
        self.assertIsNone(self.hop(lambda: None).result())
        self.assertEqual(len(self.hops), 0)

    def test_raises(self) -> None:
        """What the function raises is raised in the thread."""

        def refuse() -> None:
            raise OpPrereqError("no")

        self.assertRaises(OpPrereqError, self.hop(refuse).result)
        self.assertRaises(ZeroDivisionError, self.hop(lambda: 1 // 0).result)
        self.assertEqual(len(self.hops), 0)

    def test_deferred(self) -> None:
        """A Deferred is waited for; one that has fired is not."""
        done: Deferred[int] = Deferred()
        waiting = self.hop(lambda: done)
        self.assertEqual((len(self.hops), waiting.told), (1, False))
        done.callback(7)
        self.assertEqual((waiting.result(), len(self.hops)), (7, 0))
        self.assertEqual(self.hop(lambda: succeed(8)).result(), 8)
        self.assertEqual(len(self.hops), 0)

    def test_deferred_fails(self) -> None:
        """Its failure is raised in the thread, and logged nowhere else."""
        done: Deferred[int] = Deferred()
        waiting = self.hop(lambda: done)
        done.errback(OpExecError("broken"))
        self.assertRaises(OpExecError, waiting.result)
        self.assertRaises(OpExecError, self.hop(lambda: fail(OpExecError("at once"))).result)
        self.assertEqual((len(self.hops), self.flushLoggedErrors()), (0, []))

    def test_deferred_cancelled(self) -> None:
        """A Deferred that others cancel ends its hop with that."""
        done: Deferred[int] = Deferred()
        waiting = self.hop(lambda: done)
        done.cancel()
        self.assertRaises(CancelledError, waiting.result)
        self.assertEqual(len(self.hops), 0)

    def test_close(self) -> None:
        """Closing ends every hop that is open, with the reason given; each is cancelled."""
        cancelled: list[Deferred[Any]] = []
        waiting = [self.hop(lambda: Deferred(cancelled.append)) for _ in range(3)]
        self.hops.close("out of order")
        for each in waiting:
            error = self.assertRaises(GivenUp, each.result)
            self.assertEqual(str(error), "out of order")
            self.assertIsInstance(error, DaemonStopping)
            self.assertIsInstance(error, OpExecError)
        self.assertEqual((len(cancelled), len(self.hops)), (3, 0))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_usual_reason(self) -> None:
        """Unless told the reason is that the daemon stops."""
        waiting = self.hop(Deferred)
        self.hops.close()
        self.assertEqual(str(self.assertRaises(GivenUp, waiting.result)), STOPPING)

    def test_later_hops(self) -> None:
        """Hops that begin after the close fail at once; their function is not called."""
        calls: list[int] = []
        self.hops.close("out of order")
        for _ in range(2):
            error = self.assertRaises(GivenUp, self.hop(calls.append, 1).result)
            self.assertEqual(str(error), "out of order")
        self.assertEqual(calls, [])

    def test_on_its_way(self) -> None:
        """So does a hop that the reactor had not begun when it closed."""
        waiting = Waiting(self.hops, lambda: 1)
        self.hops.close()
        self.letters.read_one()
        self.assertRaises(GivenUp, waiting.result)

    def test_first_outcome_counts(self) -> None:
        """What a Deferred says after the close is no news, good or bad."""
        for fire in (lambda done: done.callback(1), lambda done: done.errback(OpExecError("x"))):
            hops = self.hops = Hops(self.letters)  # type: ignore[arg-type]
            done: Deferred[Any] = Deferred(lambda _, fire=fire: fire(_))  # type: ignore[misc]
            waiting = self.hop(lambda done=done: done)
            hops.close()
            self.assertRaises(GivenUp, waiting.result)
            self.assertFalse(waiting.told)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_tell(self) -> None:
        """What is told is done, and nobody waits for it."""
        told: list[int] = []
        self.hops.tell(told.append, 1)
        self.assertEqual(told, [])
        self.letters.read_one()
        self.assertEqual(told, [1])


class ReactorTests(TestCase):
    """Over a real reactor and its mailbox."""

    timeout = 30

    async def test_from_threads(self) -> None:
        """Threads hop, many times; what they ask runs in the reactor's thread."""
        hops = Hops(Mailbox(reactor))
        sums: list[int] = []

        def work() -> int:
            total = 0
            for number in range(100):
                total += hops.wait(int, number)
            hops.tell(sums.append, total)
            return total

        threads = [deferToThread(work) for _ in range(4)]
        self.assertEqual([await each for each in threads], [4950] * 4)
        await deferToThread(hops.wait, lambda: None)
        self.assertEqual((sums, len(hops)), ([4950] * 4, 0))

    async def test_close_from_the_reactor(self) -> None:
        """A thread that waits in a hop goes on once the reactor closes."""
        hops = Hops(Mailbox(reactor))
        begun: Deferred[None] = Deferred()

        def endless() -> Deferred[None]:
            reactor.callLater(0, begun.callback, None)
            return Deferred()

        waiting = Waiting(hops, endless)
        await begun
        hops.close("enough")
        with self.assertRaises(GivenUp):
            await deferToThread(waiting.result)
