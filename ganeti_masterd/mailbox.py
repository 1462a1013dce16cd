"""How other threads call into the reactor: one wake-up for all calls that are waiting.

Twisted wakes its reactor with a system call for each ``callFromThread``. A busy
daemon makes thousands of such calls a second, from opcodes and from the disk, most
of them while earlier ones are still waiting; and each system call releases the
interpreter lock, which these threads then compete for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()

#: Runs a function in another thread; the Deferred fires in the reactor thread with its result.
RunInThread = Callable[[Callable[[], Any]], Deferred[Any]]


@implementer(IReactorFromThreads)
class Mailbox:
    """Runs functions handed in by other threads, in the reactor thread and in order."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._letters: deque[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = (
            deque()
        )
        self._called = False

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **named: Any) -> None:
        """See ``IReactorFromThreads``. For any thread; an exception in ``callable`` is logged."""
        self._letters.append((callable, args, named))
        # A thread that finds `_called` set has already appended its letter, so the
        # pending `_empty` will see it: that clears the flag before it counts the letters.
        if not self._called:
            self._called = True
            self._reactor.callFromThread(self._empty)

    def _empty(self) -> None:
        self._called = False
        letters = self._letters
        # Letters that arrive meanwhile cause another call, so that sockets and timers get
        # their turn in between.
        for _ in range(len(letters)):
            function, args, named = letters.popleft()
            try:
                function(*args, **named)
            except Exception:
                log.failure("A call from another thread failed: {function}", function=function)
