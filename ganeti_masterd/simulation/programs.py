"""Programs that simulated nodes run for real: hooks and allocator scripts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ganeti_masterd.simulation.node import Finished


class Programs:
    """Runs programs and tracks them, so that none outlives the daemon."""

    def __init__(self, reactor: IReactorProcess) -> None:
        self._reactor = reactor
        self._running: set[_Program] = set()

    def __len__(self) -> int:
        return len(self._running)

    def run(
        self, argv: Sequence[str], environment: Mapping[str, str], directory: str = "/"
    ) -> Deferred[Finished]:
        """Runs a program with exactly that environment and nothing on its standard input.

        Fires with its output (stdout and stderr in order) and the reason if it failed. A program
        that can't be started counts as failed; the Deferred never fails.
        """
        program = _Program(self._running)
        try:
            transport = self._reactor.spawnProcess(
                program, argv[0], list(argv), env=dict(environment), path=directory
            )
        except (OSError, TypeError, ValueError) as error:  # the latter: bad arguments
            program.ended.callback(Finished(b"", str(error)))
            return program.ended
        program.started(transport)
        return program.ended

    def stop(self) -> None:
        """Kills whatever still runs."""
        for program in list(self._running):
            program.kill()


class _Program(ProcessProtocol):
    """One running program."""

    def __init__(self, running: set[_Program]) -> None:
        self.ended: Deferred[Finished] = Deferred()
        self._running = running
        self._output: list[bytes] = []
        self._stdout: list[bytes] = []
        self._process: IProcessTransport | None = None

    def started(self, transport: IProcessTransport) -> None:
        self._process = transport
        if not self.ended.called:
            self._running.add(self)

    def kill(self) -> None:
        if self._process is not None:
            # It may have ended while a child of it still holds its output open.
            with contextlib.suppress(ProcessExitedAlready):
                self._process.signalProcess("KILL")

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output.append(data)
        self._stdout.append(data)

    def errReceived(self, data: bytes) -> None:
        self._output.append(data)

    def processEnded(self, reason: Failure) -> None:
        self._running.discard(self)
        output, stdout = b"".join(self._output), b"".join(self._stdout)
        self.ended.callback(Finished(output, _why(reason), stdout))


def _why(reason: Failure) -> str | None:
    """Returns noded's message about how a program failed; None if it succeeded."""
    if reason.check(ProcessDone):
        return None
    ended = reason.value
    if isinstance(ended, ProcessTerminated):
        if ended.signal is not None:
            return f"terminated by signal {ended.signal}"
        return f"exited with exit code {ended.exitCode}"
    return reason.getErrorMessage()


def executable(path: str) -> bool:
    """Returns whether a path is an executable regular file."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
