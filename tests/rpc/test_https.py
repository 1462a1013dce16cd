"""Calls to real peers on loopback: good and bad answers, silence, closing."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from twisted.web.iweb import IBodyProducer
from zope.interface.verify import verifyClass, verifyObject

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.events import NodeCalled
from ganeti_masterd.rpc import exchange
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.https import PATIENCE, HTTPSNodes, noded_port
from ganeti_masterd.rpc.interfaces import CallAbandoned, INodeRPC, NodeResult, Target
from ganeti_masterd.rpc.wire import VIRTUAL
from ganeti_masterd.timing import Timers
from tests.rpc.peers import Deaf, Peer, Scene, response, target, tls


class AnswerTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.scene = Scene()
        self.addCleanup(self.scene.close)
        self.peer = Peer()

    @inlineCallbacks
    def client(self, **settings: Any) -> Any:
        port = yield self.scene.listen(self.peer, tls())
        return self.scene.nodes(port, **settings)

    @inlineCallbacks
    def answer(self, answer: Any, procedure: str = "version", arguments: Any = ()) -> Any:
        """Returns the result of one call that a peer answers with ``answer``."""
        self.peer.answer = answer
        nodes = yield self.client()
        found = yield nodes.call([target()], procedure, arguments)
        self.assertEqual(list(found), [target().key])
        result = found[target().key]
        self.assertEqual((result.node, result.procedure), ("node2", procedure))
        return result

    @inlineCallbacks
    def test_interface(self) -> Any:
        """The client implements ``INodeRPC``."""
        verifyClass(INodeRPC, HTTPSNodes)
        verifyObject(INodeRPC, (yield self.client()))

    @inlineCallbacks
    def test_request(self) -> Any:
        """A request is as noded expects it: POST, a length, ASCII, no ``Connection`` header."""
        result = yield self.answer((True, {}), "node_verify", [{"é": None}, "c", {}])
        self.assertEqual(result, NodeResult("node2", "node_verify", {}))
        [(line, headers, body)] = self.peer.requests
        self.assertEqual(line, "POST /node_verify HTTP/1.1")
        self.assertEqual(body, b'[{"\\u00e9":null},"c",{}]')
        self.assertEqual(headers["content-length"], str(len(body)))
        self.assertIn("host", headers)
        for unwanted in ("connection", "expect", "transfer-encoding"):
            self.assertNotIn(unwanted, headers)

    @inlineCallbacks
    def test_bare(self) -> Any:
        """The body of a bare call is its argument."""
        yield self.answer((True, {}), "instance_console_info", [{"i": {}}])
        self.assertEqual(self.peer.requests[0][2], b'{"i":{}}')

    @inlineCallbacks
    def test_failure(self) -> Any:
        """A failure on the node gives the node's message."""
        result = yield self.answer((False, "No exports directory"), "export_list")
        self.assertEqual(result.error, "No exports directory")
        self.assertFalse(result.offline)

    @inlineCallbacks
    def test_empty_failure(self) -> Any:
        """A failure without a message gets one."""
        result = yield self.answer((False, ""))
        self.assertEqual(result.error, "No error information")

    @inlineCallbacks
    def test_not_a_pair(self) -> Any:
        """An answer that isn't a pair is an RPC layer error."""
        result = yield self.answer({"a": 1})
        self.assertEqual(
            result.error, "RPC layer error: node node2: invalid result type dict, wanted a list"
        )

    @inlineCallbacks
    def test_not_json(self) -> Any:
        """The error for an answer that isn't JSON says where, and doesn't quote it."""
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
        result = yield self.answer(raw)
        self.assertTrue(result.error.startswith("RPC layer error: node node2: malformed answer: "))
        self.assertNotIn("secret", result.error)

    @inlineCallbacks
    def test_status(self) -> Any:
        """Any status except 200 is a failure."""
        result = yield self.answer(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n[true, 1]")
        self.assertEqual(result.error, "Node node2 answered with HTTP status 404")

    @inlineCallbacks
    def test_garbage(self) -> Any:
        """An answer that isn't HTTP is a failure."""
        result = yield self.answer(b"SSH-2.0-OpenSSH\r\n\r\n")
        self.assertIn("does not answer as a node daemon", result.error)

    @inlineCallbacks
    def test_closed(self) -> Any:
        """Closing without an answer, as noded does for unknown calls, is a failure."""
        result = yield self.answer(b"")
        self.assertEqual(result.error, "Node node2 closed the connection without an answer")

    @inlineCallbacks
    def test_half_head(self) -> Any:
        """An answer that ends within its header is a failure."""
        result = yield self.answer(b"HTTP/1.1 200 OK\r\nContent-")
        self.assertEqual(result.error, "Node node2 closed the connection without an answer")

    @inlineCallbacks
    def test_half_body(self) -> Any:
        """An answer shorter than its length is a failure, even if it could be decoded."""
        result = yield self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[true, 1]")
        self.assertEqual(result.error, "Node node2 broke off its answer")

    @inlineCallbacks
    def test_no_length(self) -> Any:
        """An answer without a length is a failure, as it may be incomplete."""
        result = yield self.answer(b"HTTP/1.1 200 OK\r\n\r\n[true, 1]")
        self.assertEqual(result.error, "Node node2 broke off its answer")

    @inlineCallbacks
    def test_too_long(self) -> Any:
        """An answer beyond the limit ends the call and the connection."""
        self.peer.answer = (True, "x" * 100_000)
        nodes = yield self.client(max_answer=50_000)
        found = yield nodes.call([target()], "version")
        self.assertEqual(
            found[target().key].error, "The answer of node node2 is longer than 50000 bytes"
        )
        yield self.peer.alone()

    @inlineCallbacks
    def test_large(self) -> Any:
        """A request and an answer of 12 MiB are transferred."""
        self.peer.answer = lambda body: (True, body[1])
        nodes = yield self.client()
        content = [0, "0123456789abcdef" * (12 << 16)]
        found = yield nodes.call([target()], "jobqueue_update", ["/queue/job-1", content])
        self.assertEqual(found[target().key].payload, content)

    @inlineCallbacks
    def test_kept_open(self) -> Any:
        """If a peer keeps the connection open, this side closes it; each call has its own."""
        self.peer.closes = False
        self.peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[true, 1]"
        nodes = yield self.client()
        for _ in range(3):
            found = yield nodes.call([target()], "version")
            self.assertEqual(found[target().key].payload, 1)
        yield self.peer.alone()
        self.assertEqual(len(self.peer.requests), 3)

    @inlineCallbacks
    def test_virtual_paths(self) -> Any:
        """In a virtual cluster paths are sent without the root in both directions."""
        self.peer.answer = lambda body: (
            True,
            {"filelist": dict.fromkeys(body[0]["filelist"], "s")},
        )
        nodes = yield self.client(root="/srv/c/node1/")
        path = "/srv/c/node1/var/lib/ganeti/hmac.key"
        found = yield nodes.call([target()], "node_verify", [{"filelist": [path]}, "c", {}])
        self.assertEqual(found[target().key].payload, {"filelist": {path: "s"}})
        self.assertIn(VIRTUAL.encode() + b"/var/lib/ganeti/hmac.key", self.peer.requests[0][2])

    @inlineCallbacks
    def test_many(self) -> Any:
        """Each node has its own result, in the order given, whatever the others do."""
        nodes = yield self.client()
        targets = [
            target("node4", "127.0.0.9"),
            target("node2"),
            target("gone", offline=True),
            target("node5", "no such:host/"),
        ]
        found = yield nodes.call(targets, "os_diagnose")
        self.assertEqual(list(found), [each.key for each in targets])
        four, two, gone, five = found.values()
        self.assertEqual(four.error, "Can't connect to 127.0.0.9: connection refused")
        self.assertIsNone(two.error)
        self.assertEqual((gone.error, gone.offline), ("Node is marked offline", True))
        self.assertTrue(five.error.startswith("Can't connect to no such:host/: "), five.error)
        self.assertEqual(len(self.peer.requests), 1)

    @inlineCallbacks
    def test_offline_too(self) -> Any:
        """Some calls are sent to nodes that are marked offline."""
        nodes = yield self.client()
        found = yield nodes.call([target(offline=True)], "version")
        self.assertEqual(found[target().key].payload, 3000000)

    @inlineCallbacks
    def test_twice(self) -> Any:
        """A key that is given twice has one result."""
        nodes = yield self.client()
        found = yield nodes.call([target(), target()], "version")
        self.assertEqual(len(found), 1)
        self.assertEqual((yield nodes.call([], "version")), {})

    @inlineCallbacks
    def test_arguments_of_each(self) -> Any:
        """Arguments may be a function of the node; a target without an address is resolved."""
        self.peer.answer = lambda body: (True, body)
        nodes = yield self.client()
        targets = [target("a"), Target("b", "localhost", "")]
        found = yield nodes.call(targets, "vg_list", lambda to: [])
        self.assertEqual([each.payload for each in found.values()], [[], []])
        found = yield nodes.call(targets, "jobqueue_set_drain_flag", lambda to: [to.name])
        self.assertEqual([each.payload for each in found.values()], [["a"], ["localhost"]])

    @inlineCallbacks
    def test_ipv6(self) -> Any:
        """IPv6 addresses work."""
        try:
            port = yield self.scene.listen(self.peer, tls(), "::1")
        except CannotListenError:
            raise SkipTest("this machine has no IPv6") from None
        nodes = self.scene.nodes(port)
        found = yield nodes.call([target(address="::1")], "version")
        self.assertEqual(found[target().key].payload, 3000000)

    @inlineCallbacks
    def test_wrong(self) -> Any:
        """Unknown calls and wrong arguments raise at once, and nothing is sent."""
        nodes = yield self.client(root="/srv/node1")
        for procedure, arguments in (
            ("nonsense", ()),
            ("version", [1]),
            ("test_delay", ["long"]),
            ("jobqueue_update", ["/elsewhere", [0, ""]]),
            ("jobqueue_set_drain_flag", [object()]),
        ):
            self.assertRaises(ProgrammerError, nodes.call, [target()], procedure, arguments)
        self.assertEqual(nodes.pending, 0)
        self.assertEqual(self.peer.connections, [])

    @inlineCallbacks
    def test_events(self) -> Any:
        """Each call that was sent is published with its error and its duration."""
        told: list[NodeCalled] = []
        self.scene.events.subscribe(NodeCalled, told.append)
        self.peer.answer = (False, "full")
        nodes = yield self.client()
        asked = self.peer.next_request()
        self.peer.answer = None
        called = nodes.call([target(), target("off", offline=True)], "vg_list")
        self.assertEqual(nodes.pending, 1)
        yield asked
        self.scene.clock.advance(2.5)
        self.peer.connections[0].transport.write(response((False, "full")))
        yield called
        self.assertEqual(told, [NodeCalled("vg_list", "node2", "full", 2.5)])
        self.assertEqual(nodes.pending, 0)

    @inlineCallbacks
    def test_fault_of_ours(self) -> Any:
        """Even an error in the client itself is a result, logged without the body."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            lines.append(formatEvent(event) or "")

        nodes = yield self.client()
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        def confused(body: bytes, decode_json: Any) -> Any:
            raise KeyError(body)

        self.patch(exchange, "decode", confused)
        self.peer.answer = (True, "hush-hush")
        found = yield nodes.call([target()], "version")
        self.assertEqual(found[target().key].error, "RPC layer error: node node2: KeyError")
        self.assertEqual(nodes.pending, 0)
        self.assertEqual(len(lines), 1)
        self.assertNotIn("hush", lines[0])

    @inlineCallbacks
    def test_nothing_is_logged(self) -> Any:
        """No log line, even of Twisted, quotes a body; a good call logs nothing."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            lines.append(f"{formatEvent(event)} {event}")

        nodes = yield self.client()
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        env = {"GANETI_OSP_PASSWORD": "hush-hush"}
        for answer in ((True, "hush-hush"), (False, "no"), b"hush-hush\r\n\r\n", b""):
            self.peer.answer = answer
            yield nodes.call([target()], "hooks_runner", ["a", "pre", env])
        self.assertEqual([line for line in lines if "hush" in line], [])
        self.assertEqual(lines, [])


class SilenceTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.scene = Scene()
        self.addCleanup(self.scene.close)
        self.peer = Peer(None)
        self.clock = self.scene.clock

    @inlineCallbacks
    def test_no_answer(self) -> Any:
        """A call to a node that never answers ends at its time-out."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())))
        asked = self.peer.next_request()
        called = nodes.call([target()], "version")
        yield asked
        self.clock.advance(59.9)
        self.assertNoResult(called)
        self.clock.advance(0.2)
        found = yield called
        self.assertEqual(found[target().key].error, "Node node2 gave no answer within 60 seconds")
        yield self.peer.alone()

    @inlineCallbacks
    def test_time_of_the_caller(self) -> Any:
        """The caller's time-out replaces the call's own."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())))
        asked = self.peer.next_request()
        called = nodes.call([target()], "instance_os_add", [{}, False, 0], timeout=7)
        yield asked
        self.clock.advance(7)
        found = yield called
        self.assertEqual(found[target().key].error, "Node node2 gave no answer within 7 seconds")

    @inlineCallbacks
    def test_half_an_answer(self) -> Any:
        """One timer covers the whole call, even while an answer trickles in."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())))
        asked = self.peer.next_request()
        called = nodes.call([target()], "version")
        yield asked
        self.peer.connections[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[t")
        self.clock.advance(60)
        found = yield called
        self.assertEqual(found[target().key].error, "Node node2 gave no answer within 60 seconds")
        yield self.peer.alone()

    @inlineCallbacks
    def test_deaf(self) -> Any:
        """A peer that accepts but never begins TLS fails the call after some seconds."""
        self.peer.protocol = Deaf
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, None)))
        accepted = self.peer.next_request()
        called = nodes.call([target()], "blockdev_wipe", [{}, 0, 1])
        yield accepted
        self.clock.advance(PATIENCE)
        found = yield called
        self.assertEqual(
            found[target().key].error, "Can't connect to 127.0.0.1: no answer within 5 seconds"
        )
        yield self.peer.alone()

    @inlineCallbacks
    def test_patience_ends_with_tls(self) -> Any:
        """After the TLS handshake only the call's own time-out counts."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())))
        asked = self.peer.next_request()
        called = nodes.call([target()], "test_delay", [100])
        yield asked
        self.clock.advance(104.9)
        self.assertNoResult(called)
        self.clock.advance(0.2)
        found = yield called
        self.assertEqual(found[target().key].error, "Node node2 gave no answer within 105 seconds")

    @inlineCallbacks
    def test_close(self) -> Any:
        """Closing ends calls in flight and waiting ones, and closes every connection."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())), in_flight=1)
        asked = self.peer.next_request()
        calls = [nodes.call([target()], "version") for _ in range(3)]
        yield asked
        self.assertEqual(nodes.pending, 3)
        yield nodes.close()
        self.assertEqual(nodes.pending, 0)
        calls.append(nodes.call([target(), target("off", offline=True)], "vg_list"))
        for called in calls:
            found = self.successResultOf(called)
            self.assertEqual(found[target().key].error, "The call was given up: the daemon stops")
        self.assertTrue(found["uuid of off"].offline)
        yield self.peer.alone()
        self.assertEqual(len(self.peer.requests), 1)
        self.successResultOf(nodes.close())

    @inlineCallbacks
    def test_close_while_connecting(self) -> Any:
        """Closing also ends connections that are still being made."""
        self.peer.protocol = Deaf
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, None)))
        called = nodes.call([target()], "version")
        yield nodes.close()
        self.assertTrue(self.successResultOf(called)[target().key].failed)

    @inlineCallbacks
    def test_cancel(self) -> Any:
        """Cancelling closes the connection; calls that were not sent are dropped."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())), in_flight=1)
        asked = self.peer.next_request()
        called, second = (nodes.call([target()], "version") for _ in range(2))
        yield asked
        second.cancel()
        abandoned = self.failureResultOf(second, CallAbandoned).value
        self.assertEqual((abandoned.nodes, abandoned.still_under_way()), ((), ""))
        called.cancel()
        abandoned = self.failureResultOf(called, CallAbandoned).value
        self.assertEqual((abandoned.procedure, abandoned.nodes), ("version", ("node2",)))
        self.assertEqual((nodes.pending, nodes._turns), (0, {}))
        closed = nodes.close()
        self.assertNoResult(closed)
        yield closed
        yield self.peer.alone()
        self.assertEqual(len(self.peer.requests), 1)

    @inlineCallbacks
    def test_cancel_one_of_several(self) -> Any:
        """Cancelling one call leaves others to the same node alone."""
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, tls())), in_flight=1)
        first, second, third = (nodes.call([target()], "version") for _ in range(3))
        asked = self.peer.next_request()
        second.cancel()
        self.failureResultOf(second, CallAbandoned)
        yield asked
        self.peer.answer = response([True, 7])
        first.cancel()
        self.failureResultOf(first, CallAbandoned)
        found = yield third
        self.assertEqual(found[target().key].payload, 7)

    @inlineCallbacks
    def test_cancel_while_connecting(self) -> Any:
        """A node that wasn't reached isn't named in the error."""
        self.peer.protocol = Deaf
        nodes = self.scene.nodes((yield self.scene.listen(self.peer, None)))
        called = nodes.call([target()], "version")
        called.cancel()
        self.assertEqual(self.failureResultOf(called, CallAbandoned).value.nodes, ())
        self.assertEqual(nodes.pending, 0)


