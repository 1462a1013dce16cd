"""Clients that send nonsense, halves, too much, or never read: each harms no one but itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.fuzzing import END, Fuzzer, check_reply, clean_up, understood
from tests.functional.waiting import equal_to, until

MakeDaemon = Callable[..., DaemonProcess]

QUESTION = b'{"method":"QueryConfigValues","args":[["cluster_name"]]}'
ANSWER = b'{"success":true,"result":["cluster"]}'
MIB = 1 << 20

#: How many files a daemon keeps open once it has needed them: nodes' state, log of calls.
FILES = 4

#: Messages in the short profile; the long one is tests/soak.
MESSAGES = 6000


def connect(daemon: DaemonProcess) -> socket.socket:
    """Returns a connection as any program could make it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(20)
    connection.connect(daemon.socket)
    return connection


def ask(daemon: DaemonProcess) -> None:
    """Asks one question on a new connection, which must be answered."""
    with connect(daemon) as connection:
        connection.sendall(QUESTION + END)
        assert read(connection) == ANSWER + END


def read(connection: socket.socket) -> bytes:
    """Reads up to an end byte at the end of a chunk, or the end of the connection."""
    data = b""
    while not data.endswith(END):
        chunk = connection.recv(1 << 18)
        if not chunk:
            break
        data += chunk
    return data


@pytest.fixture(scope="module")
def shared(module_folder: Path) -> Iterator[DaemonProcess]:
    """One daemon for the tests that leave it as it was."""
    with DaemonProcess(module_folder / "node1") as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: DaemonProcess) -> Iterator[DaemonProcess]:
    """The shared daemon; afterwards it has no more descriptors, answers, and logged no fault."""
    ask(shared)
    before = shared.descriptors()
    yield shared
    until("descriptors are closed", shared.descriptors, lambda held: held <= before + FILES)
    ask(shared)
    assert "Traceback" not in shared.log_text()


