"""``gnt-luxi top`` in a terminal, against a daemon that comes and goes."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte
import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.waiting import job_is, until

PROGRAM = Path(sys.executable).with_name("gnt-luxi")


class Terminal:
    """A terminal with a program in it; what it shows is a grid of characters."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._lock = threading.Lock()
        self._end, inner = pty.openpty()
        self._size(80, 24)
        self.settings = termios.tcgetattr(inner)
        self._inner = inner
        # Ctrl-C and a new size are signals to those whose terminal it is.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=environment,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.is_set():
            ready, _, _ = select.select([self._end], [], [], 0.1)
            if not ready:
                continue
            try:
                data = os.read(self._end, 1 << 16)
            except OSError as error:
                if error.errno == errno.EIO:
                    return
                raise
            with self._lock:
                self.raw += data
                self._stream.feed(data)

    def _size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        """Changes the size, as who drags the window's corner does."""
        with self._lock:
            self._screen.resize(height, width)
        self._size(width, height)  # which sends SIGWINCH

    def press(self, text: str) -> None:
        """Types keys."""
        os.write(self._end, text.encode())

    def text(self) -> str:
        """Returns what is on the screen."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def condition(self) -> str:
        """Returns what may explain a screen that doesn't change."""
        pid = self.process.pid
        if self.process.poll() is not None:
            return f"The program has ended with {self.process.returncode}"
        size = struct.unpack("HHHH", fcntl.ioctl(self._inner, termios.TIOCGWINSZ, b" " * 8))
        told = [f"terminal {size}, reader lives: {self._thread.is_alive()}, {self.raw[-300:]!r}"]
        for name in ("status", "wchan", "syscall"):
            told.append(Path(f"/proc/{pid}/{name}").read_text(errors="replace"))
        return "\n".join(told)

    def settings_now(self) -> list[object]:
        """Returns how the terminal handles keys now."""
        return list(termios.tcgetattr(self._inner))

    def shows(self, *texts: str) -> str:
        """Waits until all texts are on the screen."""
        return until(
            f"the screen shows {texts}",
            self.text,
            lambda screen: all(text in screen for text in texts),
            limit=30,
        )

    def ends(self) -> int:
        """Waits until the program has ended; returns its exit code."""
        return self.process.wait(30)

    def close(self) -> None:
        """Ends the program and the terminal."""
        self.process.kill()
        self.process.wait()
        self._over.set()
        self._thread.join()
        os.close(self._inner)
        os.close(self._end)


@contextmanager
def running(daemon: DaemonProcess, **environment: str) -> Iterator[Terminal]:
    """Runs top in a terminal."""
    command = [str(PROGRAM), f"--socket={daemon.socket}", "top", "--interval=0.2"]
    terminal = Terminal(command, {**daemon.environment, "TERM": "xterm-256color", **environment})
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def daemon(make_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that has been started."""
    made = make_daemon("--stop-timeout=0")
    made.start()
    return made


def test_jobs(daemon: DaemonProcess) -> None:
    """A job is seen as it runs, those that wait with the reason; it filters and follows."""
    client = daemon.client()
    opcode = {"OP_ID": "OP_TEST_DELAY", "on_nodes": ["node2"], "on_master": False, "duration": 300}
    first = client.submit_job([opcode])
    job_is(client, first, "running")
    failed = client.submit_job([{"OP_ID": "OP_INSTANCE_STARTUP", "instance_name": "nobody"}])
    job_is(client, failed, "error")
    after = {"OP_ID": "OP_TEST_DELAY", "duration": 0, "depends": [[first, ["success"]]]}
    waiting = client.submit_job([after])
    client.set_drain_flag(True)
    with running(daemon) as terminal:
        screen = terminal.shows("Running: 1", "Failed lately: 1", "! The queue is drained")
        assert "nobody" in screen
        assert screen.index("drained") < screen.index("Running")
        assert "3 nodes" in screen
        terminal.shows(f"Job {waiting} waits for the end of job {first}")
        terminal.press("/startup\r")
        terminal.shows("filter: startup", "Running: 0", "Failed lately: 1")
        terminal.press("\x1b")
        terminal.shows("Running: 1")
        terminal.press("j\r")
        terminal.shows(f"Job {first} running", "Esc back")
        client.cancel_job(first, kill=True)
        terminal.shows(f"Job {first} ")
        terminal.press("\x1b?")
        terminal.shows("Keys", "choose a job")
        terminal.press("q")
        assert terminal.ends() == 0
        assert terminal.settings_now() == list(terminal.settings)


def test_restart(daemon: DaemonProcess) -> None:
    """It says that the daemon is gone, and goes on by itself when that is back."""
    with running(daemon) as terminal:
        terminal.shows("3 nodes", "Running: 0")
        daemon.kill()
        terminal.shows("Not connected", "3 nodes")
        daemon.start()
        until("it is connected", terminal.text, lambda text: "Not connected" not in text)
        terminal.shows("3 nodes", "Running: 0")
        terminal.press("\x03")
        assert terminal.ends() == 130
        assert terminal.settings_now() == list(terminal.settings)


def test_size(daemon: DaemonProcess) -> None:
    """It fits every size, the smallest ones too, and follows a change at once.

    What a parent process says in the environment is not taken for the terminal's size.
    """
    with running(daemon, LINES="24", COLUMNS="80") as terminal:
        terminal.shows("q quit")
        for width, height in ((120, 40), (40, 10), (80, 24)):
            terminal.resize(width, height)

            def fits(screen: str, height: int = height) -> bool:
                lines = screen.split("\n")
                return len(lines) == height and "Enter follow" in lines[-1] and "master" in lines[0]

            try:
                until(f"it fits {width}x{height}", terminal.text, fits, limit=30)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{terminal.condition()}") from error
        terminal.resize(5, 2)
        terminal.resize(80, 24)
        terminal.shows("q quit")


def test_no_color(daemon: DaemonProcess) -> None:
    """With NO_COLOR nothing is coloured; without it what is wrong is."""
    daemon.client().set_drain_flag(True)
    with running(daemon, NO_COLOR="1") as terminal:
        terminal.shows("! The queue is drained")
        assert b"\x1b[1;31m" not in terminal.raw
        assert b"[31m" not in terminal.raw
    with running(daemon) as terminal:
        terminal.shows("! The queue is drained")
        assert b"\x1b[1;31m" in terminal.raw


def test_no_terminal(daemon: DaemonProcess) -> None:
    """Where it can't draw, it says so and what to use instead."""
    run = subprocess.run(
        [PROGRAM, f"--socket={daemon.socket}", "top"],
        env={**daemon.environment, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "top needs a terminal" in run.stderr
    assert run.stdout == ""


def test_dumb_terminal(daemon: DaemonProcess) -> None:
    """A terminal that can't move its cursor is refused."""
    with running(daemon, TERM="dumb") as terminal:
        terminal.shows("can't draw on this terminal (TERM=dumb)")
        assert terminal.ends() == 1
