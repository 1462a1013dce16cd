"""Crowds of clients: what is held for them is bounded, and places are kept for those who repair."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi import server as server_module
from ganeti_masterd.luxi.budget import READ_COST, Budget
from ganeti_masterd.luxi.factory import KEPT_PLACES
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.luxi.server import SLICE, LuxiServer
from tests.luxi.doubles import HalfClosing, Line, examples, replies, request

#: Users: root, who is trusted, and two who aren't.
ROOT, ALICE, BOB = 0, 1001, 1002


class Deaf(HalfClosing):
    """A transport whose client reads nothing until ``read`` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.largest = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.waiting += len(data)
        self.largest = max(self.largest, self.waiting)
        if self.waiting > SLICE // 4 and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def read(self) -> None:
        """The client reads all that the transport has."""
        self.waiting = 0
        if self.producer is not None:
            self.producer.resumeProducing()


class BudgetTests(SynchronousTestCase):
    """The count by itself."""

    def test_each_user(self) -> None:
        """One user may have half, and a single thing that is larger."""
        budget = Budget(800, {ROOT})
        self.assertIsNone(budget.refusal(ALICE, 600))
        budget.add(ALICE, 300)
        self.assertIn("limit of 400", budget.refusal(ALICE, 101) or "")
        self.assertIsNone(budget.refusal(ALICE, 100))
        self.assertIsNone(budget.refusal(BOB, 400))

    def test_kept(self) -> None:
        """All others together leave an eighth to those who are trusted."""
        budget = Budget(800, {ROOT})
        budget.add(ALICE, 400)
        budget.add(BOB, 300)
        self.assertIn("limit of 800", budget.refusal(1003, 1) or "")
        self.assertIsNone(budget.refusal(ROOT, 100))
        self.assertIn("limit of 800", budget.refusal(ROOT, 101) or "")

    @examples(100)
    @given(st.lists(st.tuples(st.sampled_from([ROOT, ALICE, BOB, None]), st.integers(1, 300))))
    def test_bounded(self, wishes: list[tuple[int | None, int]]) -> None:
        """Whoever asks for what, the total is never exceeded, and all of it comes back."""
        budget = Budget(1000, {ROOT})
        granted = []
        for uid, size in wishes:
            if budget.refusal(uid, size) is None:
                budget.add(uid, size)
                granted.append((uid, size))
        self.assertLessEqual(budget.highest, 1000)
        for uid, size in granted:
            budget.add(uid, -size)
        self.assertEqual((budget.held, budget.held_for(None), budget.held_for(ALICE)), (0, 0, 0))


class CrowdCase(SynchronousTestCase):
    """A server in memory; ``uid`` is who connects next."""

    def setUp(self) -> None:
        self.uid = ALICE
        self.patch(server_module, "peer_of", lambda _, number: Peer(number, self.uid, 7, 7))
        self.answer: Any = None

    def line(self, **options: Any) -> Line:
        self.lines = Line(lambda request, peer: self.answer, trusted={ROOT}, **options)
        return self.lines

    def connect(self) -> tuple[LuxiServer, Deaf]:
        transport = Deaf()
        server, _ = self.lines.connect(transport)
        return server, transport

    def refusal(self, transport: HalfClosing) -> str:
        """What a client that is refused is told."""
        self.assertTrue(transport.half_closed)
        reply = replies(transport.value())[-1]
        self.assertFalse(reply["success"])
        return str(reply["result"][1][0])


class HalfRequestTests(CrowdCase):
    """Messages that never become whole."""

    def test_crowd(self) -> None:
        """Forty halves of messages cost no more than the budget has; the rest is told why."""
        budget = Budget(1 << 20, {ROOT})
        self.line(budget=budget)
        refused = []
        for _ in range(40):
            server, transport = self.connect()
            for _ in range(4):
                if not transport.half_closed:
                    server.dataReceived(b'"' * SLICE)
            if transport.half_closed:
                refused.append(self.refusal(transport))
        self.assertLessEqual(budget.highest, 1 << 20)
        self.assertEqual(len(refused), 38)
        self.assertTrue(all("held for this user" in each for each in refused), refused[0])
        self.uid = ROOT
        server, transport = self.connect()
        server.dataReceived(request())
        self.assertTrue(replies(transport.value())[0]["success"])

    def test_given_back(self) -> None:
        """What becomes whole, and what goes away, is no longer counted."""
        line = self.line()
        server, _ = self.connect()
        whole = request("Echo", "x" * SLICE)
        server.dataReceived(whole[:-1])
        self.assertEqual(line.factory.budget.held, len(whole) - 1)
        server.dataReceived(whole[-1:])
        self.assertEqual(line.factory.budget.held, 0)
        server.dataReceived(whole[:100])
        server.close()
        self.assertEqual(line.factory.budget.held, 0)

    def test_large_requests_that_wait(self) -> None:
        """A large request is counted until it is answered; past the budget it isn't even read."""
        asked = []
        self.answer = None
        line = Line(lambda request, peer: asked.append(Deferred()) or asked[-1], trusted={ROOT})
        line.factory.budget = budget = Budget(5 * SLICE * READ_COST, {ROOT})
        self.lines = line
        whole = request("Wait", "x" * SLICE)
        transports = []
        for _ in range(4):
            server, transport = self.connect()
            server.dataReceived(whole)
            transports.append(transport)
        self.assertEqual(len(asked), 2)
        self.assertIn("held for this user", self.refusal(transports[3]))
        for each in asked:
            each.callback(None)
        self.assertEqual(budget.held, 0)