def test_mutated_requests(daemon: DaemonProcess) -> None:
    """Whatever arrives is answered as it must be, and memory returns to where it was."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    fuzzer = Fuzzer(daemon, seed)
    fuzzer.run(MESSAGES // 3)
    before = daemon.resident_bytes()
    fuzzer.run(MESSAGES)
    grown = daemon.resident_bytes() - before
    print(f"{fuzzer.counts}, {grown / MIB:.1f} MiB more")
    assert grown < 12 * MIB
    # Or the mutations would be too wild, or too tame.
    for kind in ("success", "LuxiError", "OpPrereqError"):
        assert fuzzer.counts[kind] > MESSAGES // 20


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b'{"method":"QueryJobs"}',
        b'{"method":"QueryClusterInfo","args":[],"args":[]}',
        b'{"method":"QueryClusterInfo","args":[NaN]}',
        b'{"method":"QueryClusterInfo","args":["\\ud800"]}',
        b'{"method":"QueryClusterInfo","args":[' + b"9" * 10000 + b"]}",
        b'{"method":"QueryClusterInfo","args":' + b"[" * 10000 + b"]" * 10000 + b"}",
        b"[" * (4 * MIB),
        b'{"a":' * MIB,
        QUESTION + b" x",
    ],
    ids=lambda message: message[:40].decode("latin-1") or "empty",
)
def test_nonsense_is_answered_then_closed(daemon: DaemonProcess, message: bytes) -> None:
    """A message that is no request gets an error, and ends the connection."""
    assert not understood(message)
    with connect(daemon) as connection:
        connection.sendall(message + END + QUESTION + END)
        assert check_reply(read(connection).removesuffix(END)) == "LuxiError"
        assert connection.recv(1) == b""


def test_a_wrong_request_leaves_the_connection_open(daemon: DaemonProcess) -> None:
    """Unknown methods, wrong arguments and versions are errors that name them."""
    with connect(daemon) as connection:
        for method, args, version, kind, told in (
            ("Nope", [], None, "OpPrereqError", "Nope"),
            ("Ünbekannt", [], None, "OpPrereqError", "nbekannt"),
            ("QueryJobs", [], None, "OpPrereqError", "QueryJobs"),
            ("QueryJobs", [{}, 5], None, "OpPrereqError", "QueryJobs"),
            ("QueryJobs", {}, None, "OpPrereqError", "QueryJobs"),
            (5, [], None, "OpPrereqError", "method"),
            ("QueryJobs", [[1], ["id"]], 1, "LuxiError", "3000000"),
            ("CancelJob", ["9" * 5000], None, "OpPrereqError", "CancelJob"),
            ("SubmitJob", [[{"OP_ID": "OP_NOPE"}]], None, "OpPrereqError", "OP_NOPE"),
            ("SubmitJob", [[]], None, "OpPrereqError", "opcode"),
        ):
            request = {"method": method, "args": args, "version": version}
            connection.sendall(json.dumps(request).encode() + END)
            reply = read(connection).removesuffix(END)
            assert check_reply(reply) == kind
            assert told in json.loads(reply)["result"][1][0]
        connection.sendall(QUESTION + END)
        assert read(connection) == ANSWER + END


def test_requests_in_one_write_are_answered_in_order(daemon: DaemonProcess) -> None:
    """Bundled requests are answered one after another, also before a half-close."""
    with connect(daemon) as connection:
        asked = [f'{{"method":"QueryFields","args":["job",["{n}"]]}}'.encode() for n in range(200)]
        connection.sendall(END.join(asked) + END)
        connection.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := connection.recv(1 << 18):
            data += chunk
    replies = data.split(END)[:-1]
    names = [json.loads(reply)["result"]["fields"][0]["name"] for reply in replies]
    assert names == [str(number) for number in range(200)]


def test_half_a_message_keeps_nobody_waiting(daemon: DaemonProcess) -> None:
    """Clients that stop in the middle of a message cost their own connection only."""
    halves = [connect(daemon) for _ in range(50)]
    for number, connection in enumerate(halves):
        connection.sendall(QUESTION[: number % len(QUESTION) + 1])
    ask(daemon)
    # One of them goes on after all.
    halves[0].sendall(QUESTION[1:] + END)
    assert read(halves[0]) == ANSWER + END
    for connection in halves:
        connection.close()
    ask(daemon)


def test_a_client_that_never_reads_is_not_served_further(daemon: DaemonProcess) -> None:
    """Answers that nobody reads are not made: memory stays, and others are answered."""
    before = daemon.resident_bytes()
    question = b'{"method":"QueryClusterInfo","args":[]}' + END
    deaf = [connect(daemon) for _ in range(8)]
    sent = [0] * len(deaf)
    for number, connection in enumerate(deaf):
        connection.setblocking(False)
        # As long as it takes anything; then it has read what it will ever read.
        quiet = time.monotonic() + 0.3
        while time.monotonic() < quiet:
            try:
                sent[number] += connection.send(question * 50)
                quiet = time.monotonic() + 0.3
            except BlockingIOError:
                ask(daemon)
    assert min(sent) > 50 * len(question)
    assert daemon.resident_bytes() - before < 16 * MIB
    # What was asked is still answered to one that begins to read.
    deaf[0].settimeout(20)
    answers = 0
    while answers < 50:
        answers += deaf[0].recv(1 << 18).count(END)
    for connection in deaf:
        connection.close()


def test_five_hundred_clients_connect_and_vanish(daemon: DaemonProcess) -> None:
    """Clients that go at once, with or without a request under way, leave nothing behind."""
    before = daemon.resident_bytes()
    waiting = b'{"method":"WaitForJobChange","args":[999999,["status"],null,null,30]}' + END
    for number in range(500):
        with connect(daemon) as connection:
            if number % 3 == 1:
                connection.sendall(QUESTION)
            elif number % 3 == 2:
                connection.sendall(QUESTION + END + waiting)
        if number % 50 == 0:
            ask(daemon)
    assert daemon.resident_bytes() - before < 8 * MIB


def test_parked_clients_vanish(daemon: DaemonProcess) -> None:
    """Clients that wait for a job and go away are forgotten, though the job runs on."""
    with daemon.client() as master:
        delay = {"OP_ID": "OP_TEST_DELAY", "duration": 0.1, "no_locks": True, "repeat": 300}
        job = master.submit_job([delay])
        wait = {
            "method": "WaitForJobChange",
            "args": [job, ["summary"], [["TEST_DELAY(0.1)"]], 999, 60],
        }
        before = daemon.descriptors()
        parked = [connect(daemon) for _ in range(100)]
        for connection in parked:
            connection.sendall(json.dumps(wait).encode() + END)
        ask(daemon)
        assert daemon.descriptors() >= before + 100
        for connection in parked:
            connection.close()
        until("connections are closed", daemon.descriptors, lambda held: held <= before + FILES)
        master.cancel_job(job, kill=True)
        clean_up(daemon)


def test_connections_wait_while_the_daemon_is_busy(daemon: DaemonProcess) -> None:
    """A thousand clients that come at one moment are all taken, none is turned away."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        crowd = []
        for _ in range(1000):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.setblocking(False)
            connection.connect(daemon.socket)
            connection.send(QUESTION + END)
            crowd.append(connection)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    for connection in crowd:
        connection.settimeout(20)
        assert read(connection) == ANSWER + END
        connection.close()


