"""Nodes with the cluster's certificate that answer too much, too slowly, for ever, or rubbish.

However a node answers: its call ends, at once or by its time-out, with an error that names the
node; the connection is gone; what is held in memory stays within bounds; other nodes are served.
"""

from __future__ import annotations

import json
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import DeferredList, inlineCallbacks
from twisted.trial.unittest import TestCase

from ganeti_masterd.rpc import calls, results
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.exchange import LARGE_ANSWER, MAX_HEAD
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import MAX_ERROR
from ganeti_masterd.rpc.wire import MAX_DEPTH, MAX_VALUES
from tests.rpc import hostile
from tests.rpc.peers import Deaf, Peer, Scene, response, target, tls
from tests.threads import OneThread

OK = b"HTTP/1.1 200 OK\r\n"
#: Bytes that an answer may have here.
LIMIT = 1 << 20


def sized(body: bytes, *headers: bytes) -> bytes:
    """Returns an answer with status 200, a length and this body."""
    head = b"".join(header + b"\r\n" for header in headers)
    return b"%s%sContent-Length: %d\r\n\r\n%s" % (OK, head, len(body), body)


class HostileCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.scene = Scene()
        self.addCleanup(self.scene.close)

    @inlineCallbacks
    def attack(
        self, peer: Peer, call: str = "version", arguments: Any = (), limit: int = LIMIT
    ) -> Any:
        """Returns the result of one call to this peer, without any time passing.

        Afterwards the peer's connection is gone, though it closed nothing, and a good node is
        served by the same client.
        """
        nodes = self.scene.nodes((yield self.scene.listen(peer, tls())), max_answer=limit)
        found = yield nodes.call([target()], call, arguments)
        result = found[target().key]
        yield peer.alone()
        nodes._line.port = yield self.scene.listen(Peer(), tls())
        after = yield nodes.call([target()], "version")
        self.assertEqual(after[target().key].payload, 3000000)
        return result

    @inlineCallbacks
    def refused(self, peer: Peer, text: str, limit: int = LIMIT) -> Any:
        """Asserts that the call fails at once, with such an error, which names the node.

        It is a call that has a day's time, so none is saved by its time-out.
        """
        result = yield self.attack(peer, "instance_os_add", [{}, False, 0], limit)
        self.assertIsNone(result.payload)
        self.assertIn(text, result.error)
        self.assertIn("node2", result.error)
        return result


