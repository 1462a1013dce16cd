"""The states of the server's end: what may follow what, and that all of it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.luxi import server as server_module
from ganeti_masterd.luxi.server import LINGER, PEER_CHECK
from ganeti_masterd.luxi.serverstates import AWAITING, LIVE, TABLE, ServerState, step
from tests.luxi.doubles import HalfClosing, Line, record_server_states, request

_LISTENING, _SERVING, _PENDING = ServerState.LISTENING, ServerState.SERVING, ServerState.PENDING
_CHOKED, _PENDING_CHOKED = ServerState.CHOKED, ServerState.PENDING_CHOKED
_REFUSED, _CLOSING = ServerState.REFUSED, ServerState.CLOSING
_CUT_OFF, _LOST = ServerState.CUT_OFF, ServerState.LOST

IDLE_TIME = 60.0


class TableTests(SynchronousTestCase):
    """The table by itself."""

    def test_steps(self) -> None:
        """A step of the table is made, every other raises."""
        for before in ServerState:
            for after in ServerState:
                if after in TABLE[before][1]:
                    self.assertIs(step(before, after), after)
                else:
                    self.assertRaises(ProgrammerError, step, before, after)

    def test_every_state(self) -> None:
        """Each is there, and a connection can be lost in each."""
        self.assertEqual(set(TABLE), set(ServerState))
        for state, (_, following) in TABLE.items():
            self.assertEqual(_LOST in following, state is not _LOST)

    def test_reachable(self) -> None:
        """Steps lead from ``LISTENING`` to each state."""
        reached = {_LISTENING}
        while more := {after for each in reached for after in TABLE[each][1]} - reached:
            reached |= more
        self.assertEqual(reached, set(ServerState))

    def test_ended(self) -> None:
        """A connection that doesn't serve any more never does again."""
        for state in set(ServerState) - set(LIVE):
            self.assertEqual(TABLE[state][1] & set(LIVE), set())

    def test_awaiting(self) -> None:
        """An answer is awaited only by live connections, and none of those listens or serves."""
        self.assertEqual(set(LIVE) - set(AWAITING), {_LISTENING, _SERVING, _CHOKED})


class Full(HalfClosing):
    """A transport whose client doesn't read while ``full``."""

    full = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.full and self.producer is not None:
            self.producer.pauseProducing()


class Scene:
    """A connection that can be brought to each state; ``steps`` are those it has made."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.gone = False
        case.patch(server_module, "hung_up", lambda _: self.gone)
        self.steps = record_server_states(case)
        self.answers: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []
        self.line = Line(self._answer, Full(), idle_timeout=IDLE_TIME)
        self.server = self.line.server

    def _answer(self, request: Any, peer: Any) -> Any:
        if request.method == "Later":
            self.answers.append(Deferred(self.cancelled.append))
            return self.answers[-1]
        if request.method == "Close":
            self.line.factory.close()
        if request.method == "Lose":
            self.lose()
        return None

    def ask(self, method: str) -> None:
        self.server.dataReceived(request(method))

    def ask_later(self) -> None:
        self.ask("Later")

    def ask_unread(self) -> None:
        """Asks, and doesn't read the answer."""
        self.line.transport.full = True
        self.ask("Now")
        self.line.transport.full = False

    def refuse(self) -> None:
        self.server.dataReceived(b"nonsense\x03")

    def refuse_another(self) -> None:
        self.line.factory.max_connections = 0
        self.line.connect()

    def exceed(self) -> None:
        """Sends more than the budget has."""
        self.line.factory.budget.total = 0
        self.ask("Now")

    def fire(self) -> None:
        self.answers[-1].callback(None)

    def choke(self) -> None:
        self.server.pauseProducing()

    def read(self) -> None:
        self.server.resumeProducing()

    def half_close(self) -> None:
        self.server.readConnectionLost()

    def hang_up_half_closed(self) -> None:
        self.half_close()
        self.hang_up_unheard()

    def hang_up_unheard(self) -> None:
        """Hangs up where reading tells nothing: at the next check the daemon notices."""
        self.gone = True
        self.server.dataReceived(request())
        self.line.clock.advance(PEER_CHECK)

    def close(self) -> None:
        self.line.factory.close()

    def lose(self) -> None:
        self.server.connectionLost(Failure(ConnectionDone()))

    def linger(self) -> None:
        self.line.clock.advance(LINGER)

    def idle(self) -> None:
        self.line.clock.advance(IDLE_TIME)

    # States, each by its shortest way

    def listening(self) -> None:
        """As it begins."""

    def pending(self) -> None:
        self.ask_later()

    def pending_choked(self) -> None:
        self.pending()
        self.choke()

    def cut_off(self) -> None:
        self.refuse()
        self.linger()


Act = Callable[[Scene], None]

#: How a connection gets to each state in which it stays.
WAYS: dict[ServerState, Act] = {
    _LISTENING: Scene.listening,
    _PENDING: Scene.pending,
    _CHOKED: Scene.ask_unread,
    _PENDING_CHOKED: Scene.pending_choked,
    _REFUSED: Scene.refuse,
    _CLOSING: Scene.half_close,
    _CUT_OFF: Scene.cut_off,
    _LOST: Scene.lose,
}