class UnreadAnswerTests(CrowdCase):
    """Answers that nobody reads."""

    def test_slices(self) -> None:
        """A long answer goes to the transport as the client reads, a slice at a time."""
        line = self.line()
        server, transport = self.connect()
        self.answer = "x" * (10 * SLICE)
        server.dataReceived(request())
        self.assertEqual(transport.waiting, SLICE)
        self.assertGreater(line.factory.budget.held, 8 * SLICE)
        turns = 0
        while transport.waiting:
            transport.read()
            turns += 1
        self.assertEqual(turns, 11)
        self.assertLessEqual(transport.largest, SLICE + 100)
        self.assertEqual(replies(transport.value())[0]["result"], self.answer)
        self.assertEqual(line.factory.budget.held, 0)
        server.dataReceived(request())
        self.assertEqual(transport.waiting, SLICE)

    def test_crowd(self) -> None:
        """Clients that read nothing get their error instead of an answer that has no room."""
        budget = Budget(64 * SLICE, {ROOT})
        self.line(budget=budget)
        self.answer = "x" * (10 * SLICE)
        told = 0
        for _ in range(50):
            server, transport = self.connect()
            server.dataReceived(request())
            if transport.half_closed:
                self.assertIn("held for this user", self.refusal(transport))
                told += 1
        self.assertLessEqual(budget.highest, 64 * SLICE)
        self.assertEqual(told, 47)
        self.uid = ROOT
        server, transport = self.connect()
        server.dataReceived(request())
        self.assertEqual(transport.waiting, SLICE)

    def test_small_ones(self) -> None:
        """An answer of one slice is counted once it chokes the transport."""
        line = self.line()
        server, transport = self.connect()
        self.answer = "x" * (SLICE // 2)
        server.dataReceived(request())
        self.assertGreater(line.factory.budget.held, SLICE // 2)
        transport.read()
        self.assertEqual(line.factory.budget.held, 0)

    def test_close(self) -> None:
        """A stop sends the rest of an answer that is under way."""
        line = self.line()
        server, transport = self.connect()
        self.answer = "x" * (10 * SLICE)
        server.dataReceived(request())
        server.close()
        self.assertEqual(replies(transport.value())[0]["result"], self.answer)
        self.assertEqual(line.factory.budget.held, 0)


class PlaceTests(CrowdCase):
    """Who gets in where there are many."""

    def test_each_user(self) -> None:
        """One user can't take every place."""
        self.line(max_connections=6, max_each=3)
        taken = [self.connect() for _ in range(4)]
        self.assertIn("--max-connections-per-user", self.refusal(taken[3][1]))
        self.uid = BOB
        _, transport = self.connect()
        self.assertFalse(transport.half_closed)

    def test_free_again(self) -> None:
        """A place of a user's is free again once the connection is gone."""
        self.line(max_connections=6, max_each=2)
        servers = [self.connect()[0] for _ in range(2)]
        servers[0].connectionLost()
        _, transport = self.connect()
        self.assertFalse(transport.half_closed)
        _, transport = self.connect()
        self.assertTrue(transport.half_closed)

    def test_kept(self) -> None:
        """Where all places are taken, root still has some."""
        self.line(max_connections=4)
        for uid in (ALICE, BOB) * 3:
            self.uid = uid
            last = self.connect()[1]
        self.assertIn("--max-connections)", self.refusal(last))
        self.uid = ROOT
        made = [self.connect()[1] for _ in range(KEPT_PLACES + 1)]
        self.assertEqual([each.half_closed for each in made], [False] * KEPT_PLACES + [True])
