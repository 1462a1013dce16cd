"""The states of a client's connection: what may follow what, and that all of it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.luxi import client as client_module
from ganeti_masterd.luxi.client import FIRST_WAIT, LuxiClient
from ganeti_masterd.luxi.clientstates import TABLE, ClientState, step
from ganeti_masterd.timing import Timers
from tests.luxi.doubles import Endpoint, examples

_IDLE, _CONNECTING, _PAUSING = ClientState.IDLE, ClientState.CONNECTING, ClientState.PAUSING
_CONNECTED, _CALLING = ClientState.CONNECTED, ClientState.CALLING
_CLOSING, _CLOSED = ClientState.CLOSING, ClientState.CLOSED

TIMEOUT = 30.0

OK = b'{"success":true,"result":1}\x03'


class TableTests(SynchronousTestCase):
    """The table by itself."""

    def test_steps(self) -> None:
        """A step of the table is made, every other raises."""
        for before in ClientState:
            for after in ClientState:
                if after in TABLE[before][1]:
                    self.assertIs(step(before, after), after)
                else:
                    self.assertRaises(ProgrammerError, step, before, after)

    def test_reachable(self) -> None:
        """Steps lead from ``IDLE`` to each state, and from each to ``CLOSED``."""
        self.assertEqual(set(TABLE), set(ClientState))
        for start in ClientState:
            reached = {start}
            while more := {after for each in reached for after in TABLE[each][1]} - reached:
                reached |= more
            self.assertIn(_CLOSED, reached)
            if start is _IDLE:
                self.assertEqual(reached, set(ClientState))

    def test_closed(self) -> None:
        """A client without a connection is closed at once, one with it when that has gone."""
        for state, (_, following) in TABLE.items():
            wired = state in (_CONNECTED, _CALLING)
            self.assertEqual(_CLOSING in following, wired)
            self.assertEqual(_CLOSED in following, not wired and state is not _CLOSED)


class Scene:
    """A client of an endpoint in memory; ``steps`` are those it has made."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.steps: list[tuple[ClientState, ClientState]] = []
        self.hung_up = False
        case.patch(client_module, "step", self._step)
        case.patch(client_module, "hung_up", lambda _: self.hung_up)
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.client = LuxiClient(self.endpoint, Timers(self.clock), timeout=TIMEOUT)
        self.calls: list[Deferred[Any]] = []
        self.ended: list[int] = []  # the calls that ended, by number
        self.closed: list[Deferred[None]] = []
        self.wires: list[tuple[Any, Any]] = []  # protocols and transports, the newest last
        self.lost: list[Any] = []

    def _step(self, before: ClientState, after: ClientState) -> ClientState:
        self.steps.append((before, after))
        return step(before, after)

    def call(self) -> None:
        number = len(self.calls)

        def ended(_: Any) -> None:
            self.ended.append(number)

        self.calls.append(self.client.call("Call", number).addBoth(ended))

    def cancel(self, back: int = 1) -> None:
        """Cancels a call; 1 is the last."""
        if len(self.calls) >= back:
            self.calls[-back].cancel()

    def accept(self) -> None:
        if self.endpoint.attempts:
            self.wires.append(self.endpoint.accept())

    def refuse(self, code: int = 111) -> None:
        if self.endpoint.attempts:
            self.endpoint.refuse(code)

    def refuse_for_good(self) -> None:
        self.refuse(13)

    def reply(self, data: bytes = OK) -> None:
        """Brings a reply on the newest connection."""
        if self.wires and self.wires[-1][0] not in self.lost:
            self.wires[-1][0].dataReceived(data)

    def reply_nonsense(self) -> None:
        self.reply(b"nonsense\x03")

    def lose(self) -> None:
        """The newest connection ends."""
        if self.wires and self.wires[-1][0] not in self.lost:
            self.lost.append(self.wires[-1][0])
            self.wires[-1][0].connectionLost(Failure(ConnectionDone()))

    def _given_up(self) -> list[Any]:
        """The connections that the client gave up and whose end it was not told yet."""
        return [wire for wire, _ in self.wires[:-1] if wire not in self.lost]

    def reply_late(self) -> None:
        """A reply comes on a connection that was given up."""
        for wire in self._given_up():
            wire.dataReceived(OK)

    def lose_late(self) -> None:
        """Connections that were given up end."""
        for wire in self._given_up():
            self.lost.append(wire)
            wire.connectionLost(Failure(ConnectionDone()))

    def call_the_gone(self) -> None:
        """A call finds that the daemon has hung up before the reactor told."""
        self.hung_up = True
        self.call()
        self.hung_up = False

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def wait_first(self) -> None:
        self.wait(FIRST_WAIT)

    def time_out(self) -> None:
        self.wait(TIMEOUT)

    def close(self) -> None:
        self.closed.append(self.client.close())

    # States, each by its shortest way

    def idle(self) -> None:
        """As it begins."""

    def pausing(self) -> None:
        self.call()
        self.refuse()

    def calling(self) -> None:
        self.call()
        self.accept()

    def connected(self) -> None:
        self.calling()
        self.reply()

    def closing(self) -> None:
        self.connected()
        self.close()

    # What always holds

    def check(self) -> None:
        client, state = self.client, self.client.state
        assert len(self.endpoint.attempts) == (state is _CONNECTING)
        if state in (_CONNECTING, _PAUSING):
            assert client._waiting
        elif state is not _CALLING:
            assert not client._waiting
            assert len(self.ended) == len(self.calls), "a call is forgotten"
        open_wires = [wire for wire, transport in self.wires if not transport.disconnecting]
        open_wires = [wire for wire in open_wires if wire not in self.lost]
        assert len(open_wires) == (state in (_CONNECTED, _CALLING))
        assert self.ended == list(dict.fromkeys(self.ended)), "a call ended twice"
        unanswered = len(self.calls) - len(self.ended)
        timers = len(self.clock.getDelayedCalls())
        assert timers == unanswered + (state in (_CONNECTING, _PAUSING))
        written = b"".join(transport.value() for _, transport in self.wires)
        numbers = [
            int(message.partition(b"[")[2].partition(b"]")[0])
            for message in written.split(b"\x03")[:-1]
        ]
        assert numbers == sorted(set(numbers)), "out of order, or sent twice"
        under_way = set(numbers) - set(self.ended)
        assert len(under_way) == (state is _CALLING)
        done = [each.called for each in self.closed]
        assert all(done) == (state is _CLOSED or not done)

    def end(self) -> None:
        self.close()
        self.lose()
        self.check()
        assert self.client.state is _CLOSED
        assert self.clock.getDelayedCalls() == []
        self.call()
        assert sorted(self.ended) == list(range(len(self.calls)))