class BodyTests(SynchronousTestCase):
    """A request's body is written no faster than the connection accepts it."""

    def test_paused(self) -> None:
        """Nothing is written to a paused connection until it resumes."""
        data = bytes(range(256)) * 4096
        body = exchange._Body(data)
        verifyObject(IBodyProducer, body)
        self.assertEqual(body.length, len(data))
        written: list[bytes] = []

        class Full:
            def write(self, chunk: bytes) -> None:
                written.append(chunk)
                body.pauseProducing()

        done = body.startProducing(Full())  # type: ignore[arg-type]
        for chunks in range(1, 5):
            self.assertEqual(len(written), chunks)
            body.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(b"".join(written), data)
        body.resumeProducing()
        self.assertEqual(len(written), 4)

    def test_empty(self) -> None:
        """An empty body is done at once."""
        transport = StringTransport()
        self.successResultOf(exchange._Body(b"").startProducing(transport))
        self.assertEqual(transport.value(), b"")

    def test_stopped(self) -> None:
        """After the request has ended nothing is written."""
        transport = StringTransport()
        body = exchange._Body(bytes(3 * exchange.CHUNK))
        written: list[bytes] = []

        def write(data: bytes) -> None:
            written.append(data)
            body.pauseProducing()

        transport.write = write  # type: ignore[method-assign]
        done = body.startProducing(transport)
        self.assertEqual(len(written), 1)
        body.stopProducing()
        for _ in range(3):
            body.resumeProducing()
        self.assertEqual(len(written), 1)
        self.assertNoResult(done)