class FloodTests(HostileCase):
    """Too much, for ever."""

    @inlineCallbacks
    def test_endless(self) -> Any:
        """An answer without an end is cut off: in its body, its header, before, or after."""
        chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        head = f"more than {MAX_HEAD} bytes before"
        for begin, piece, text in (
            (OK + b"\r\n", b"[" * 9000, f"longer than {LIMIT} bytes"),
            (chunked, b"2\r\n[[\r\n" * 1000, f"longer than {LIMIT} bytes"),
            (chunked + b"0\r\n", b"a: b\r\n" * 1000, "broke off its answer"),
            (chunked, b"0" * 1000, "broke off its answer"),
            (OK, b"x-more: and more\r\n" * 500, head),
            (OK, b"x" * 9000, "Node node2 "),
            (OK + b"a: b", b"\r\n b" * 2000, head),
            (b"", b"x" * 9000, "Node node2 "),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, head),
        ):
            peer = hostile.Flood(begin, piece)
            yield self.refused(peer, text)
            # What was sent has left the peer, but for what buffers on the way hold.
            self.assertLess(peer.pieces * len(piece), 32 * LIMIT, piece[:20])

    @inlineCallbacks
    def test_more_after_the_answer(self) -> Any:
        """An answer that comes twice, or over and over, counts once; the rest isn't read."""
        once = response([True, 3])
        for peer in (Peer(once * 2), hostile.Flood(once, once), hostile.Stubborn(once * 2)):
            result = yield self.attack(peer)
            self.assertEqual((result.payload, result.error), (3, None))

    @inlineCallbacks
    def test_announced(self) -> Any:
        """An answer that says that it will be too long is refused by its header."""
        for length in (LIMIT + 1, 1 << 62, 10**4000):
            announced = OK + f"Content-Length: {length}\r\n\r\n".encode()
            yield self.refused(hostile.Stubborn(announced), f"longer than {LIMIT} bytes")

    @inlineCallbacks
    def test_status_with_an_endless_body(self) -> Any:
        """An answer with a bad status is refused by its header."""
        peer = hostile.Flood(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 9000)
        yield self.refused(peer, "Node node2 answered with HTTP status 500")
        self.assertLess(peer.pieces * len(peer.piece), 32 * LIMIT)

    @inlineCallbacks
    def test_crumbs(self) -> Any:
        """An answer in crumbs costs no more memory than one in a piece."""
        crumbs = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        few = LIMIT // 4
        peer = hostile.Flood(crumbs, b"2\r\n[[\r\n" * 100)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield self.refused(peer, f"longer than {few} bytes", few)
        _, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak - before, 4 * few)

    @inlineCallbacks
    def test_many_calls_at_once(self) -> Any:
        """All calls to one node together may hold no more than one answer may."""
        half = OK + b"Content-Length: %d\r\n\r\n" % (LIMIT - 500) + b"[" * (LIMIT * 2 // 3)
        peer = Peer(half, closes=False)
        nodes = self.scene.nodes((yield self.scene.listen(peer, tls())), max_answer=LIMIT)
        calls = [nodes.call([target()], "version") for _ in range(2)]
        found, _ = yield DeferredList(calls, fireOnOneCallback=True)
        error = f"Node node2 answers more than {LIMIT} bytes at once"
        self.assertEqual(found[target().key].error, error)
        yield nodes.close()
        self.assertEqual(nodes._line.held, {})


class RubbishTests(HostileCase):
    """Answers that mean nothing."""

    @inlineCallbacks
    def test_not_json(self) -> Any:
        """A body that can't be read, or is no answer, is refused; it isn't quoted."""
        for body in bodies():
            result = yield self.refused(Peer(sized(body)), "RPC layer error", 8 * LIMIT)
            self.assertLess(len(result.error), 200)

    @inlineCallbacks
    def test_compressed(self) -> Any:
        """A body that claims to be compressed isn't unpacked, whether it is or not."""
        bomb = zlib.compress(b"[" * (64 * LIMIT), 9)
        for body in (bomb, os.urandom(5000)):
            for name in (b"gzip", b"deflate"):
                answer = sized(body, b"Content-Encoding: " + name)
                yield self.refused(Peer(answer), "RPC layer error")
        unknown = OK + b"Transfer-Encoding: gzip\r\n\r\n" + bomb
        yield self.refused(hostile.Stubborn(unknown), "as a node daemon")

    @inlineCallbacks
    def test_long_error(self) -> Any:
        """The text of a failure is cut; it goes into logs and job files."""
        for text in ("x" * (LIMIT // 2), [["y"] * 9] * 9000):
            result = yield self.attack(Peer([False, text]))
            self.assertLess(len(result.error), MAX_ERROR + 100)
            self.assertIn("more characters", result.error)

    @inlineCallbacks
    def test_stubborn(self) -> Any:
        """A peer that neither reads on nor closes can't keep the call by that."""
        for rubbish in (
            b"SSH-2.0-OpenSSH\r\n\r\n",
            OK + b"x" * 20_000,
            OK + b"Content-Length: -1\r\n\r\n",
            OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n",
            os.urandom(20_000) + b"\r\n\r\n",
        ):
            yield self.refused(hostile.Stubborn(rubbish), "node2")

    @inlineCallbacks
    def test_half(self) -> Any:
        """A node that closes half-way, wherever that is, gave no answer."""
        whole = response([True, {"a": 1}])
        for end in range(0, len(whole), 7):
            result = yield self.attack(Peer(whole[:end]))
            self.assertRegex(result.error, "^Node node2 (closed|broke off)")


class TLSRubbishTests(HostileCase):
    """Bytes that are no good TLS."""

    @inlineCallbacks
    def test_records(self) -> Any:
        """Rubbish in a TLS record, or instead of one, ends the call."""
        for sent in (
            b"\x17\x03\x03\x00\x40" + os.urandom(64),
            b"\x17\x03\x03\xff\xff" + os.urandom(1 << 16),
            b"\x16\x03\x03\x00\x04" + os.urandom(4),
            b"HTTP/1.1 200 OK\r\n\r\n",
            os.urandom(1 << 16),
        ):
            yield self.refused(hostile.Records(sent), "No TLS connection with node node2")

    @inlineCallbacks
    def test_instead_of_a_handshake(self) -> Any:
        """Rubbish instead of a handshake, even in good records, is no connection."""
        huge = b"\x02\xff\xff\xff" + bytes(16_380)
        for sent in (
            b"SSH-2.0-OpenSSH\r\n" * 1000,
            b"\x16\x03\x03\x40\x00" + huge + (b"\x16\x03\x03\x40\x00" + bytes(16_384)) * 64,
            b"\x15\x03\x03\x00\x02\x02\x28",
        ):
            peer = hostile.Greeter(sent)
            port = yield self.scene.listen(peer, None)
            found = yield self.scene.nodes(port).call([target()], "version")
            self.assertIn("node2", found[target().key].error)
            yield peer.alone()


class SlowTests(HostileCase):
    """Too slowly: time is the client's clock."""

    @inlineCallbacks
    def trickle(self, peer: Peer, begin: bytes, each: bytes) -> Any:
        """Returns the error of a call whose answer comes in pieces, one each second."""
        nodes = self.scene.nodes((yield self.scene.listen(peer, tls())), max_answer=LIMIT)
        asked = peer.next_request()
        called = nodes.call([target()], "version")
        yield asked
        [connection] = peer.connections
        connection.transport.write(begin)
        for _ in range(60):
            self.assertNoResult(called)
            connection.transport.write(each)
            self.scene.clock.advance(1)
        found = yield called
        yield peer.alone()
        return found[target().key].error

    @inlineCallbacks
    def test_trickle(self) -> Any:
        """A byte each second, of a body or of a header, doesn't prolong the call."""
        for begin, each in (
            (OK + b"Content-Length: 100000\r\n\r\n", b"["),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n"),
            (OK, b"x"),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ):
            error = yield self.trickle(Peer(None), begin, each)
            self.assertEqual(error, "Node node2 gave no answer within 60 seconds")

    @inlineCallbacks
    def test_slow_handshake(self) -> Any:
        """A handshake that never ends is no connection, however long the call may take."""
        peer = Peer()
        peer.protocol = Deaf
        nodes = self.scene.nodes((yield self.scene.listen(peer, None)))
        accepted = peer.next_request()
        called = nodes.call([target()], "instance_os_add", [{}, False, 0])
        yield accepted
        [connection] = peer.connections
        for each in b"\x16\x03\x03\x40":
            self.assertNoResult(called)
            connection.transport.write(bytes([each]))
            self.scene.clock.advance(1)
        self.scene.clock.advance(1)
        found = yield called
        self.assertEqual(
            found[target().key].error, "Can't connect to 127.0.0.1: no answer within 5 seconds"
        )
        yield peer.alone()


class LargeAnswerTests(HostileCase):
    """Answers so large that a thread reads them: it does so when the test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.thread = OneThread()
        self.names = [f"instance{number}.example.com" for number in range(20_000)]

    @inlineCallbacks
    def called(self, answer: Any) -> Any:
        """Returns a client and what one call will fire with, once the thread is to read that."""
        peer = Peer(answer)
        port = yield self.scene.listen(peer, tls())
        nodes = self.scene.nodes(port, in_thread=self.thread.run)
        asked = self.thread.asked()
        call = call_nodes(nodes, [target()], calls.INSTANCE_LIST, [["fake"], {}])
        yield asked
        yield peer.alone()
        self.assertNoResult(call)
        self.assertEqual(nodes.pending, 1)
        return nodes, call

    @inlineCallbacks
    def test_others_meanwhile(self) -> Any:
        """Others are asked and answered while it is read, and then it is as any answer."""
        nodes, call = yield self.called([True, self.names])
        nodes._line.port = yield self.scene.listen(Peer(), tls())
        other = yield nodes.call([target("node3")], "version")
        self.assertEqual(other[target("node3").key].payload, 3000000)
        self.assertNoResult(call)
        read = self.thread.step()
        self.assertEqual((read.payload, read.typed.payload), (self.names, self.names))
        result = self.successResultOf(call)[target().key]
        self.assertEqual(result, NodeResult("node2", "instance_list", self.names))
        self.assertEqual(len(nodes._line.held), 0)

    @inlineCallbacks
    def test_typed_in_the_thread(self) -> Any:
        """What hasn't the declared type is found in the thread, not once more in the reactor."""
        _, call = yield self.called([True, [*self.names, 5]])
        read = self.thread.step()
        self.patch(results, "parse", lambda *args: self.fail("it was looked at again"))
        result = self.successResultOf(call)[target().key]
        self.assertIs(result, read.typed)
        self.assertIn("malformed result: Expected `str`, got `int` - at `$[20000]`", result.error)

    @inlineCallbacks
    def test_out_of_time(self) -> Any:
        """A call ends by its time-out while the thread has too much to do; that is dropped."""
        _, call = yield self.called([True, self.names])
        self.scene.clock.advance(60)
        result = self.successResultOf(call)[target().key]
        self.assertEqual(result.error, "Node node2 gave no answer within 60 seconds")
        self.assertEqual(self.thread.step().payload, self.names)

    @inlineCallbacks
    def test_stop(self) -> Any:
        """A stop doesn't wait for the thread."""
        nodes, call = yield self.called([True, self.names])
        yield nodes.close()
        result = self.successResultOf(call)[target().key]
        self.assertIn("the daemon stops", result.error)
        self.thread.step()

    @inlineCallbacks
    def test_same_as_without(self) -> Any:
        """Rubbish is refused in the same words, whoever reads it."""
        padding = b"x" * LARGE_ANSWER
        for body in (
            *(padding, b'"%b"' % padding, b'["%b"]' % padding, b'[true, "%b", 2]' % padding),
            *(b'[true, "%b\xff"]' % padding, b'[false, "%b"]' % padding, b"[" * LARGE_ANSWER),
            b"[true, [" + b"[]," * MAX_VALUES + b"1]]",
        ):
            without = yield self.attack(Peer(sized(body)), limit=4 << 20)
            _, call = yield self.called(sized(body))
            self.thread.step()
            result = self.successResultOf(call)[target().key]
            self.assertEqual(result.error, without.error)
            self.assertTrue(result.error)

    @inlineCallbacks
    def test_fault_of_the_daemon(self) -> Any:
        """A fault in the thread ends the call, and its message isn't logged."""
        _, call = yield self.called([True, self.names])
        self.patch(results, "read_answer", lambda *args: 1 // 0)
        self.thread.step()
        result = self.successResultOf(call)[target().key]
        self.assertIn("ZeroDivisionError", result.error)


def bodies() -> Iterator[bytes]:
    """Yields bodies that are no answers."""
    yield from (b"", b"null", b"7", b'"[true, 1]"', b"{}", b"[]", b"[true]", b"[true, 1, 2]")
    yield from (b"[true, 1", b"[true, 1]]", b"[true, 1] [true, 2]", b"<html></html>", b"\xff" * 99)
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
        yield opened * 100_000
        for depth in (MAX_DEPTH, 100_000):
            yield b"[true, " + opened * depth + b"1" + closed * depth + b"]"
    yield b"[true, [" + b"[]," * MAX_VALUES + b"1]]"
    yield json.dumps([True, "x"]).encode("utf-16")
