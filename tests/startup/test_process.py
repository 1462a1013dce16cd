"""The process: signals, its end, systemd, child processes, and messages of the start."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from twisted.application.service import Application, IProcess
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup import ending as ending_module
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.checks import StartRefused
from ganeti_masterd.startup.child import ChildFailed, in_child
from ganeti_masterd.startup.ending import Ending
from ganeti_masterd.startup.launch import Launch, dress, leave
from ganeti_masterd.startup.logs import Logs
from ganeti_masterd.startup.notify import ALIVE, READY, Notifier, notifier
from ganeti_masterd.startup.signals import Signals
from tests.startup.scene import RootTestCase


class Reactor:
    """A reactor that only records what it was asked to do."""

    def __init__(self) -> None:
        self.when_running: list[Callable[[], object]] = []
        self.triggers: list[tuple[Any, ...]] = []

    def callWhenRunning(self, function: Callable[[], object]) -> None:
        self.when_running.append(function)

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def addSystemEventTrigger(self, *args: Any) -> None:
        self.triggers.append(args)


class SignalTests(SynchronousTestCase):
    """The daemon's own handlers."""

    def test_handlers(self) -> None:
        """The handlers are installed before the reactor's own, and again after those."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        reactor = Reactor()
        told: list[object] = []
        signals = Signals(reactor, told.append, lambda: told.append("reopen"))
        signals.install()
        self.assertEqual(signal.getsignal(signal.SIGTERM), signals.received)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        (again,) = reactor.when_running
        again()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        self.assertEqual(told, [signal.SIGTERM, "reopen", signal.SIGINT, signal.SIGTERM])


class EndingTests(SynchronousTestCase):
    """How the process ends."""

    def setUp(self) -> None:
        self.ends: list[tuple[str, int]] = []
        self.patch(ending_module.os, "_exit", lambda code: self.ends.append(("exit", code)))
        self.patch(ending_module.os, "kill", lambda _, number: self.ends.append(("kill", number)))
        self.patch(ending_module.signal, "signal", lambda *_: None)
        self.at_exit: list[Callable[[], object]] = []
        self.reactor = Reactor()

    def arrange(self, ending: Ending) -> None:
        """Arranges the end and then runs it; returns what the process did."""
        ending.arrange(self.reactor, self.at_exit.append)
        for function in self.at_exit:
            function()

    def test_by_itself(self) -> None:
        """Without a signal and a failure nothing is arranged."""
        self.arrange(Ending())
        self.assertEqual((self.ends, self.reactor.triggers), ([], []))

    def test_signal(self) -> None:
        """A daemon that was stopped by a signal ends by the same signal."""
        ending = Ending()
        ending.signal = signal.SIGTERM
        self.arrange(ending)
        self.assertEqual(self.ends, [("kill", signal.SIGTERM)])

    def test_code(self) -> None:
        """A failure's exit code takes precedence over the signal."""
        ending = Ending()
        ending.signal = signal.SIGTERM
        ending.failed()
        self.arrange(ending)
        self.assertEqual(self.ends[0], ("exit", 1))

    def test_stuck(self) -> None:
        """With a stuck thread it ends when the reactor has stopped, without twistd's PID file."""
        path = self.mktemp()
        with open(path, "w"):
            pass
        ending = Ending(path)
        ending.stuck = True
        self.arrange(ending)
        self.assertEqual((self.at_exit, self.ends), ([], []))
        ((phase, event, function),) = self.reactor.triggers
        self.assertEqual((phase, event), ("after", "shutdown"))
        function()
        self.assertEqual(self.ends, [("exit", 0)])
        self.assertFalse(os.path.exists(path))


class NotifyTests(RootTestCase):
    """systemd is notified of the daemon's state."""

    def test_tells(self) -> None:
        """A state is one datagram to the socket that systemd named."""
        path = self.root + "/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(path)
            Notifier({"NOTIFY_SOCKET": path}).tell(READY)
            self.assertEqual(systemd.recv(100), b"READY=1")

    def test_abstract(self) -> None:
        """The socket may be in the abstract namespace."""
        name = f"gnt-masterd-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind("\0" + name)
            Notifier({"NOTIFY_SOCKET": "@" + name}).tell(ALIVE)
            self.assertEqual(systemd.recv(100), b"WATCHDOG=1")

    def test_nobody(self) -> None:
        """Without systemd nothing is sent; if its socket is gone, that is ignored."""
        sockets: list[Any] = []
        real = socket.socket

        def made(*given: Any) -> socket.socket:
            sockets.append(given)
            return real(*given)

        self.patch(socket, "socket", made)
        Notifier({}).tell(READY)
        self.assertEqual(sockets, [])
        gone = self.root + "/gone"
        Notifier({"NOTIFY_SOCKET": gone}).tell(READY)
        self.assertEqual(len(sockets), 1)
        self.assertFalse(os.path.exists(gone))

    def test_watchdog(self) -> None:
        """Keep-alives are due at half the interval that systemd allows."""
        self.assertEqual(
            Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}).watchdog, 1.5
        )
        for usec in ("", "0", "x", "-1"):
            self.assertIsNone(Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": usec}).watchdog)

    def test_environment(self) -> None:
        """The notification variables are removed from the environment of child processes."""
        environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "PATH": "/bin"}
        self.assertEqual(notifier(environment).watchdog, 1.0)
        self.assertEqual(environment, {"PATH": "/bin"})


class Answer(Struct, frozen=True):
    """What a child sends back."""

    number: int
    text: str


