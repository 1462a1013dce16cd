"""Large requests, which a thread reads: the thread here does one thing when the test says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi.aside import LARGE_REQUEST, LargeRequests
from ganeti_masterd.luxi.budget import READ_COST, Budget
from ganeti_masterd.luxi.messages import (
    MAX_COMMAS,
    MAX_CONTAINERS,
    LuxiRequest,
    RequestBound,
    SizeBound,
)
from ganeti_masterd.luxi.serverstates import ServerState
from ganeti_masterd.requests.methods import size_bound
from ganeti_masterd.requests.registry import METHODS
from tests.luxi.doubles import Line, echo, replies, request, results
from tests.requests.scene import DELAY, RequestScene
from tests.threads import OneThread

LARGE = "x" * LARGE_REQUEST


def aside(
    thread: OneThread,
    largest: SizeBound = lambda method: RequestBound(None),
    read_ahead: Callable[[LuxiRequest], LuxiRequest] = lambda request: request,
) -> LargeRequests:
    return LargeRequests(thread.run, largest, read_ahead)


class LargeRequestTests(SynchronousTestCase):
    """A connection whose large requests wait for the thread."""

    def setUp(self) -> None:
        self.thread = OneThread()
        self.budget = Budget()
        self.asked: list[str] = []
        self.line = Line(self.answer, aside=aside(self.thread), budget=self.budget)

    def answer(self, request: LuxiRequest, peer: Any) -> Any:
        self.asked.append(request.method)
        return echo(request, peer)

    def test_order_of_answers(self) -> None:
        """Requests after a large one are answered after it; those of others at once."""
        other, transport = self.line.connect()
        sent = self.line.send(request("A", LARGE) + request("B") + request("C", LARGE, 2))
        self.assertEqual((sent, self.asked), ([], []))
        other.dataReceived(request("D", "other"))
        self.assertEqual(results(transport.value()), [["other"]])
        self.thread.step()
        self.assertEqual(results(self.line.transport.value()), [[LARGE], []])
        self.thread.step()
        self.assertEqual(results(self.line.transport.value()), [[LARGE], [], [LARGE, 2]])
        self.assertEqual(self.asked, ["D", "A", "B", "C"])
        self.assertEqual(self.line.server.state, ServerState.LISTENING)

    def test_small_ones(self) -> None:
        """A request that isn't large is answered at once, in the reactor thread."""
        room = LARGE_REQUEST - len(request("A", "")) + 1
        self.assertEqual(len(self.line.send(request("A", "x" * room))), 1)
        self.assertEqual(self.thread.waiting, [])
        self.assertEqual(self.line.send(request("A", "x" * (room + 1))), [])
        self.assertEqual(len(self.thread.waiting), 1)

    def test_counted(self) -> None:
        """What it takes in memory is held against the client until the answer."""
        message = request("A", LARGE)
        self.line.send(message)
        self.assertEqual(self.budget.held, READ_COST * (len(message) - 1))
        self.thread.step()
        self.assertEqual(self.budget.held, 0)

    def test_client_goes(self) -> None:
        """A client that has gone takes its message along: it is not read, and no more held."""
        self.line.send(request("A", LARGE))
        self.line.server.connectionLost()
        [(read, done)] = self.thread.waiting
        held = [cell.cell_contents for cell in read.__closure__ or ()]
        self.assertIn([], held)
        self.assertFalse(any(isinstance(each, bytes) for each in held))
        self.assertIsNone(self.thread.step())
        self.assertEqual((self.asked, self.budget.held), ([], 0))
        self.successResultOf(done)

    def test_client_goes_meanwhile(self) -> None:
        """One that goes while the thread reads its request isn't answered, and harms nobody."""

        def going(request: LuxiRequest) -> LuxiRequest:
            line.server.connectionLost()
            return request

        line = Line(self.answer, aside=aside(self.thread, read_ahead=going))
        line.send(request("A", LARGE))
        self.assertEqual(self.thread.step().method, "A")
        self.assertEqual((self.asked, line.transport.value()), ([], b""))

    def test_half_closed(self) -> None:
        """A client that says no more meanwhile still gets its answer, then the end."""
        self.line.send(request("A", LARGE))
        self.line.server.readConnectionLost()
        self.assertFalse(self.line.transport.disconnecting)
        self.thread.step()
        self.assertEqual(results(self.line.transport.value()), [[LARGE]])
        self.assertTrue(self.line.transport.disconnecting)

    def test_stop(self) -> None:
        """A stop of the daemon closes the connection without waiting for the thread."""
        self.line.send(request("A", LARGE))
        closed = self.line.factory.close()
        self.assertTrue(self.line.transport.disconnecting)
        self.line.server.connectionLost()
        self.successResultOf(closed)
        self.assertIsNone(self.thread.step())
        self.assertEqual(self.asked, [])

    def test_choked(self) -> None:
        """An error for a client that doesn't read ends the connection as elsewhere."""
        self.line.send(b"x" * (LARGE_REQUEST + 1) + b"\x03")
        self.line.server.pauseProducing()
        self.assertEqual(self.line.server.state, ServerState.PENDING_CHOKED)
        self.thread.step()
        self.assertEqual(self.line.server.state, ServerState.REFUSED)
        [reply] = replies(self.line.transport.value())
        self.assertEqual(reply["result"][0], "LuxiError")

    def test_fault_of_the_daemon(self) -> None:
        """A fault in the thread is logged and answered; the connection lives on."""

        def faulty(request: LuxiRequest) -> LuxiRequest:
            raise ZeroDivisionError("oops")

        line = Line(self.answer, aside=aside(self.thread, read_ahead=faulty))
        for _ in range(2):
            line.send(request("A", LARGE))
            self.thread.step()
            [reply] = replies(line.transport.value())
            self.assertEqual(reply["result"], ["OpExecError", ["ZeroDivisionError: oops"]])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def _request(method: Any, *args: Any, **more: Any) -> bytes:
    return json.dumps({"method": method, "args": args, **more}, ensure_ascii=False).encode()