#: What takes each step. Those from ``SERVING`` are taken within one call from ``LISTENING``.
STEPS: dict[tuple[ServerState, ServerState], tuple[Act, ...]] = {
    (_LISTENING, _SERVING): (lambda scene: scene.ask("Now"),),
    (_LISTENING, _CHOKED): (Scene.choke,),
    (_LISTENING, _REFUSED): (Scene.refuse_another,),
    (_LISTENING, _CLOSING): (Scene.half_close, Scene.idle, Scene.close),
    (_LISTENING, _LOST): (Scene.lose,),
    (_SERVING, _LISTENING): (lambda scene: scene.ask("Now"),),
    (_SERVING, _PENDING): (Scene.ask_later,),
    (_SERVING, _CHOKED): (Scene.ask_unread,),
    (_SERVING, _REFUSED): (Scene.refuse,),
    (_SERVING, _CLOSING): (lambda scene: scene.ask("Close"),),
    (_SERVING, _LOST): (lambda scene: scene.ask("Lose"),),
    (_PENDING, _SERVING): (Scene.fire,),
    (_PENDING, _PENDING_CHOKED): (Scene.choke,),
    (_PENDING, _CLOSING): (Scene.close,),
    (_PENDING, _CUT_OFF): (Scene.hang_up_half_closed, Scene.hang_up_unheard),
    (_PENDING, _LOST): (Scene.lose,),
    (_CHOKED, _SERVING): (Scene.read,),
    (_CHOKED, _REFUSED): (Scene.exceed,),
    (_CHOKED, _CLOSING): (Scene.close,),
    (_CHOKED, _CUT_OFF): (Scene.idle,),
    (_CHOKED, _LOST): (Scene.lose,),
    (_PENDING_CHOKED, _PENDING): (Scene.read,),
    (_PENDING_CHOKED, _CHOKED): (Scene.fire,),
    (_PENDING_CHOKED, _CLOSING): (Scene.close,),
    (_PENDING_CHOKED, _CUT_OFF): (Scene.hang_up_half_closed, Scene.hang_up_unheard),
    (_PENDING_CHOKED, _LOST): (Scene.lose,),
    (_REFUSED, _CLOSING): (Scene.half_close, Scene.close),
    (_REFUSED, _CUT_OFF): (Scene.linger,),
    (_REFUSED, _LOST): (Scene.lose,),
    (_CLOSING, _CUT_OFF): (Scene.idle,),
    (_CLOSING, _LOST): (Scene.lose,),
    (_CUT_OFF, _LOST): (Scene.lose,),
}


class WalkTests(SynchronousTestCase):
    """Connections that take each step."""

    def test_every_step(self) -> None:
        """Each step of the table is taken by what is said to take it, and is what comes next."""
        table = {(before, after) for before in TABLE for after in TABLE[before][1]}
        self.assertEqual(set(STEPS), table)
        for (before, after), acts in STEPS.items():
            for act in acts:
                scene = Scene(self)
                if before is not _SERVING:
                    WAYS[before](scene)
                    self.assertIs(scene.server.state, before)
                    scene.steps.clear()
                act(scene)
                taken = scene.steps[1 if before is _SERVING else 0]
                self.assertEqual(taken, (before, after))

    def test_states_end(self) -> None:
        """From each state a connection whose client does nothing is over by itself or pending."""
        for state, way in WAYS.items():
            scene = Scene(self)
            way(scene)
            for _ in range(10):
                scene.line.clock.advance(IDLE_TIME)
            if state in AWAITING:
                self.assertIs(scene.server.state, state)
            else:
                self.assertIn(scene.server.state, (_CUT_OFF, _LOST))

    def test_producer(self) -> None:
        """The transport has a producer while it can ask for more; else it would wait for that."""
        for state in set(WAYS) - {_LOST}:
            scene = Scene(self)
            WAYS[state](scene)
            self.assertEqual(scene.line.transport.producer is not None, state in LIVE)

    def test_given_up(self) -> None:
        """A connection that ends while an answer is pending cancels it at once, and once."""
        ends = (Scene.close, Scene.lose, Scene.hang_up_half_closed, Scene.hang_up_unheard)
        for way in (Scene.pending, Scene.pending_choked):
            for end in ends:
                scene = Scene(self)
                way(scene)
                end(scene)
                self.assertEqual(scene.cancelled, scene.answers)
                if scene.server.state is not _LOST:
                    scene.lose()
                self.assertEqual(len(scene.cancelled), 1)

    def test_later_answers_are_watched(self) -> None:
        """A client whose later request is pending is looked at if reading can't tell of it."""
        for before in (Scene.ask_later, Scene.half_close):
            scene = Scene(self)
            scene.server.dataReceived(request("Later") * 2)
            before(scene)
            scene.fire()
            self.assertEqual(len(scene.answers), 2)
            scene.line.clock.advance(PEER_CHECK)
            self.assertIs(scene.server.state, _PENDING)
            scene.gone = True
            scene.line.clock.advance(PEER_CHECK)
            self.assertIs(scene.server.state, _CUT_OFF)

    def test_answered_while_closing(self) -> None:
        """An answer within whose call the connection was closed is sent, or given up if late."""
        scene = Scene(self)
        scene.ask("Close")
        self.assertEqual(scene.line.transport.value().count(b"\x03"), 1)
        cancelled: list[Any] = []

        def closing(request: Any, peer: Any) -> Deferred[Any]:
            line.factory.close()
            return Deferred(cancelled.append)

        line = Line(closing)
        self.assertEqual(line.send(request()), [])
        self.assertEqual(len(cancelled), 1)
        line.clock.advance(LINGER)
        self.assertTrue(line.transport.disconnected)

    def test_twice(self) -> None:
        """Closing or cutting off what is closed or cut off changes nothing."""
        for way in (Scene.half_close, Scene.cut_off, Scene.lose):
            scene = Scene(self)
            way(scene)
            state = scene.server.state
            scene.server.close()
            self.assertIs(scene.server.state, state)
            scene.server.cut_off()
            scene.server.cut_off()
            self.assertIs(scene.server.state, _LOST if state is _LOST else _CUT_OFF)
