"""The methods answered on wconfd's socket."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import encode, parse
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.config.verify import CHECKS, verify
from ganeti_masterd.errors import ConfigurationError, ConfigVerifyError, GenericError
from ganeti_masterd.events import Events
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import BGL, Level, all_shared, exclusive, shared
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.luxi.messages import Encoded, LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.slices import Slices
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.requests.wconfd import (
    NOT_SERVED,
    WCONFD_METHODS,
    WconfdAnswers,
    WconfdParts,
)
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.config.sample import CLUSTER, CONTENT, big, document, dump
from tests.query.test_slices import Turns

LOCK_FILE = "/run/ganeti/ganeti-masterd.pid"


class WconfdScene(SynchronousTestCase):
    """Everything that these methods use, in memory."""

    content = CONTENT

    def setUp(self) -> None:
        self.clock = Clock()
        timers = Timers(self.clock)
        self.journal = MemoryJournal()
        self.store = ConfigStore(parse(self.content), self.journal, timers)
        self.locks = LockKeeper(timers, Events())
        self.flushes: list[Deferred[None]] = []
        self.parts = WconfdParts(
            store=self.store,
            locks=self.locks.states,
            flushed=self.flush,
            slices=Slices(timers),
            lock_file=LOCK_FILE,
            pid=77,
        )
        self.answers = WconfdAnswers(self.parts)
        self.factory = LuxiFactory(self.answers, timers, max_message_size=1000)

    def flush(self) -> Deferred[None]:
        """Starts a flush, which the test ends."""
        self.flushes.append(Deferred())
        return self.flushes[-1]

    def ask(self, method: str, *args: Any) -> Any:
        """Returns the answer: a value, or a Deferred."""
        return self.answers(LuxiRequest(method, list(args)), Peer(1))

    def call(self, method: str, *args: Any) -> Any:
        """Returns the answer as a client reads it, running the reactor turns that it takes."""
        result = self.ask(method, *args)
        if isinstance(result, Deferred):
            self.clock.advance(0)
            result = self.successResultOf(result)
        if isinstance(result, Encoded):
            return json.loads(result.data)
        return json.loads(msgspec.json.encode(result))

    def refused(self, method: str, *args: Any) -> str:
        """Checks that a call is refused with exactly ``GenericError``; returns the message."""
        error = self.assertRaises(GenericError, self.ask, method, *args)
        self.assertIs(type(error), GenericError)
        return str(error.args[0])


class MethodsTests(WconfdScene):
    """The answer of each method."""

    def test_echo(self) -> None:
        """The text comes back unchanged."""
        for text in ("ganeti watcher probe 1795498293", "", "ä\n"):
            self.assertEqual(self.ask("echo", text), text)

    def test_read_config(self) -> None:
        """The answer is the published configuration, byte for byte as in config.data."""
        self.assertEqual(self.ask("readConfig").data, encode(self.store.snapshot))
        self.assertEqual(self.call("readConfig"), json.loads(self.content))

    def test_read_config_of_what_is_not_committed(self) -> None:
        """A change is in the answer only once it is published."""
        before = self.call("readConfig")
        self.journal.held = True
        self.store.change(CLUSTER, lambda it: replace(it, tags=("new",)))
        self.assertEqual(self.call("readConfig"), before)
        self.journal.release()
        self.assertEqual(self.call("readConfig")["cluster"]["tags"], ["new"])

    def test_flush_config(self) -> None:
        """The answer is empty, and waits until the files are written."""
        done = self.ask("flushConfig")
        self.assertNoResult(done)
        self.flushes[0].callback(None)
        self.assertEqual(self.successResultOf(done), [])

    def test_flush_that_fails(self) -> None:
        """If the files can't be written, the client gets an error."""
        done = self.ask("flushConfig")
        self.flushes[0].errback(GenericError("no space"))
        self.assertEqual(self.failureResultOf(done, GenericError).getErrorMessage(), "no space")

    def test_verify_a_sound_configuration(self) -> None:
        """A sound configuration gives no faults."""
        self.assertEqual(self.call("verifyConfig"), [])

    def test_no_locks(self) -> None:
        """Without jobs there are no locks, and none to clean up."""
        for method in ("listAllLocks", "listAllLocksOwners", "cleanupLocks"):
            self.assertEqual(self.call(method), [])
        self.assertEqual(self.call("listLocks", [1, LOCK_FILE, 77]), [])

    def test_locks_of_jobs(self) -> None:
        """Locks are in the real daemon's order, each with the jobs that hold it as clients."""
        self.locks.populate(Level.NODE, ["b", "a"])
        self.locks.acquire(4, Level.CLUSTER, shared(BGL))
        self.locks.acquire(4, Level.NODE, exclusive(["a", "b"]))
        self.locks.acquire(5, Level.CLUSTER, shared(BGL))
        self.locks.acquire(5, Level.NODE, all_shared)  # waits
        names = ["cluster/[lockset]", "cluster/BGL", "node/[lockset]", "node/a", "node/b"]
        self.assertEqual(self.call("listAllLocks"), names)
        four, five = [4, LOCK_FILE, 77], [5, LOCK_FILE, 77]
        self.assertEqual(
            self.call("listAllLocksOwners"),
            [
                ["cluster/[lockset]", []],
                ["cluster/BGL", [[four, "shared"], [five, "shared"]]],
                ["node/[lockset]", []],
                ["node/a", [[four, "exclusive"]]],
                ["node/b", [[four, "exclusive"]]],
            ],
        )
        held = [["cluster/BGL", "shared"], ["node/a", "exclusive"], ["node/b", "exclusive"]]
        self.assertEqual(self.call("listLocks", four), held)
        self.assertEqual(self.call("listLocks", five), held[:1])
        for other in (["4", *four[1:]], [6, *four[1:]], [4, "/x", 77], [4, LOCK_FILE, 78]):
            self.assertEqual(self.call("listLocks", other), [])
        self.locks.release_all(4)
        self.locks.release_all(5)
        self.assertEqual(self.call("listAllLocks"), [])


