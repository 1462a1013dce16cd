"""The threads that opcodes block in: :class:`OpcodeThreads`, for ``deferToThreadPool``.

Twisted's own ``ThreadPool`` hands each call on through a team, a coordinator and a
queue of conditions, with a lock at each step that another thread may hold. Under load
that was a tenth of a short job's time; one ``SimpleQueue`` for all threads is not.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from msgspec import Struct
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

#: What is told of a call's end: whether it was good, and its result or ``Failure``.
WorkDone = Callable[[bool, Any], object]


class _Call(Struct, gc=False):
    """What one thread is to run."""

    told: WorkDone
    function: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]


class OpcodeThreads:
    """Up to ``limit`` threads, made as they are needed and kept.

    Nothing runs before :meth:`start` or after :meth:`stop`; what is handed in while all
    threads are at work waits for the first that is free.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = Lock()
        # Below the lock: calls that have not ended, threads that stay, and all that were made.
        self._load = 0
        self._staying = 0
        self._threads: list[Thread] = []
        self._running = False

    @property
    def limit(self) -> int:
        """The most threads that there may be."""
        return self._limit

    @property
    def busy(self) -> int:
        """How many threads are at work."""
        return min(self._load, self._staying)

    def start(self) -> None:
        """Lets calls run, those too that were handed in before."""
        with self._lock:
            self._running = True
            self._grow()

    def stop(self) -> None:
        """Lets the threads end what was handed in, and waits for them."""
        with self._lock:
            self._running = False
            self._leave(self._staying)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def set_limit(self, limit: int) -> None:
        """Lets there be at most ``limit`` threads; those too many end as they are free."""
        with self._lock:
            self._limit = limit
            self._leave(self._staying - limit)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._grow()

    def callInThreadWithCallback(
        self, onResult: WorkDone, func: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """See ``ThreadPool.callInThreadWithCallback``: ``onResult`` is called in the thread."""
        self._calls.put(_Call(onResult, func, args, kw))
        with self._lock:
            self._load += 1
            self._grow()

    def _grow(self) -> None:
        """Makes the threads that are lacking. Holds the lock."""
        while self._running and self._staying < min(self._load, self._limit):
            thread = Thread(target=self._work, name=f"opcode-{self._staying}")
            try:
                thread.start()
            except RuntimeError as error:
                # The system has no more; those that there are go on, each new call asks again.
                log.error("A thread for opcodes can't be made: {error}", error=error)
                return
            self._threads.append(thread)
            self._staying += 1

    def _leave(self, count: int) -> None:
        """Asks that many threads to end. Holds the lock."""
        for _ in range(count):
            self._staying -= 1
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._run(call)
            # Nothing of a call outlives it in a thread that waits.
            del call

    def _run(self, call: _Call) -> None:
        try:
            result = call.function(*call.args, **call.named)
            good = True
        except BaseException:
            result = Failure()
            good = False
        # First, so that whoever hears of the result finds the thread free.
        with self._lock:
            self._load -= 1
        try:
            call.told(good, result)
        except Exception:
            log.failure("The end of a call in an opcode's thread can't be told")
