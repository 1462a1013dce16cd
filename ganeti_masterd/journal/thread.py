"""The disk thread: urgent work first, a round of following between.

Work (commits, effects) runs in the order in which it came. A round is a
generator of short steps; one step runs whenever no work waits. So work never
waits for more than one step, unless the round is told to hurry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from ganeti_masterd.journal.progress import DiskProgress

Work = Callable[[], Any]
DiskAnswer = Callable[[Any], object]

#: A step of a round yields it when nothing can be done before ``resume``, else None.
WAITING = object()
Steps = Iterator[object]


class IDiskThread(Interface):
    """Runs blocking disk work one at a time; its methods are for the reactor thread.

    Each ``answer`` is called in the reactor thread, once, in the order in which
    things ended, with the result or with a ``Failure``.
    """

    progress: DiskProgress = Attribute("What the thread is doing.")

    def start() -> None:
        """Begins to work; what was given before waits until then."""

    def do(work: Work, answer: DiskAnswer) -> None:
        """Runs ``work()`` after all work given before, and before the next step of a round."""

    def follow(steps: Steps, answer: DiskAnswer) -> None:
        """Runs a round step by step; answers None at its end. One round at a time."""

    def hurry(steps: int) -> None:
        """Runs so many steps of the round, if there are, before the work given after this."""

    def resume() -> None:
        """Lets a round that waits go on. For any thread."""

    def stop(answer: DiskAnswer) -> None:
        """Ends after all that was given before, also the round, then answers None."""


class WorkOrder:
    """What the thread does next; pure, in the thread that works.

    ``closed`` is true once nothing is left to do and nothing will come.
    """

    def __init__(self) -> None:
        self._round: tuple[Steps, DiskAnswer] | None = None
        self._last: DiskAnswer | None = None
        self._waiting = False
        self.closed = False

    @property
    def between(self) -> bool:
        """Whether a step can run while no work waits."""
        return not self._waiting and (self._round is not None or self._last is not None)

    def take_round(self, steps: Steps, answer: DiskAnswer) -> None:
        """Takes a round; the one before must have ended."""
        assert self._round is None
        self._round = steps, answer

    def take_stop(self, answer: DiskAnswer) -> None:
        """Ends after the round, if there is one."""
        self._last = answer

    def resume(self) -> None:
        """Lets a round that waits go on."""
        self._waiting = False

    def work(self, work: Work, answer: DiskAnswer) -> tuple[DiskAnswer, Any]:
        """Runs urgent work; returns whom to answer, and what."""
        return answer, _result(work)

    def steps(self, count: int) -> tuple[DiskAnswer, Any] | None:
        """Runs steps of the round, if there is one; returns as :meth:`step` at its end."""
        for _ in range(count):
            if self._round is None or self._waiting:
                break
            ended = self.step()
            if ended is not None:
                return ended
        return None

    def step(self) -> tuple[DiskAnswer, Any] | None:
        """Runs one step of the round; returns whom to answer, and what, at an end."""
        if self._round is not None:
            steps, answer = self._round
            result = _result(lambda: next(steps, _END))
            if result is not _END and not isinstance(result, Failure):
                self._waiting = result is WAITING
                return None
            self._round = None
            return answer, None if result is _END else result
        assert self._last is not None
        self.closed = True
        return self._last, None


_END = object()

# Takes the order; returns whom to answer, and what, if anyone.
_Item = Callable[[WorkOrder], tuple[DiskAnswer, Any] | None]


@implementer(IDiskThread)
class DiskThread:
    """An :class:`IDiskThread` with a real thread, which ends with the process if not stopped.

    ``purpose`` is what :attr:`progress` says of work that doesn't say more.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        name: str = "disk",
        purpose: str = "work in the queue's folder",
    ) -> None:
        self.progress = DiskProgress(purpose)
        self._reactor = reactor
        self._items: SimpleQueue[_Item] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """See :meth:`IDiskThread.start`."""
        self._thread.start()

    def do(self, work: Work, answer: DiskAnswer) -> None:
        """See :meth:`IDiskThread.do`."""
        self._items.put(lambda order: order.work(work, answer))

    def run(self, work: Work) -> Deferred[Any]:
        """Runs ``work()`` as :meth:`do` does; fires in the reactor thread with its result."""
        done: Deferred[Any] = Deferred()
        self.do(work, done.callback)
        return done

    def follow(self, steps: Steps, answer: DiskAnswer) -> None:
        """See :meth:`IDiskThread.follow`."""
        self._items.put(lambda order: order.take_round(steps, answer))

    def hurry(self, steps: int) -> None:
        """See :meth:`IDiskThread.hurry`."""
        self._items.put(lambda order: order.steps(steps))

    def resume(self) -> None:
        """See :meth:`IDiskThread.resume`."""
        self._items.put(WorkOrder.resume)

    def stop(self, answer: DiskAnswer) -> None:
        """See :meth:`IDiskThread.stop`."""

        def ended(result: Any) -> None:
            self._thread.join()
            answer(result)

        self._items.put(lambda order: order.take_stop(ended))

    def close(self) -> Deferred[None]:
        """Stops as :meth:`stop` does; fires when the thread has ended."""
        done: Deferred[None] = Deferred()
        self.stop(done.callback)
        return done

    def _run(self) -> None:
        order, progress = WorkOrder(), self.progress
        while not order.closed:
            try:
                item = self._items.get(block=not order.between)
            except Empty:
                item = WorkOrder.step
            progress.begin()
            ended = item(order)
            progress.end()
            if ended is not None:
                self._reactor.callFromThread(*ended)


def _result(work: Work) -> Any:
    try:
        return work()
    except Exception:
        return Failure()