class FaultyConfigurationTests(WconfdScene):
    """A configuration that contradicts itself."""

    content = dump({**document(), "cluster": {**document()["cluster"], "tags": ["not a tag"]}})

    def test_verify(self) -> None:
        """One error has all faults as texts; the configuration can still be read."""
        error = self.assertRaises(ConfigVerifyError, self.ask, "verifyConfig")
        message, faults = error.args
        self.assertEqual(message, "Validation failed")
        self.assertEqual(len(faults), 1)
        self.assertIn("not a tag", faults[0])
        self.assertEqual(self.call("readConfig"), json.loads(self.content))


class BigConfigurationTests(WconfdScene):
    """A configuration with very many objects."""

    content = big(3000)

    def setUp(self) -> None:
        super().setUp()
        self.reactor = Turns()
        slices = Slices(Timers(self.reactor))  # type: ignore[arg-type]
        self.answers = WconfdAnswers(replace(self.parts, slices=slices))

    def test_is_read_whole(self) -> None:
        """The answer is the published configuration, before and after a change."""
        before = encode(self.store.snapshot)
        self.assertEqual(self.ask("readConfig").data, before)
        self.store.change(CLUSTER, lambda it: replace(it, tags=("new",)))
        after = self.ask("readConfig").data
        self.assertEqual(after, encode(self.store.snapshot))
        self.assertNotEqual(after, before)

    def test_is_verified_in_slices(self) -> None:
        """Each check has its own reactor turn; faults are found as in a small configuration."""
        self.store.change(CLUSTER, lambda it: replace(it, tcpudp_port_pool=(11005,)))
        done = self.ask("verifyConfig")
        self.assertEqual(self.reactor.turns(), len(CHECKS))
        faults = self.failureResultOf(done, ConfigVerifyError).value.args[1]
        self.assertTrue(faults == verify(self.store.snapshot))
        self.assertTrue(any("port 11005 is in use" in fault for fault in faults))


