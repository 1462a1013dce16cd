"""Tests of what is answered in wconfd's place."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.luxi.messages import Request
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.wconfd import EchoAnswers
from ganeti_masterd.timing import Timers


class EchoAnswersTests(SynchronousTestCase):
    """One call is answered; everything else is told who is here."""

    def ask(self, method: str, *args: Any) -> Any:
        return EchoAnswers()(Request(method, list(args)), Peer(1))

    def test_echo(self) -> None:
        """The text comes back as it was sent."""
        for text in ("ganeti watcher probe 1795498293", "", "ä\n"):
            self.assertEqual(self.ask("echo", text), text)

    def test_wrong_arguments(self) -> None:
        """One text is all that it takes."""
        for args in ((), ("a", "b"), (1,), (None,), (["a"],)):
            self.assertRaises(OpPrereqError, self.ask, "echo", *args)

    def test_other_methods(self) -> None:
        """The configuration isn't to be had here, nor are locks, and the answer says why."""
        for method in ("readConfig", "Echo", "tryUpdateLocks", ""):
            error = self.assertRaises(OpPrereqError, self.ask, method, "a")
            self.assertIn("gnt-masterd runs in the place of ganeti-wconfd", error.args[0])

    def test_as_its_client_sends_it(self) -> None:
        """The bytes of a real client: a newline before the end, and no version."""
        clock = Clock()
        factory = LuxiFactory(EchoAnswers(), Timers(clock))
        protocol = factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b'{"method": "echo", "args": ["hello"]}\n\3')
        self.assertEqual(transport.value(), b'{"success":true,"result":"hello"}\3')
        self.assertFalse(transport.disconnecting)
