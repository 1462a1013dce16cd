"""Job files in a process of their own: :class:`Clerk`.

A fifth of a busy daemon's time went into job files: seven system calls each, after each
of which the disk thread stood in line for the interpreter lock, with commits behind it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from select import POLLIN, poll
from threading import Thread

import msgspec
from twisted.logger import Logger

from ganeti_masterd.journal import clerk_process
from ganeti_masterd.journal.clerk_process import LONGEST, ClerkFault, FileGroup, Orders
from ganeti_masterd.journal.files import GROUP, File, in_groups
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.thread import WAITING

log = Logger()

#: From how many files on a round is the clerk's; a quiet daemon has none.
WORTH = 64
#: How many groups it has at once: enough that it never waits, few for it to end soon.
WINDOW = 2
#: How much content goes in a group, in bytes; a file that is larger is written here.
WEIGHT = 64 * 1024
#: Seconds until a clerk that should end is killed.
PATIENCE = 10.0
#: Seconds that it may take for a group. After that it is killed, as one that was stopped
#: (SIGSTOP) or hangs would keep all files waiting.
ANSWER_PATIENCE = 60.0
#: Seconds between two looks at whether it is late.
LOOK = 5.0
#: Seconds that a fault is shown after the daemon has taken over its work.
SHOWN = 300.0
#: Seconds until another is tried after one that never did anything: it may lack a right.
PAUSE = 60.0

#: The folder that holds this package.
_PACKAGES = os.path.abspath(__file__).rsplit(os.sep, 3)[0]


class _Gone:
    """The last answer: the process hung up."""


class _Process:
    """A clerk's process and its answers. ``answered`` is called for each, in any thread."""

    def __init__(
        self,
        groups: Mapping[str, int],
        keep: Sequence[int],
        answered: Callable[[], object],
        patience: float,
    ) -> None:
        """Starts it; raises ``OSError`` if that can't be done."""
        self._patience = patience
        #: Groups sent, by the disk thread, and answered, by the reader.
        self._sent = self._done = 0
        #: When the last group was sent or answered.
        self._heard = time.monotonic()
        #: Whether it was killed as it did not answer.
        self.silent = False
        self.answers: deque[ClerkFault | _Gone | None] = deque()
        #: Whether it has answered anything.
        self.served = False
        self._answered = answered
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                for end in (self._socket, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
                orders = Orders(theirs.fileno(), os.getpid(), groups)
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", clerk_process.__name__),
                        msgspec.json.encode(orders).decode(),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *keep],
                    # The very modules of this process, wherever they came from.
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join([_PACKAGES, *filter(None, sys.path)]),
                    },
                    start_new_session=True,
                )
        except BaseException:
            self._socket.close()
            raise
        self._reader = Thread(target=self._read, name="clerk", daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        """Which process it is."""
        return self._process.pid

    @property
    def late(self) -> bool:
        """Whether it takes suspiciously long for a group. For any thread."""
        return self._sent > self._done and self._silence >= self._patience / 4

    @property
    def _silence(self) -> float:
        return time.monotonic() - self._heard

    def send(self, group: FileGroup) -> None:
        """Hands over a group; raises ``OSError`` if it can't be taken."""
        self._heard = time.monotonic()
        self._sent += 1
        self._socket.send(clerk_process.encode(group))

    def end(self) -> int:
        """Lets it do what it has been given, waits for its end; returns its exit code."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        self._reader.join()
        self._socket.close()
        return code

    def _read(self) -> None:
        # Not select(), which takes no descriptor beyond 1,023.
        ready = poll()
        ready.register(self._socket, POLLIN)
        while True:
            while not ready.poll(LOOK * 1000):
                if self.late and self._silence >= self._patience and not self.silent:
                    self.silent = True
                    self._process.kill()
            answer: ClerkFault | _Gone | None = _Gone()
            with contextlib.suppress(OSError, msgspec.DecodeError):
                if data := self._socket.recv(LONGEST):
                    answer = clerk_process.decode_answer(data)
            gone = isinstance(answer, _Gone)
            self._heard = time.monotonic()
            self._done += 1
            self.served |= not gone
            self.answers.append(answer)
            self._answered()
            if gone:
                return


class Clerk:
    """Replaces job files as :func:`in_groups` does, many by a process. Disk thread only.

    - ``resume``: lets a round go on that waits for the process; called in another thread.
    - ``groups``: see :class:`~ganeti_masterd.journal.disk.RealDisk`.
    - ``keep``: descriptors that the process holds as well, such as the queue's lock: should
      it outlive this process for a moment, no other daemon begins before its end.
    - ``worth``: from how many files on they are the process's, which is started then.
    - ``patience``: how many seconds the process may take for a group before it is killed.

    Whatever it can't do is done here.
    """

    def __init__(
        self,
        resume: Callable[[], object],
        groups: Mapping[str, int] | None = None,
        keep: Sequence[int] = (),
        *,
        worth: int = WORTH,
        patience: float = ANSWER_PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resume = resume
        self._groups = dict(groups or {})
        self._keep = list(keep)
        self._worth = worth
        self._patience = patience
        self._fault = ""
        self._fault_until = float("-inf")
        self._process: _Process | None = None
        self._unstartable: str | None = None
        self._clock = clock
        self._not_before = float("-inf")

    def replace(self, disk: IDisk, files: Sequence[File]) -> Iterator[object]:
        """Replaces files, in steps; raises ``OSError`` as :func:`in_groups` does."""
        process = self._present() if len(files) >= self._worth else None
        if process is None:
            yield from in_groups(disk, files)
            return
        light = deque(_groups([file for file in files if len(file[1]) <= WEIGHT]))
        left = yield from self._by_process(process, light)
        yield from in_groups(disk, [file for file in files if len(file[1]) > WEIGHT])
        yield from in_groups(disk, left)

    @property
    def process_id(self) -> int | None:
        """The process; None where none was started, or the last one was lost."""
        return None if self._process is None else self._process.process_id

    @property
    def fault(self) -> str | None:
        """What is wrong with the process, or was a while ago; None for nothing. For any thread."""
        process = self._process
        if process is not None and process.late:
            return "their process does not answer"
        return self._fault if self._clock() < self._fault_until else None

    def _show(self, fault: str) -> None:
        self._fault, self._fault_until = fault, self._clock() + SHOWN

    def close(self) -> None:
        """Ends the process, if there is one. Not while files are replaced."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _present(self) -> _Process | None:
        """Returns the process, which is started if need be; None if it can't be."""
        if self._process is None and self._clock() >= self._not_before:
            try:
                self._process = _Process(self._groups, self._keep, self._resume, self._patience)
                self._unstartable = None
            except (OSError, UnicodeError) as error:
                if str(error) != self._unstartable:
                    log.warn(
                        "No process for job files can be had, the daemon writes them itself: "
                        "{error}",
                        error=error,
                    )
                self._unstartable = str(error)
                self._show(f"no process for them can be had: {error}")
        return self._process

    def _by_process(
        self, process: _Process, groups: deque[FileGroup]
    ) -> Generator[object, None, list[File]]:
        """Has groups replaced, in order; returns what the process did not live to do.

        Nothing is under way in the process once this returns or raises.
        """
        under_way: deque[FileGroup] = deque()
        fault: ClerkFault | None = None
        lost = False
        while not lost and (groups or under_way):
            if process.answers:
                answer = process.answers.popleft()
                if isinstance(answer, _Gone):
                    lost = True
                    continue
                under_way.popleft()
                self._fault_until = float("-inf")
                if answer is not None:
                    fault = fault or answer
                    groups.clear()
            elif groups and len(under_way) < WINDOW:
                under_way.append(groups.popleft())
                try:
                    process.send(under_way[-1])
                except (OSError, UnicodeError):  # such as a path that is no UTF-8
                    lost = True
                yield None
            else:
                yield WAITING
        if lost:
            self._lost(process)
        if fault is not None:
            raise OSError(fault.number, fault.text, fault.path)
        return [file for group in (*under_way, *groups) for file in group]

    def _lost(self, process: _Process) -> None:
        self._process = None
        if not process.served:
            self._not_before = self._clock() + PAUSE
        code = process.end()
        if process.silent:
            self._not_before = self._clock() + PAUSE
            self._show(f"their process did not answer for {self._patience:.0f} s and was killed")
            log.error(
                "The process for job files did not answer for {seconds} s and was killed; the "
                "daemon writes them itself for now",
                seconds=round(self._patience),
            )
            return
        self._show(f"their process ended with {code}")
        log.warn(
            "The process for job files ended with {code}; the daemon writes them itself for now",
            code=code,
        )


def _groups(files: Sequence[File]) -> Iterator[FileGroup]:
    """Returns files in groups, each neither too long nor too heavy for one message."""
    group: list[File] = []
    weight = 0
    for file in files:
        if group and (len(group) == GROUP or weight + len(file[1]) > WEIGHT):
            yield group
            group, weight = [], 0
        group.append(file)
        weight += len(file[1])
    if group:
        yield group
