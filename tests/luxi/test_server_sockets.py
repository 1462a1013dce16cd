"""The server on real UNIX sockets."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.luxi.messages import Encoded
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.luxi.serverstates import ServerState
from tests.luxi.doubles import SocketCase, replies, request


class Parked:
    """An answer that never comes by itself; counts those that were cancelled."""

    def __init__(self) -> None:
        self.pending: list[Deferred[Any]] = []
        self.cancelled = 0

    def __call__(self, request: Any, peer: Any) -> Any:
        if request.method != "Park":
            return request.args
        self.pending.append(Deferred(self._cancel))
        return self.pending[-1]

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1


class ServerTests(SocketCase):
    """What only real sockets show."""

    async def test_peer(self) -> None:
        """The kernel says who the client is."""
        seen: list[Peer] = []
        self.listen(lambda _, peer: seen.append(peer))
        for number in (1, 2):
            client = self.connect()
            client.send(request())
            await self.read(client)
            self.assertEqual(
                seen[-1], Peer(number, uid=os.getuid(), pid=os.getpid(), gid=os.getgid())
            )

    async def test_sent_at_once(self) -> None:
        """An answer is on its way before the reactor's next turn."""
        answer = Parked()
        self.listen(answer)
        client = self.connect()
        client.send(request("Park"))
        await self.until(lambda: answer.pending)
        answer.pending[0].callback(1)
        self.assertEqual(replies(client.recv(1 << 16))[0]["result"], 1)

    async def test_descriptors(self) -> None:
        """A descriptor that a client sends along is dropped, not kept open."""
        self.listen()
        client = self.connect()
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        socket.send_fds(client, [request("A", 1)], [writing])
        os.close(writing)
        self.assertEqual((await self.read(client))[0]["result"], [1])
        self.assertEqual(os.read(reading, 1), b"")  # nobody has its other end any more

    async def test_half_close(self) -> None:
        """The reply to a full request arrives after the client closed its half."""
        answer = Parked()
        self.listen(answer)
        client = self.connect()
        client.send(request("Park") + request("A", 2))
        client.shutdown(socket.SHUT_WR)
        await self.until(lambda: answer.pending)
        await self.turns()
        self.assertEqual(answer.cancelled, 0)
        answer.pending[0].callback(1)
        self.assertEqual([r["result"] for r in replies(await self.ended(client))], [1, [2]])

    async def test_gone_while_pending(self) -> None:
        """A client that goes while it waits has its answer cancelled at once."""
        answer = Parked()
        factory = self.listen(answer)
        client = self.connect()
        client.send(request("Park"))
        await self.until(lambda: answer.pending)
        client.close()
        await self.until(lambda: answer.cancelled)
        await self.until(lambda: factory.connections == 0)

    async def test_gone_while_paused(self) -> None:
        """It is noticed a little later if the client had sent more, so that reading paused."""
        answer = Parked()
        factory = self.listen(answer)
        client = self.connect()
        client.send(request("Park"))
        await self.until(lambda: answer.pending)
        client.send(request())
        await self.turns()
        client.close()
        await self.turns()
        self.assertEqual(answer.cancelled, 0)
        self.clock.advance(6)
        await self.until(lambda: answer.cancelled)
        await self.until(lambda: factory.connections == 0)

    async def test_gone_after_half_close(self) -> None:
        """It is noticed a little later if the client had closed its half before."""
        answer = Parked()
        self.listen(answer)
        client = self.connect()
        client.send(request("Park"))
        client.shutdown(socket.SHUT_WR)
        await self.until(lambda: answer.pending)
        await self.turns()
        self.clock.advance(6)
        await self.turns()
        self.assertEqual(answer.cancelled, 0)
        client.close()
        self.clock.advance(6)
        await self.until(lambda: answer.cancelled)

    async def test_gone_while_a_later_answer_is_pending(self) -> None:
        """It is noticed too if the answer before was given meanwhile."""
        for half_close in (False, True):
            answer = Parked()
            factory = self.listen(answer)
            client = self.connect()
            client.send(request("Park"))
            await self.until(lambda answer=answer: answer.pending)
            client.send(request("Park"))
            if half_close:
                await self.turns()
                client.shutdown(socket.SHUT_WR)
            await self.turns()
            answer.pending[0].callback(None)
            self.assertEqual(len(answer.pending), 2)
            await self.turns()
            client.close()
            await self.turns()
            self.clock.advance(6)
            await self.until(lambda answer=answer: answer.cancelled)
            await self.until(lambda factory=factory: factory.connections == 0)
            await self.stop(factory)
            self.path += "2"

    async def test_back_pressure(self) -> None:
        """While an answer is pending a client can't send without end."""
        answer = Parked()
        factory = self.listen(answer)
        client = self.connect()
        client.send(request("Park"))
        await self.until(lambda: answer.pending)
        sent = await self.fill(client, request("A") * 1000)
        self.assertLess(sent, 4 << 20)
        [server] = factory._open
        self.assertLessEqual(server._framer.buffered, 65536)

    async def test_never_reads(self) -> None:
        """A client that never reads is served until its buffers are full; others don't notice."""
        size = 50_000
        factory = self.listen(lambda *_: Encoded(b'"' + b"x" * size + b'"'))
        client = self.connect()
        await self.fill(client, request() * 1000)
        asked = factory.requests
        self.assertLess(asked * size, 4 << 20)
        other = self.connect()
        other.send(request())
        [reply] = await self.read(other)
        self.assertEqual(len(reply["result"]), size)
        self.assertEqual(factory.requests, asked + 1)
        [transport] = {each.transport for each in factory._open if each.state is ServerState.CHOKED}
        self.assertLess(transport._tempDataLen + len(transport.dataBuffer), 65536 + 2 * size)

    async def test_reads_late(self) -> None:
        """A client that reads late gets all its answers, in order."""
        self.listen(lambda request, _: [request.args, "x" * 50_000])
        client = self.connect()
        client.send(b"".join(request("A", n) for n in range(200)))
        await self.turns(50)
        got = await self.read(client, 200)
        self.assertEqual([reply["result"][0] for reply in got], [[n] for n in range(200)])

    async def test_half_a_message(self) -> None:
        """Clients that send half a message harm nobody, and go when their time is over."""
        factory = self.listen(idle_timeout=180)
        halves = [self.connect() for _ in range(50)]
        for client in halves:
            client.send(request()[:-1])
        other = self.connect()
        other.send(request("A", 1))
        self.assertEqual((await self.read(other))[0]["result"], [1])
        self.assertEqual(factory.connections, 51)
        self.clock.pump([1] * 182)
        for client in halves:
            self.assertEqual(await self.ended(client), b"")
        await self.until(lambda: factory.connections == 0)

    async def test_nonsense(self) -> None:
        """A client that sends nonsense reads the error, then the end."""
        factory = self.listen()
        client = self.connect()
        client.send(b"nonsense\x03" + request())
        [reply] = replies(await self.ended(client))
        self.assertEqual(reply["result"][0], "LuxiError")
        client.close()
        await self.until(lambda: not factory._connections())

    async def test_too_large_while_sending(self) -> None:
        """A client that is still sending a message too large can send on, and read the error."""
        self.listen(max_message_size=100_000)
        client = self.connect()
        sent = await self.fill(client, b"x" * 100_000, enough=2_000_000)
        self.assertGreaterEqual(sent, 2_000_000)
        [reply] = replies(await self.ended(client))
        self.assertIn("100000 bytes", reply["result"][1][0])

    async def test_too_many(self) -> None:
        """A client past the limit can send its request, and reads a clear error."""
        factory = self.listen(max_connections=3)
        first = [self.connect() for _ in range(3)]
        await self.until(lambda: factory.connections == 3)
        client = self.connect()
        await self.turns()
        client.send(request())
        [reply] = replies(await self.ended(client))
        self.assertIn("3 connections", reply["result"][1][0])
        first[0].send(request("A", 1))
        self.assertEqual((await self.read(first[0]))[0]["result"], [1])

    async def test_many_waiters(self) -> None:
        """Many clients that wait cost the others nothing, and each gets its answer."""
        answer = Parked()
        self.listen(answer)
        clients = []
        for _ in range(200):
            clients.append(self.connect())
            clients[-1].send(request("Park"))
            await self.turns(1)
        await self.until(lambda: len(answer.pending) == 200)
        probe = self.connect()
        probe.send(request("A", 1))
        self.assertEqual((await self.read(probe))[0]["result"], [1])
        for number, pending in enumerate(answer.pending):
            pending.callback(number)
        got = [(await self.read(client))[0]["result"] for client in clients]
        self.assertEqual(sorted(got), list(range(200)))

    async def test_stop_listening(self) -> None:
        """Clients that are connected are served when no new ones are accepted."""
        self.listen()
        client = self.connect()
        await self.turns()
        await self.port.stopListening()
        client.send(request("A", 1))
        self.assertEqual((await self.read(client))[0]["result"], [1])

    async def fill(self, client: socket.socket, data: bytes, enough: int = 1 << 30) -> int:
        """Sends data again and again until nothing more goes out, or it is enough."""
        sent = stuck = 0
        while stuck < 20 and sent < enough:
            try:
                sent += client.send(data[sent % len(data) :])
                stuck = 0
            except BlockingIOError:
                stuck += 1
                await self.turns(2)
        return sent
