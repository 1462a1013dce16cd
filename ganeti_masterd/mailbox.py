"""How other threads reach the reactor: one wake-up for all that waits there.

Twisted wakes its reactor with a system call for each ``callFromThread``. A busy
daemon gets thousands of such calls a second, from opcodes and from the disk, most
of them while others wait already; and each system call costs the interpreter lock,
for which these threads then stand in line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()


@implementer(IReactorFromThreads)
class Mailbox:
    """Runs what other threads hand in, in the reactor thread, in the order of coming."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._letters: deque[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = (
            deque()
        )
        self._called = False

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **named: Any) -> None:
        """See ``IReactorFromThreads``: any thread; logs if ``callable`` raises."""
        self._letters.append((callable, args, named))
        # Whoever sees that the reactor was called put its letter there before the
        # reactor looks (see _empty).
        if not self._called:
            self._called = True
            self._reactor.callFromThread(self._empty)

    def _empty(self) -> None:
        self._called = False
        letters = self._letters
        # What comes meanwhile calls again: sockets and timers have their turn between.
        for _ in range(len(letters)):
            function, args, named = letters.popleft()
            try:
                function(*args, **named)
            except Exception:
                log.failure("What another thread handed in failed: {function}", function=function)