class LimitTests(SynchronousTestCase):
    """Connections on an in-memory reactor: to which nodes, and when."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        scene = Scene()
        self.addCleanup(scene.close)
        certificates = Certificates(scene.server, scene.client)
        self.nodes = HTTPSNodes(self.reactor, Timers(self.reactor), certificates)
        self.refused = 0

    def connected(self) -> int:
        """Returns the number of connections that were begun and haven't failed."""
        return len(self.reactor.tcpClients) - self.refused

    def refuse(self) -> None:
        """Refuses the oldest connection."""
        host, port, factory, _, _ = self.reactor.tcpClients[self.refused]
        self.assertEqual((host, port), ("192.0.2.2", 1811))
        self.refused += 1
        connector = self.reactor.connectors[self.refused - 1]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))

    def call(self, procedure: str, *arguments: object) -> Any:
        return self.nodes.call([target(address="192.0.2.2")], procedure, arguments)

    def test_in_flight(self) -> None:
        """At most 16 calls are in flight to a node; others are sent when these end."""
        calls = [self.call("vg_list") for _ in range(40)]
        self.assertEqual((self.connected(), self.nodes.pending), (16, 40))
        for left in range(39, -1, -1):
            self.refuse()
            self.assertEqual((self.connected(), self.nodes.pending), (min(16, left), left))
        for called in calls:
            self.assertTrue(self.successResultOf(called)[target().key].failed)

    def test_room_for_urgent(self) -> None:
        """Long calls leave room for others, and an urgent one overtakes all that wait."""
        for _ in range(20):
            self.call("test_delay", 100)
        self.assertEqual(self.connected(), 12)
        for _ in range(12):
            self.call("os_diagnose")
        self.assertEqual(self.connected(), 14)
        urgent = [self.call("version") for _ in range(3)]
        self.assertEqual(self.connected(), 16)
        self.refuse()
        self.assertEqual(self.connected(), 16)
        for _ in range(16):
            self.refuse()
        for called in urgent:
            self.successResultOf(called)

    def test_others_are_free(self) -> None:
        """The limit applies to each node separately."""
        for _ in range(20):
            self.call("vg_list")
        self.nodes.call([target("node3", "192.0.2.3")], "vg_list")
        self.assertEqual(self.reactor.tcpClients[-1][0], "192.0.2.3")

    def test_time_runs_from_sending(self) -> None:
        """A waiting call's time-out has not started."""
        self.nodes = HTTPSNodes(
            self.reactor, Timers(self.reactor), self.nodes._line.certificates, in_flight=1,
            patience=1000.0,
        )  # fmt: skip
        first, second = self.call("version"), self.call("version")
        self.reactor.advance(59)
        self.assertNoResult(first)
        self.reactor.advance(1)
        self.successResultOf(first)
        self.reactor.advance(59)
        self.assertNoResult(second)
        self.reactor.advance(1)
        error = self.successResultOf(second)[target().key].error
        self.assertEqual(error, "Node node2 gave no answer within 60 seconds")
        self.assertEqual(self.nodes.pending, 0)

    def test_no_memory_of_nodes(self) -> None:
        """Nothing is kept about nodes without calls."""
        self.call("version")
        self.refuse()
        self.assertEqual(self.nodes._turns, {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_that_cannot_be_sent(self) -> None:
        """A call that can't be sent has a result, and the next call is sent."""
        certificates = self.nodes._line.certificates

        def broken(exchange: object) -> None:
            raise RuntimeError("no creator")

        self.patch(certificates, "creator", broken)
        for _ in range(3):
            found = self.successResultOf(self.call("version"))
            self.assertEqual(found[target().key].error, "RPC layer error: node node2: RuntimeError")
        self.assertEqual((self.nodes.pending, self.nodes._turns), (0, {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_called_from_a_result(self) -> None:
        """A callback may make another call at once, even to the same node."""
        nodes = HTTPSNodes(
            self.reactor, Timers(self.reactor), Certificates("/nonexistent", "/nonexistent")
        )
        results: list[str | None] = []

        def again(found: Any) -> Any:
            results.append(found[target().key].error)
            return nodes.call([target()], "version").addCallback(again) if len(results) < 50 else 0

        self.successResultOf(nodes.call([target()], "version").addCallback(again))
        self.assertEqual(len(results), 50)
        self.assertEqual(nodes.pending, 0)

    def test_port(self) -> None:
        """The port is a number, 1811 unless /etc/services has another."""
        self.assertGreater(noded_port(), 0)
        self.patch(__import__("socket"), "getservbyname", lambda name, kind: 4711)
        self.assertEqual(noded_port(), 4711)

        def unknown(name: str, kind: str) -> int:
            raise OSError("service/proto not found")

        self.patch(__import__("socket"), "getservbyname", unknown)
        self.assertEqual(noded_port(), 1811)
