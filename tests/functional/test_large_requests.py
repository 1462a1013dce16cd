"""The largest requests keep nobody waiting: small ones are answered while they are read."""

from __future__ import annotations

import array
import fcntl
import json
import select
import socket
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE
from ganeti_masterd.requests.arguments import MAX_JOBS
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.test_hostile_clients import ANSWER, END, QUESTION, connect, read
from tests.functional.waiting import until

#: How often it is tried at most: on a busy machine this process may stand still all the while.
TRIES = 10
#: How many clients go while their requests are read.
CLIENTS = 10

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001}


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One daemon for all tests."""
    with DaemonProcess(module_folder / "node1") as daemon:
        yield daemon


def unread(connection: socket.socket) -> int:
    """Returns how many bytes that were sent the other end hasn't read."""
    held = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, held)
    return held[0]


def largest(last: dict[str, Any]) -> bytes:
    """Returns the largest submission there may be: many jobs, the last of which is ``last``."""
    empty = [[{**DELAY, "comment": ""}] * 2] * (MAX_JOBS - 1) + [[last]]
    rest = MAX_MESSAGE_SIZE - len(json.dumps({"method": "SubmitManyJobs", "args": [empty]}))
    filled = {**DELAY, "comment": "x" * (rest // (2 * MAX_JOBS))}
    jobs = [[filled] * 2] * (MAX_JOBS - 1) + [[last]]
    return json.dumps({"method": "SubmitManyJobs", "args": [jobs]}).encode()


def answered_meanwhile(daemon: DaemonProcess, message: bytes) -> tuple[int, bytes]:
    """Returns how many small requests were answered while a message was worked on, and its answer.

    That is, after all of the message was read by the daemon, and before its own answer came.
    """
    with connect(daemon) as large, connect(daemon) as small:
        large.sendall(message)
        until("it is read but for its end", lambda: unread(large), lambda count: count == 0)
        large.sendall(END)
        while unread(large):
            pass
        answered = 0
        while True:
            small.sendall(QUESTION + END)
            assert read(small) == ANSWER + END
            if select.select([large], [], [], 0)[0]:
                return answered, read(large)
            answered += 1


def test_answered_meanwhile(daemon: DaemonProcess) -> None:
    """Small requests are answered between the last byte of the largest one and its answer."""
    message = largest({"OP_ID": "OP_NO"})
    assert 0.9 * MAX_MESSAGE_SIZE < len(message) <= MAX_MESSAGE_SIZE
    for _ in range(TRIES):
        answered, reply = answered_meanwhile(daemon, message)
        assert json.loads(reply.removesuffix(END))["result"][0] == "OpPrereqError"
        if answered:
            return
    raise AssertionError("nothing was answered while the daemon read a large request")


def test_closed_meanwhile(daemon: DaemonProcess) -> None:
    """Clients that go while their requests are read leave nothing behind."""
    message = largest({"OP_ID": "OP_NO"})
    # What the daemon opens once it runs is fewer than the clients are.
    most = daemon.descriptors() + CLIENTS // 2
    for _ in range(CLIENTS):
        with connect(daemon) as connection:
            connection.sendall(message)
            until("it is read", lambda: unread(connection), lambda count: count == 0)
            connection.sendall(END)
    with connect(daemon) as connection:
        connection.sendall(QUESTION + END)
        assert read(connection) == ANSWER + END
    until("all is closed", daemon.descriptors, lambda held: held < most)
    assert "Traceback" not in daemon.log_text()


def test_stopped_meanwhile(daemon: DaemonProcess) -> None:
    """A stop has an end while requests wait to be read, and is a clean one."""
    connections = [connect(daemon) for _ in range(5)]
    message = largest({"OP_ID": "OP_NO"})
    for connection in connections:
        connection.sendall(message + END)
    assert daemon.stop() < 0
    for connection in connections:
        connection.close()
    assert "Traceback" not in daemon.log_text()