Act = Callable[[Scene], None]

#: How a client gets to each state.
WAYS: dict[ClientState, Act] = {
    _IDLE: Scene.idle,
    _CONNECTING: Scene.call,
    _PAUSING: Scene.pausing,
    _CONNECTED: Scene.connected,
    _CALLING: Scene.calling,
    _CLOSING: Scene.closing,
    _CLOSED: Scene.close,
}

#: What takes each step.
STEPS: dict[tuple[ClientState, ClientState], tuple[Act, ...]] = {
    (_IDLE, _CONNECTING): (Scene.call,),
    (_IDLE, _CLOSED): (Scene.close,),
    (_CONNECTING, _IDLE): (Scene.cancel, Scene.refuse_for_good, Scene.time_out),
    (_CONNECTING, _PAUSING): (Scene.refuse,),
    (_CONNECTING, _CONNECTED): (Scene.accept,),
    (_CONNECTING, _CLOSED): (Scene.close,),
    (_PAUSING, _IDLE): (Scene.cancel,),
    (_PAUSING, _CONNECTING): (Scene.wait_first,),
    (_PAUSING, _CLOSED): (Scene.close,),
    (_CONNECTED, _IDLE): (Scene.lose, Scene.reply, Scene.reply_nonsense, Scene.call_the_gone),
    (_CONNECTED, _CALLING): (Scene.call,),
    (_CONNECTED, _CLOSING): (Scene.close,),
    (_CALLING, _IDLE): (Scene.lose, Scene.reply_nonsense, Scene.cancel, Scene.time_out),
    (_CALLING, _CONNECTED): (Scene.reply,),
    (_CALLING, _CLOSING): (Scene.close,),
    (_CLOSING, _CLOSED): (Scene.lose,),
}


