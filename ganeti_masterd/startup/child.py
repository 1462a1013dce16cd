"""Runs something that needs the reactor before the daemon detaches: in a child process.

A reactor can run only once in a process, and twistd detaches before it runs the daemon's. So a
forked child runs its copy of the reactor, sends the result to its parent through a socket, and
exits before the parent goes on. It exits at once if the parent does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

T = TypeVar("T")


class ChildFailed(Exception):
    """The child process ended without a result; the text says how."""


class Runnable(Protocol):
    """A reactor that has not run yet."""

    def run(self, installSignalHandlers: bool = True) -> None:
        """See ``IReactorCore.run``."""

    def stop(self) -> None:
        """See ``IReactorCore.stop``."""

    def callWhenRunning(self, callable: Callable[..., Any], *args: Any) -> object:
        """See ``IReactorCore.callWhenRunning``."""

    def addReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet.addReader``."""


def in_child(reactor: Runnable, work: Callable[[], Deferred[T]], kind: type[T]) -> T:
    """Runs ``work`` in the reactor of a child process and returns what it fires with.

    ``kind`` is the result's type; the result must be serializable as JSON. This process must have
    no other threads, and the reactor must not have run. Raises :class:`ChildFailed` if there is no
    result; if ``work`` raised, the text has its exception.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            theirs.sendall(_outcome(reactor, work, theirs))
            sys.stderr.flush()
            code = 0
        finally:
            os._exit(code)
    theirs.close()
    received = b""
    try:
        while part := ours.recv(65536):
            received += part
    finally:
        ours.close()
        _, status = os.waitpid(pid, 0)
    if not received or status:
        raise ChildFailed(f"the process that asks the nodes {_ending(status)}")
    good, text = msgspec.json.decode(received, type=tuple[bool, msgspec.Raw])
    if not good:
        raise ChildFailed(msgspec.json.decode(text, type=str))
    return msgspec.json.decode(text, type=kind)


def _outcome(reactor: Runnable, work: Callable[[], Deferred[Any]], theirs: socket.socket) -> bytes:
    outcome: list[tuple[bool, Any]] = []

    def ended(result: Any) -> None:
        if isinstance(result, Failure):
            outcome.append((False, f"{type(result.value).__name__}: {result.getErrorMessage()}"))
        else:
            outcome.append((True, result))
        reactor.stop()

    def begin() -> None:
        try:
            work().addBoth(ended)
        except Exception:
            ended(Failure())

    reactor.addReader(_Lifeline(theirs))
    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    return msgspec.json.encode(outcome[0])


@implementer(IReadDescriptor)
class _Lifeline:
    """Ends this process when the parent's end of the socket closes: the parent sends nothing."""

    def __init__(self, theirs: socket.socket) -> None:
        self._theirs = theirs

    def fileno(self) -> int:
        return self._theirs.fileno()

    def doRead(self) -> None:
        os._exit(1)

    def connectionLost(self, reason: Failure) -> None:
        """Stops the reactor."""

    def logPrefix(self) -> str:
        return "lifeline"


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was ended by signal {-code}" if code < 0 else f"ended without a result (code {code})"