class ChildTests(SynchronousTestCase):
    """Work that needs a reactor, run in a child process before this process's reactor runs."""

    def run_child(self, work: Callable[[SelectReactor], Deferred[Any]]) -> Any:
        """Runs the work in a child, with a reactor that has not run."""
        reactor = SelectReactor()
        before = os.listdir("/proc/self/fd")
        try:
            return in_child(reactor, lambda: work(reactor), Answer)
        finally:
            self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))

    def test_result(self) -> None:
        """The result comes back, and the work was done in the child."""
        answer = self.run_child(lambda _: succeed(Answer(os.getpid(), "\u00e4")))
        self.assertEqual(answer.text, "\u00e4")
        self.assertNotEqual(answer.number, os.getpid())
        self.assertRaises(ChildProcessError, os.waitpid, answer.number, os.WNOHANG)

    def test_time(self) -> None:
        """The child's reactor runs delayed calls."""

        def work(reactor: SelectReactor) -> Deferred[Answer]:
            done: Deferred[Answer] = Deferred()
            reactor.callLater(0.01, done.callback, Answer(1, "x" * 200_000))
            return done

        self.assertEqual(len(self.run_child(work).text), 200_000)

    def test_failure(self) -> None:
        """A failure is reported, whether ``work`` raised it or its Deferred failed."""

        def raises(_: SelectReactor) -> Deferred[Answer]:
            raise ValueError("no luck")

        for work in (raises, lambda _: fail(ValueError("no luck"))):
            error = self.assertRaises(ChildFailed, self.run_child, work)
            self.assertEqual(str(error), "ValueError: no luck")

    def test_death(self) -> None:
        """If the child dies, the error says how."""
        for end, told in (
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by signal 9"),
            (lambda: os._exit(3), "code 3"),
        ):

            def work(_: SelectReactor, end: Callable[[], Any] = end) -> Deferred[Answer]:
                end()
                return Deferred()

            error = self.assertRaises(ChildFailed, self.run_child, work)
            self.assertIn(told, str(error))


class LaunchTests(RootTestCase):
    """The messages for whoever starts the daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.out, self.error = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.error)

    def test_leave(self) -> None:
        """A refusal before the daemon has detached: the message, its stream and the exit code."""
        silent = Notifier({})
        not_master = StartRefused("Not master", 11, on_stdout=True)
        ended = self.assertRaises(SystemExit, leave, not_master, silent)
        self.assertEqual((ended.code, self.out.getvalue()), (11, "Not master\n"))
        ended = self.assertRaises(SystemExit, leave, StartRefused("no name", 12), silent)
        self.assertEqual((ended.code, self.error.getvalue()), (12, "gnt-masterd: no name\n"))

    def test_leave_is_no_failure(self) -> None:
        """If this node isn't the master, and only then, systemd is told READY."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(self.root + "/notify")
            systemd.setblocking(False)
            notifier = Notifier({"NOTIFY_SOCKET": self.root + "/notify"})
            self.assertRaises(SystemExit, leave, StartRefused("no name", 12), notifier)
            self.assertRaises(SystemExit, leave, StartRefused("no vote"), notifier)
            self.assertRaises(BlockingIOError, systemd.recv, 100)
            self.assertRaises(SystemExit, leave, StartRefused("Not master", 11), notifier)
            self.assertEqual(systemd.recv(100), b"READY=1")

    def test_foreground(self) -> None:
        """In the foreground no duplicate of standard error is kept."""
        for twistd in (
            None,
            {"nodaemon": True, "debug": False, "pidfile": ""},
            {"nodaemon": False, "debug": True, "pidfile": ""},
        ):
            launch = Launch(twistd)
            self.assertFalse(launch.detaches)
            self.assertIsNone(launch.pid_file)
            launch.succeeded()

    def test_detached(self) -> None:
        """The whole message reaches standard error, and twistd's parent learns of the failure."""
        pid_file = self.root + "/twistd.pid"
        with open(pid_file, "w"):
            pass
        kept, told = os.pipe()
        status, child = os.pipe()
        real = os.dup(2)
        try:
            os.dup2(told, 2)
            launch = Launch(
                {"nodaemon": False, "debug": False, "pidfile": pid_file, "statusPipe": child}
            )
        finally:
            os.dup2(real, 2)
            os.close(real)
        message = "why " * 100
        ended = self.assertRaises(SystemExit, launch.refuse, message)
        self.assertEqual(ended.code, 1)
        self.assertEqual(os.read(kept, 1000).decode(), f"gnt-masterd: {message}\n")
        found = os.read(status, 1000)
        self.assertTrue(found.startswith(b"1 "))
        self.assertLessEqual(len(found), 100)
        self.assertFalse(os.path.exists(pid_file))
        os.close(told)
        launch.succeeded()
        # The other end is closed, so reading to the end doesn't block.
        self.assertEqual(os.read(kept, 1), b"")
        for descriptor in (kept, status, child):
            os.close(descriptor)

    def test_dress(self) -> None:
        """The application gets its log observer, and the account if root started it."""
        logs = Logs(path=None, stream=self.out)
        application = Application("x")
        dress(application, logs, Account("u", "g", 54321, 54322))
        self.assertIs(application.getComponent(ILogObserver), logs.observer)
        process = IProcess(application)
        wanted = (54321, 54322) if os.geteuid() == 0 else (None, None)
        self.assertEqual((process.uid, process.gid), wanted)
        dress(application, logs, None)