class WalkTests(SynchronousTestCase):
    """Clients that take each step."""

    def test_every_step(self) -> None:
        """Each step of the table is taken by what is said to take it, and is what comes next."""
        table = {(before, after) for before in TABLE for after in TABLE[before][1]}
        self.assertEqual(set(STEPS), table)
        for (before, after), acts in STEPS.items():
            for act in acts:
                scene = Scene(self)
                WAYS[before](scene)
                self.assertIs(scene.client.state, before)
                scene.steps.clear()
                act(scene)
                self.assertEqual(scene.steps[0], (before, after))
                scene.check()
                scene.end()

    def test_accepted_and_lost(self) -> None:
        """A connection that is lost before its endpoint hands it on is made again."""
        scene = Scene(self)
        scene.call()
        factory, attempt = scene.endpoint.attempts.pop()
        protocol = factory.buildProtocol(None)
        protocol.connectionLost(Failure(ConnectionDone()))
        scene.steps.clear()
        attempt.callback(protocol)
        self.assertEqual(scene.steps, [(_CONNECTING, _IDLE), (_IDLE, _CONNECTING)])
        scene.end()

    def test_late(self) -> None:
        """What a connection still brings that was given up is not for the one after it."""
        scene = Scene(self)
        scene.calling()
        scene.cancel()
        for way in (Scene.call, Scene.accept, Scene.reply, Scene.close):
            way(scene)
            scene.steps.clear()
            scene.reply_late()
            self.assertEqual(scene.steps, [])
        scene.lose_late()
        self.assertEqual(scene.steps, [])
        scene.end()

    def test_deaf_when_closed(self) -> None:
        """What still comes in for a client that closes or has closed changes nothing."""
        for way in (_CLOSING, _CLOSED):
            scene = Scene(self)
            WAYS[way](scene)
            scene.steps.clear()
            scene.reply()
            scene.reply_nonsense()
            self.assertEqual(scene.steps, [])
            scene.end()


ACTS = st.one_of(
    st.tuples(st.just(Scene.call)),
    st.tuples(st.just(Scene.accept)),
    st.tuples(st.just(Scene.reply)),
    st.tuples(st.just(Scene.call)),
    st.tuples(st.just(Scene.accept)),
    st.tuples(st.just(Scene.reply), st.sampled_from([OK[:9], OK[9:], OK * 2])),
    st.tuples(st.just(Scene.reply_late)),
    st.tuples(st.just(Scene.cancel), st.integers(1, 4)),
    st.tuples(st.just(Scene.refuse), st.sampled_from([111, 111, 13])),
    st.tuples(
        st.sampled_from([Scene.reply_nonsense, Scene.lose, Scene.lose_late, Scene.call_the_gone])
    ),
    st.tuples(st.just(Scene.wait), st.sampled_from([FIRST_WAIT, 1.0, TIMEOUT / 2])),
)


class MachineTests(SynchronousTestCase):
    """Whatever happens to a client, its rules hold."""

    @given(st.lists(ACTS, min_size=5, max_size=50), st.lists(ACTS, max_size=5))
    @examples(200)
    def test_client(self, first: list[Any], last: list[Any]) -> None:
        """Each call ends once, none is sent twice, and nothing is left behind."""
        scene = Scene(self)
        for act, *arguments in first:
            act(scene, *arguments)
            scene.check()
        scene.close()
        for act, *arguments in last:
            act(scene, *arguments)
            scene.check()
        scene.end()
