"""The client on plain sockets."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ganeti_masterd.errors import JobLost, LuxiError, OpPrereqError, ProgrammerError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.failures import CallTimeout, ConnectionLost, DaemonUnreachable
from tests.luxi.doubles import Scripted, SocketCase, reactor, says

OK = b'{"success":true,"result":%s}\x03'


class BlockingTests(SocketCase):
    """Results, errors, and connections that come and go, with a daemon that plays a script."""

    def daemon(self, *scripts: Any) -> Scripted:
        return Scripted(self, self.path, *scripts)

    def client(self, **options: Any) -> BlockingClient:
        client = BlockingClient(self.path, **{"timeout": 10, **options})
        self.addCleanup(client.close)
        return client

    def test_calls(self) -> None:
        """Calls share one connection; results and errors come as themselves."""
        answers = (
            OK % b"[1]",
            b'{"success":false,"result":["JobLost",["Job 5 lost"]]}\x03',
            OK % b"100000000000000000000",
        )
        daemon = self.daemon(says(*answers))
        with self.client() as client:
            self.assertEqual(client.query_tags("cluster"), [1])
            self.assertRaises(JobLost, client.archive_job, 5)
            self.assertEqual(client.call("A"), 10**20)
        self.assertEqual(
            daemon.heard[0], b'{"method":"QueryTags","args":["cluster",""],"version":3000000}'
        )

    def test_connects_again(self) -> None:
        """A call that finds the connection closed makes a new one."""
        self.daemon(says(OK % b"1"), says(OK % b"2"))
        client = self.client()
        self.assertEqual(client.call("A"), 1)
        assert client._socket is not None
        client._socket.settimeout(10)
        self.assertEqual(client._socket.recv(1, socket.MSG_PEEK), b"")
        self.assertEqual(client.call("A"), 2)

    def test_lost(self) -> None:
        """A call that was sent and not answered is not repeated; the next one connects again."""
        for half in (b"", b'{"success":'):
            with self.subTest(half=half):
                path = self.path + str(len(half))
                daemon = Scripted(self, path, says(half), says(OK % b"2"))
                client = BlockingClient(path, timeout=10)
                self.addCleanup(client.close)
                error = self.assertRaises(ConnectionLost, client.call, "A")
                self.assertIn("may have done", str(error))
                self.assertEqual(client.call("B"), 2)
                self.assertEqual(len(daemon.heard), 2)

    def test_error_before_the_request(self) -> None:
        """What a daemon says that closes at once is read, though the request breaks the pipe."""
        refusal = b'{"success":false,"result":["LuxiError",["full"]]}\x03'
        self.daemon(lambda _, connection: connection.sendall(refusal))
        error = self.assertRaises(LuxiError, self.client().call, "A", "x" * 5_000_000)
        self.assertEqual(error.args, ("full",))

    def test_closed_before_the_request(self) -> None:
        """A daemon that closes without a word while the request is sent loses the call."""
        self.daemon(lambda _, connection: None)
        self.assertRaises(ConnectionLost, self.client().call, "A", "x" * 5_000_000)

    def test_timeout(self) -> None:
        """A call that takes too long gives up its connection: the late answer isn't the next's."""
        self.daemon(self.silent, says(OK % b"2"))
        client = self.client()
        error = self.assertRaises(CallTimeout, client.call, "A", timeout=0.05)
        self.assertTrue(error.sent)
        self.assertEqual(client.call("B"), 2)

    def test_nonsense(self) -> None:
        """A reply that isn't one ends the connection."""

        def nonsense(daemon: Scripted, connection: socket.socket) -> None:
            says(b"x\x03")(daemon, connection)
            self.silent(daemon, connection)

        self.daemon(nonsense, says(OK % b"2"))
        client = self.client()
        self.assertRaises(ProtocolError, client.call, "A")
        self.assertEqual(client.call("B"), 2)

    def test_unencodable(self) -> None:
        """Arguments without a form in JSON are refused before anything is sent."""
        self.assertRaises(ProgrammerError, self.client().call, "A", object())

    def test_no_socket(self) -> None:
        """Without a socket the error says what to do."""
        error = self.assertRaises(DaemonUnreachable, self.client().cluster_info)
        self.assertIn(self.path, str(error))
        self.assertIn("master daemon does not run, or this is not the master", str(error))

    def test_nobody_listens(self) -> None:
        """A socket that nobody listens on is told from one that isn't there."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        error = self.assertRaises(DaemonUnreachable, self.client().cluster_info)
        self.assertIn("nothing listens", str(error))

    def test_no_permission(self) -> None:
        """A socket that one may not use is named as such."""

        class Forbidden(socket.socket):
            def connect(self, address: Any) -> None:
                raise PermissionError(13, os.strerror(13))

        self.patch(socket, "socket", Forbidden)
        error = self.assertRaises(DaemonUnreachable, self.client().cluster_info)
        self.assertIn("permission denied", str(error))

    def test_impossible_path(self) -> None:
        """A path too long for a socket is an error like the others."""
        client = BlockingClient("/nowhere" * 50)
        self.assertRaises(DaemonUnreachable, client.cluster_info)

    def test_full_backlog(self) -> None:
        """A full backlog is tried again until the call's time is over."""
        with socket.socket(socket.AF_UNIX) as listener, self.filler() as filler:
            listener.bind(self.path)
            listener.listen(0)
            filler.connect(self.path)
            error = self.assertRaises(CallTimeout, self.client(timeout=0.05).call, "A")
            self.assertFalse(error.sent)

    @staticmethod
    def filler() -> socket.socket:
        filler = socket.socket(socket.AF_UNIX)
        filler.setblocking(False)
        return filler

    @staticmethod
    def silent(_: Scripted, connection: socket.socket) -> None:
        """Hears a request, and waits until the client gives up."""
        while connection.recv(65536):
            pass


class WithServerTests(SocketCase):
    """With the real server, in another thread."""

    async def test_both(self) -> None:
        """What the server answers, the client gets; also a refusal of what is too large."""

        def answer(request: Any, peer: Any) -> Any:
            if request.method == "Fail":
                raise OpPrereqError("no", "wrong_input")
            return [request.method, request.args]

        def calls() -> None:
            with BlockingClient(self.path) as client:
                self.assertEqual(client.call("A", 10**30, "é"), ["A", [10**30, "é"]])
                self.assertRaises(OpPrereqError, client.call, "Fail")
                error = self.assertRaises(LuxiError, client.call, "A", "x" * 3_000_000)
                self.assertIn("1000000 bytes", str(error))
                self.assertEqual(client.call("A", "x" * 900_000), ["A", ["x" * 900_000]])

        self.listen(answer, max_message_size=1_000_000)
        pool = ThreadPool(1, 1)
        pool.start()
        try:
            await deferToThreadPool(reactor, pool, calls)
        finally:
            pool.stop()
