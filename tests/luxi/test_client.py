"""The client on Deferreds: order, time, and connections that come and go."""

from __future__ import annotations

import itertools
import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import JobLost, LuxiError, OpPrereqError, ProgrammerError
from ganeti_masterd.luxi.client import LuxiClient
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.failures import (
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    DaemonUnreachable,
)
from ganeti_masterd.timing import Timers
from tests.luxi.doubles import Endpoint, SocketCase, reactor

OK = b'{"success":true,"result":%s}\x03'


class ClientCase(SynchronousTestCase):
    """A client of an endpoint in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.client = self.make()

    def make(self, **options: Any) -> LuxiClient:
        return LuxiClient(self.endpoint, Timers(self.clock), **options)

    def sent(self, transport: StringTransport) -> list[Any]:
        """The calls that were written since the last look."""
        data = transport.value()
        transport.clear()
        return [json.loads(message) for message in data.split(b"\x03")[:-1]]


class CallTests(ClientCase):
    """Calls on a connection that works."""

    def test_double(self) -> None:
        """The endpoint of these tests is one."""
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_call(self) -> None:
        """A call is sent once connected, with the version, and fires with the result."""
        called = self.client.call("Query", "node", ["name"])
        protocol, transport = self.endpoint.accept()
        self.assertEqual(
            self.sent(transport),
            [{"method": "Query", "args": ["node", ["name"]], "version": 3000000}],
        )
        self.assertNoResult(called)
        protocol.dataReceived(OK[:9])
        protocol.dataReceived(OK[9:] % b"[1]")
        self.assertEqual(self.successResultOf(called), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_endpoint_that_raises(self) -> None:
        """A client whose endpoint raises tries again as if it had failed, then gives up."""

        def broken(factory: Any) -> Any:
            self.endpoint.tried += 1
            raise OSError("no sockets")

        self.patch(self.endpoint, "connect", broken)
        called = self.client.call("A")
        for _ in range(200):
            self.clock.advance(0.1)
        self.failureResultOf(called, DaemonUnreachable)
        self.assertGreater(self.endpoint.tried, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_order(self) -> None:
        """Calls go one by one, in the order they were made."""
        calls = [self.client.call("A", n) for n in range(3)]
        self.assertEqual(self.endpoint.tried, 1)
        protocol, transport = self.endpoint.accept()
        for number, called in enumerate(calls):
            [sent] = self.sent(transport)
            self.assertEqual(sent["args"], [number])
            protocol.dataReceived(OK % (b"%d" % number))
            self.assertEqual(self.successResultOf(called), number)
        self.assertEqual(self.endpoint.tried, 1)

    def test_call_from_a_callback(self) -> None:
        """A call made when another is answered goes behind those that wait."""
        first, second = self.client.call("A"), self.client.call("B")
        third: list[Deferred[Any]] = []
        first.addCallback(lambda _: third.append(self.client.call("C")))
        protocol, transport = self.endpoint.accept()
        for _ in range(3):
            protocol.dataReceived(OK % b"1")
        self.assertEqual([call["method"] for call in self.sent(transport)], ["A", "B", "C"])
        self.successResultOf(second)
        self.successResultOf(third[0])

    def test_errors(self) -> None:
        """The daemon's error is the call's, as its class; the connection stays."""
        called = self.client.call("A")
        protocol, _transport = self.endpoint.accept()
        protocol.dataReceived(b'{"success":false,"result":["JobLost",["Job 5 lost"]]}\x03')
        self.assertEqual(self.failureResultOf(called, JobLost).value.args, ("Job 5 lost",))
        called = self.client.call("A")
        protocol.dataReceived(OK % b"2")
        self.assertEqual(self.successResultOf(called), 2)

    def test_unencodable(self) -> None:
        """Arguments without a form in JSON are refused at once, and nothing is sent."""
        self.assertRaises(ProgrammerError, self.client.call, "A", object())
        self.assertEqual(self.endpoint.tried, 0)

    def test_no_version(self) -> None:
        """A client may say no version, or a classic one."""
        client = self.make(version=None)
        client.call("A").addErrback(lambda _: None)
        self.assertEqual(self.sent(self.endpoint.accept()[1]), [{"method": "A", "args": []}])

    def test_nonsense(self) -> None:
        """A reply that isn't one fails its call and costs the connection, not the other calls."""
        for nonsense in (b"x\x03", b"{}\x03"):
            first, second = self.client.call("A"), self.client.call("B")
            protocol, transport = self.endpoint.accept()
            protocol.dataReceived(nonsense)
            self.failureResultOf(first, ProtocolError)
            self.assertTrue(transport.disconnecting)
            protocol.connectionLost(Failure(ConnectionDone()))
            self.assertNoResult(second)
            protocol, _ = self.endpoint.accept()
            protocol.dataReceived(OK % b"2")
            self.assertEqual(self.successResultOf(second), 2)
            protocol.connectionLost(Failure(ConnectionDone()))

    def test_reply_to_nothing(self) -> None:
        """A reply that no call waits for drops the connection."""
        called = self.client.call("A")
        protocol, transport = self.endpoint.accept()
        protocol.dataReceived(OK % b"1" + OK % b"2")
        self.assertEqual(self.successResultOf(called), 1)
        self.assertTrue(transport.disconnecting)