class RefusalTests(WconfdScene):
    """Refused requests, and their errors."""

    def test_wrong_arguments(self) -> None:
        """The error is of the real daemon's class, and names the method and its arguments."""
        for args in ((), ("a", "b"), (1,), (None,), (["a"],)):
            self.assertIn("RPC input: echo: ", self.refused("echo", *args))
        for name in ("readConfig", "flushConfig", "verifyConfig", "listAllLocks", "cleanupLocks"):
            self.assertIn(f"RPC input: {name}: expected [], not 1", self.refused(name, 1))
        self.assertEqual(self.flushes, [])

    def test_malformed_client(self) -> None:
        """A client has three parts; two, as the tool of 3.0.2 sends, are refused."""
        for client in ([1, "/x"], [1, "/x", 5, 2], 5, [None, "/x", 5], [1, 1, 1], [1, "/x", "y"]):
            self.assertIn("malformed client id", self.refused("listLocks", client))

    def test_methods_of_the_real_one(self) -> None:
        """A method that isn't served is refused by name, with the reason."""
        for name in sorted(NOT_SERVED):
            message = self.refused(name)
            self.assertIn(f"{name} is not answered", message)
            self.assertIn("gnt-masterd runs in the place of ganeti-wconfd", message)

    def test_no_such_method(self) -> None:
        """An unknown method gets the real daemon's error."""
        for name in ("nosuch", "Echo", "", *METHODS):
            self.assertEqual(self.refused(name), f"No such method: {name}")
        self.assertLess(len(self.refused("x" * 10000)), 100)

    def test_none_is_in_both_tables(self) -> None:
        """No method is both served and refused."""
        self.assertEqual(NOT_SERVED & set(WCONFD_METHODS), set())

    def test_control_characters(self) -> None:
        """No configuration can contain the byte that ends a message."""
        for where in (b'"cluster":', b'"nodes":', b'"serial_no":'):
            at = self.content.rindex(where) + len(where)
            odd = self.content[:at] + b"\3" + self.content[at:]
            self.assertRaises(ConfigurationError, parse, odd)
        name = self.store.snapshot.cluster.cluster_name.encode()
        self.assertRaises(ConfigurationError, parse, self.content.replace(name, name + b"\3"))


class ConnectionTests(WconfdScene):
    """Bytes from real and hostile clients."""

    def connect(self) -> tuple[Any, StringTransport]:
        """Returns a connection."""
        protocol, transport = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_as_its_client_sends_it(self) -> None:
        """Requests of a real client have a newline before the end, and no version."""
        protocol, transport = self.connect()
        protocol.dataReceived(b'{"method": "echo", "args": ["hello"]}\n\3')
        self.assertEqual(transport.value(), b'{"success":true,"result":"hello"}\3')
        self.assertFalse(transport.disconnecting)

    def test_errors_travel_as_the_real_ones(self) -> None:
        """The connection stays open after an error."""
        protocol, transport = self.connect()
        protocol.dataReceived(
            b'{"method":"nosuch","args":[]}\3{"method":"cleanupLocks","args":[]}\3'
        )
        self.assertEqual(
            transport.value(),
            b'{"success":false,"result":["GenericError",["No such method: nosuch"]]}\3'
            b'{"success":true,"result":[]}\3',
        )
        self.assertFalse(transport.disconnecting)

    def test_hostile(self) -> None:
        """Garbage and oversized messages close only that connection, with an error."""
        for data in (b"garbage\3", b"[]\3", b'{"args":[]}\3', b"\xff\3", b"\3", b"x" * 1001):
            protocol, transport = self.connect()
            protocol.dataReceived(data)
            self.assertIn(b'{"success":false,', transport.value())
            self.assertTrue(transport.disconnecting, data)
        self.test_as_its_client_sends_it()

    def test_client_that_goes_away(self) -> None:
        """A flush whose client has disconnected ends without an answer and without an error."""
        protocol, transport = self.connect()
        protocol.dataReceived(b'{"method":"flushConfig","args":[]}\3')
        protocol.connectionLost()
        self.flushes[0].callback(None)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.flushLoggedErrors(), [])