def test_connections_past_the_limit_are_told_so(make_daemon: MakeDaemon) -> None:
    """Past --max-connections a client gets an error that says why; a free place is used again."""
    with make_daemon("--max-connections=10") as daemon:
        taken: list[socket.socket] = []
        # The one that waited for the start may still be counted.
        until("ten are served", lambda: _take_place(daemon, taken), equal_to(10))
        with connect(daemon) as late:
            reply = read(late).removesuffix(END)
            assert check_reply(reply) == "LuxiError"
            assert "10" in json.loads(reply)["result"][1][0]
            assert late.recv(1) == b""
        taken.pop().close()
        until("ten are served again", lambda: _take_place(daemon, taken), equal_to(10))
        for connection in taken:
            connection.close()


def _take_place(daemon: DaemonProcess, taken: list[socket.socket]) -> int:
    """Makes another connection; returns how many are served."""
    connection = connect(daemon)
    connection.sendall(QUESTION + END)
    if read(connection) == ANSWER + END:
        taken.append(connection)
    else:
        connection.close()
    return len(taken)


def test_messages_past_the_limit_are_refused_while_they_come(make_daemon: MakeDaemon) -> None:
    """A message over --max-message-size is refused before it is whole, and kept nowhere."""
    with make_daemon("--max-message-size=65536") as daemon:
        ask(daemon)
        before = daemon.resident_bytes()
        with connect(daemon) as connection:
            try:
                for _ in range(200):
                    connection.sendall(b"x" * 65536)
            except (ConnectionError, TimeoutError):
                pass
            reply = read(connection).removesuffix(END)
        assert check_reply(reply) == "LuxiError"
        assert "65536" in json.loads(reply)["result"][1][0]
        assert daemon.resident_bytes() - before < 4 * MIB
        ask(daemon)


def test_the_socket_is_open_to_its_group_only(make_daemon: MakeDaemon) -> None:
    """The socket has the mode that was asked for, 0660 else, and is removed at the stop."""
    for options, mode in (((), 0o660), (("--socket-mode=600",), 0o600)):
        with make_daemon(*options) as daemon:
            folder = os.path.dirname(daemon.socket)
            assert os.stat(daemon.socket).st_mode & 0o777 == mode
            for name in set(os.listdir(folder)) - {os.path.basename(daemon.socket)}:
                assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0
            ask(daemon)
            daemon.stop()
            assert os.listdir(folder) == []
