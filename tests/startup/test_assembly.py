"""The daemon's sockets as its parts are put together: what each answers, and with which rights."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import Any

from twisted.internet import unix
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ganeti_masterd.assembly import Assembly, OpenedListener, Settings
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, recover
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.configuration import read_config
from tests.startup.scene import RootTestCase


class Adopting:
    """A reactor that adopts a socket, and does nothing with it."""

    def adoptStreamPort(self, fd: int, family: int, factory: Factory) -> IListeningPort:
        """See ``IReactorSocket.adoptStreamPort``."""
        return unix.Port(b"%d" % fd, factory)


class SocketTests(RootTestCase):
    """A daemon with all its sockets, none of whose parts is started."""

    def setUp(self) -> None:
        super().setUp()
        snapshot = read_config(self.paths)
        nothing: Any = None
        recovered = recover(
            self.paths.journal,
            identity=Identity(snapshot.cluster.uuid, snapshot.master.name),
            files=QueueFiles(queue=self.paths.queue, config=self.paths.config),
            disk=RealDisk(),
            merge_log=nothing,
            merge_config=nothing,
            now=time.time,
        )
        self.addCleanup(recovered.store.close)
        self.monitor = self.root + "/monitor"
        settings = Settings(
            self.paths,
            "off",
            account=Account("gnt-masterd", "gnt-daemons", 7, 8),
            socket_mode=0o640,
            monitor_socket=self.monitor,
            monitor_socket_mode=0o604,
        )
        parts = Assembly(Clock(), settings, recovered, snapshot, queue_lock=-1)
        self.listeners = {listener.name: listener for listener in parts.listeners}

    def answer(self, listener: str, method: str, *args: Any) -> Any:
        """Returns the answer on a socket: ``[whether it succeeded, result or error]``."""
        protocol = self.listeners[listener].factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        request = {"method": method, "args": args}
        protocol.dataReceived(json.dumps(request).encode() + b"\3")
        answer = json.loads(transport.value().rstrip(b"\3"))
        return [answer["success"], answer["result"]]

    def test_monitors_change_nothing(self) -> None:
        """On the socket for monitors every method that changes something is refused as that."""
        changing = [name for name, method in METHODS.items() if method.changes]
        self.assertIn("SubmitJob", changing)
        for name in changing:
            refusal = f"{name} changes something, which this socket doesn't allow"
            success, (kind, (text, _)) = self.answer("monitor", name, *[None] * 20)
            self.assertEqual((success, kind, text), (False, "OpPrereqError", refusal))
            # Elsewhere it is for its arguments.
            success, (kind, (text, _)) = self.answer("master", name, *[None] * 20)
            self.assertEqual((success, kind), (False, "OpPrereqError"))
            self.assertNotEqual(text, refusal)

    def test_questions(self) -> None:
        """Both sockets of LUXI answer questions, that of wconfd answers its own methods alone."""
        for listener in ("master", "monitor"):
            answer = self.answer(listener, "QueryConfigValues", ["cluster_name"])
            self.assertEqual(answer, [True, ["cluster"]])
        self.assertEqual(self.answer("wconfd", "echo", "text"), [True, "text"])
        answer = self.answer("wconfd", "QueryConfigValues", ["cluster_name"])
        self.assertEqual(answer, [False, ["GenericError", ["No such method: QueryConfigValues"]]])
        self.assertFalse(self.answer("master", "echo", "text")[0])

    def test_rights(self) -> None:
        """Each has its own path and mode, and the group of the daemon's account."""
        given: list[Any] = []
        self.patch(os, "chown", lambda path, *owner: given.append((path, *owner)))
        rights = {
            "master": (self.paths.socket, 0o640),
            "monitor": (self.monitor, 0o604),
            "wconfd": (self.paths.wconfd_socket, 0o600),
        }
        self.assertEqual(set(self.listeners), set(rights))
        for name, (path, mode) in rights.items():
            self.listen(self.listeners[name])
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode, name)
            self.assertEqual(given.pop(), (path + ".d/q", -1, 8))

    def listen(self, listener: OpenedListener) -> None:
        """Gives a socket its name and its rights."""
        reactor: Any = Adopting()
        listener.socket.listen(reactor, listener.factory)