class TimeTests(ClientCase):
    """Calls that take too long, or are given up."""

    def test_timeout_of_a_sent_call(self) -> None:
        """A call that timed out costs its connection: a late answer isn't the next one's."""
        first = self.client.call("A", timeout=5)
        second = self.client.call("B")
        protocol, transport = self.endpoint.accept()
        self.clock.advance(5)
        self.assertTrue(self.failureResultOf(first, CallTimeout).value.sent)
        self.assertTrue(transport.disconnecting)
        protocol.dataReceived(OK % b"1")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertNoResult(second)
        protocol, transport = self.endpoint.accept()
        self.assertEqual([call["method"] for call in self.sent(transport)], ["B"])
        protocol.dataReceived(OK % b"2")
        self.assertEqual(self.successResultOf(second), 2)

    def test_timeout_of_a_waiting_call(self) -> None:
        """A call that times out before its turn is never sent, and disturbs no other."""
        first = self.client.call("A")
        second = self.client.call("B", timeout=5)
        protocol, transport = self.endpoint.accept()
        self.clock.advance(5)
        self.assertFalse(self.failureResultOf(second, CallTimeout).value.sent)
        protocol.dataReceived(OK % b"1")
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual([call["method"] for call in self.sent(transport)], ["A"])

    def test_cancel(self) -> None:
        """A call that is cancelled is taken back, or given up with its connection."""
        first, second, third = (self.client.call(name) for name in "ABC")
        protocol, transport = self.endpoint.accept()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertTrue(transport.disconnecting)
        protocol, transport = self.endpoint.accept()
        self.assertEqual([call["method"] for call in self.sent(transport)], ["C"])
        protocol.dataReceived(OK % b"3")
        self.assertEqual(self.successResultOf(third), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_while_connecting(self) -> None:
        """The connecting stops when nobody needs it any more."""
        called = self.client.call("A")
        called.cancel()
        self.failureResultOf(called, CancelledError)
        self.assertEqual(self.endpoint.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        called = self.client.call("B")
        self.endpoint.accept()[0].dataReceived(OK % b"1")
        self.assertEqual(self.successResultOf(called), 1)


class ReconnectTests(ClientCase):
    """No connection, or one that was lost."""

    def test_lost_between_calls(self) -> None:
        """The next call connects again."""
        for _ in range(3):
            called = self.client.call("A")
            protocol, _ = self.endpoint.accept()
            protocol.dataReceived(OK % b"1")
            self.successResultOf(called)
            protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.endpoint.attempts, [])

    def test_lost_with_a_call(self) -> None:
        """A call that was sent fails, and is not sent again; those behind it are."""
        first, second = self.client.call("A"), self.client.call("B")
        protocol, _ = self.endpoint.accept()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(first, ConnectionLost)
        _, transport = self.endpoint.accept()
        self.assertEqual([call["method"] for call in self.sent(transport)], ["B"])
        self.assertNoResult(second)

    def test_backoff(self) -> None:
        """It tries again after growing waits, and the calls keep waiting."""
        called = self.client.call("A")
        waits = []
        for _ in range(5):
            self.endpoint.refuse()
            waits.append(0.0)
            while not self.endpoint.attempts:
                self.clock.advance(0.05)
                waits[-1] += 0.05
        for before, after in itertools.pairwise(waits):
            self.assertGreater(after, before * 1.5)
        self.endpoint.accept()[0].dataReceived(OK % b"1")
        self.assertEqual(self.successResultOf(called), 1)

    def test_give_up(self) -> None:
        """After the connect time all calls that wait fail; a later call tries anew."""
        calls = [self.client.call("A"), self.client.call("B")]
        for _ in range(1000):
            if self.endpoint.attempts:
                self.endpoint.refuse()
            self.clock.advance(0.05)
        for called in calls:
            error = self.failureResultOf(called, DaemonUnreachable).value
            self.assertIn("nothing listens", str(error))
        self.assertEqual(self.endpoint.attempts, [])
        self.assertLess(self.endpoint.tried, 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        called = self.client.call("C")
        self.endpoint.accept()[0].dataReceived(OK % b"1")
        self.assertEqual(self.successResultOf(called), 1)

    def test_one_try(self) -> None:
        """Without a connect time one try is all."""
        called = self.make(connect_timeout=0).call("A")
        self.endpoint.refuse(2)
        self.assertIn("no such socket", str(self.failureResultOf(called, LuxiError).value))

    def test_hopeless(self) -> None:
        """What no second try makes better fails at once."""
        called = self.client.call("A")
        self.endpoint.refuse(13)
        error = self.failureResultOf(called, DaemonUnreachable).value
        self.assertIn("permission denied", str(error))

    def test_connect_takes_too_long(self) -> None:
        """A connect that hangs is given up after the connect time."""
        called = self.make(connect_timeout=3).call("A")
        self.clock.advance(3)
        error = self.failureResultOf(called, DaemonUnreachable).value
        self.assertIn("3 seconds", str(error))
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_close(self) -> None:
        """Closing fails all calls, and is done when the connection is gone."""
        calls = [self.client.call("A"), self.client.call("B")]
        protocol, transport = self.endpoint.accept()
        done = [self.client.close(), self.client.close()]
        for called in [*calls, self.client.call("C")]:
            self.failureResultOf(called, ClientClosed)
        self.assertTrue(transport.disconnecting)
        self.assertNoResult(done[0])
        protocol.connectionLost(Failure(ConnectionDone()))
        for each in done:
            self.successResultOf(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_by_the_call_before_nonsense(self) -> None:
        """Closed when a call is answered, a client is done though more replies were here."""
        for more in (OK % b"2", b"x\x03"):
            client = self.make()
            done: list[Deferred[None]] = []
            client.call("A").addCallback(
                lambda _, client=client, done=done: done.append(client.close())
            )
            protocol, transport = self.endpoint.accept()
            protocol.dataReceived(OK % b"1" + more)
            self.assertTrue(transport.disconnecting)
            self.assertNoResult(done[0])
            protocol.connectionLost(Failure(ConnectionDone()))
            self.successResultOf(done[0])

    def test_connected_though_stopped(self) -> None:
        """A connection that an endpoint makes after it was told to stop is not kept."""
        for stop in ("cancel", "close"):
            late: Deferred[Any] = Deferred()
            factories = []

            def stubborn(factory: Any, late: Any = late, factories: Any = factories) -> Any:
                factories.append(factory)
                attempt: Deferred[Any] = Deferred()
                return attempt.addErrback(lambda _: late)

            self.patch(self.endpoint, "connect", stubborn)
            client = self.make()
            called = client.call("A")
            if stop == "cancel":
                called.cancel()
            else:
                client.close()
            self.failureResultOf(called)
            protocol = factories[0].buildProtocol(None)
            transport = StringTransport()
            protocol.makeConnection(transport)
            late.callback(protocol)
            self.assertTrue(transport.disconnected)
            self.assertEqual(transport.value(), b"")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_while_connecting(self) -> None:
        """Closing ends the connecting, and the waits between two tries."""
        for refused in (False, True):
            client = self.make()
            called = client.call("A")
            if refused:
                self.endpoint.refuse()
            self.successResultOf(client.close())
            self.failureResultOf(called, ClientClosed)
            self.assertEqual(self.endpoint.attempts, [])
            self.assertEqual(self.clock.getDelayedCalls(), [])


class RealTests(SocketCase):
    """Against a server on a real socket."""

    async def test_calls(self) -> None:
        """Results, errors and large integers come through."""

        def answer(request: Any, peer: Any) -> Any:
            if request.method == "Fail":
                raise OpPrereqError("no", "wrong_input")
            return [request.method, request.args]

        self.listen(answer)
        client = LuxiClient.at(self.path, reactor)
        self.addCleanup(client.close)
        self.assertEqual(await client.call("A", 10**30, "é"), ["A", [10**30, "é"]])
        with self.assertRaises(OpPrereqError):
            await client.call("Fail")
        self.assertEqual(await client.query_tags("cluster"), ["QueryTags", ["cluster", ""]])
        self.assertEqual(await client.call("A", "x" * 5_000_000), ["A", ["x" * 5_000_000]])

    async def test_nobody_there(self) -> None:
        """Without a daemon the error says so."""
        client = LuxiClient.at(self.path, reactor, connect_timeout=0)
        self.addCleanup(client.close)
        try:
            await client.cluster_info()
        except DaemonUnreachable as error:
            self.assertIn(self.path, str(error))
            self.assertIn("no such socket", str(error))
        else:
            self.fail("connected to nothing")

    async def test_refused(self) -> None:
        """A server's refusal is the call's error, as the server words it."""
        self.listen(max_connections=0)
        client = LuxiClient.at(self.path, reactor)
        self.addCleanup(client.close)
        try:
            await client.cluster_info()
        except LuxiError as error:
            self.assertIn("0 connections", str(error))
        else:
            self.fail("served past the limit")

    async def test_server_closes_idle_connection(self) -> None:
        """A connection that the server closed is made again for the next call."""
        factory = self.listen(idle_timeout=10)
        client = LuxiClient.at(self.path, reactor)
        self.addCleanup(client.close)
        self.assertEqual(await client.call("A", 1), [1])
        self.clock.pump([1] * 12)
        await self.until(lambda: factory.connections == 0)
        self.assertEqual(await client.call("A", 2), [2])