PADDING = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001, "comment": LARGE}

#: Large messages of every kind.
MESSAGES = {
    "accepted": _request("SubmitJob", [PADDING]),
    "many accepted": _request("SubmitManyJobs", [[PADDING], [DELAY, PADDING]]),
    "of 2.x": _request("SubmitJob", PADDING, DELAY, version=2050000),
    "unknown opcode": _request("SubmitManyJobs", [[PADDING], [{"OP_ID": "OP_NO"}]]),
    "wrong parameter": _request("SubmitJob", [{**PADDING, "duration": "x"}]),
    "not a list": _request("SubmitJob", PADDING),
    "too many arguments": _request("SubmitJob", [PADDING], 5),
    "own method": _request("QueryJobWait", LARGE),
    "query": _request("QueryNodes", [LARGE], ["name"], False),
    "unknown method": _request("Nope", LARGE),
    "method that is no string": _request(5, LARGE),
    "arguments that are an object": json.dumps({"method": "A", "args": {"a": LARGE}}).encode(),
    "unknown version": _request("SubmitJob", [PADDING], version=1),
    "no arguments": json.dumps({"method": "A", "a": LARGE}).encode(),
    "a list": json.dumps([LARGE]).encode(),
    "no JSON": b"{" * (LARGE_REQUEST + 1),
    "cut off": _request("SubmitJob", [PADDING])[:-1],
    "more after it": _request("SubmitJob", [PADDING]) + b" x",
    "no UTF-8": _request("SubmitJob", [PADDING]).replace(b"xx", b"x\xff", 1),
    "lone surrogate": _request("SubmitJob", [PADDING]).replace(b"xx", b"\\ud800", 1),
    "key that comes twice": _request("SubmitJob", [PADDING]).replace(
        b'"duration"', b'"duration": 1, "duration"'
    ),
    "too deep": _request("SubmitJob", LARGE).replace(b'"x', b"[" * 300 + b'"x', 1),
    "deep": b'{"method":"A","args":'
    + b"[" * 300
    + b"1"
    + b"]" * 300
    + b',"b":"%b"}' % LARGE.encode(),
    "too many lists": _request("SubmitJob", [[]] * (MAX_CONTAINERS + 1)),
    "too many values": _request("SubmitJob", [1] * (MAX_COMMAS + 2)),
    "too large": _request("Query", "x" * (1 << 20)),
}


class SameAnswersTests(RequestScene):
    """The thread changes nothing of what a client sees."""

    def answered(self, message: bytes, thread: OneThread | None) -> tuple[list[Any], bool, str]:
        """Returns the replies, whether the connection ends, and its state."""
        largest = size_bound(METHODS)
        line = Line(
            self.answers,
            largest=largest,
            aside=None if thread is None else aside(thread, largest, self.answers.read_ahead),
        )
        line.server.dataReceived(message + b"\x03")
        while thread is not None and thread.waiting:
            thread.step()
        self.clock.advance(0.1)
        return (
            replies(line.transport.value()),
            line.transport.disconnecting or line.transport.half_closed,
            line.server.state.value,
        )

    def test_same(self) -> None:
        """Each message has the answer, and the end of the connection, that it has without it."""
        kinds = set()
        for name, message in MESSAGES.items():
            self.assertGreater(len(message), LARGE_REQUEST, name)
            last = self.queue.last_id
            expected = self.answered(message, None)
            self.queue.last_id = last
            thread = OneThread()
            self.assertEqual(self.answered(message, thread), expected, name)
            [reply] = expected[0]
            kinds.add("success" if reply["success"] else reply["result"][0])
        self.assertEqual(kinds, {"success", "OpPrereqError", "LuxiError"})

    def test_read_once(self) -> None:
        """The arguments are read in the thread, and not once more by the reactor."""
        thread = OneThread()
        line = Line(self.answers, aside=aside(thread, read_ahead=self.answers.read_ahead))
        line.send(MESSAGES["accepted"] + b"\x03")
        self.assertEqual(self.queue.jobs, {})
        read = thread.step()
        self.assertEqual((read.args, len(read.typed.values)), ([], 1))
        self.assertEqual(len(self.queue.jobs), 1)
