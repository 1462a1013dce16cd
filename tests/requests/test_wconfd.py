"""The methods answered on wconfd's socket."""

from __future__ import annotations

import gc
import json
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import encode, parse
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.config.verify import CHECKS, verify
from ganeti_masterd.errors import (
    ConfigurationError,
    ConfigVerifyError,
    DaemonStopping,
    GenericError,
    JobQueueError,
)
from ganeti_masterd.events import Events
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import BGL, Level, all_shared, exclusive, shared
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.luxi.messages import Encoded, LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.slices import Slices
from ganeti_masterd.requests.config_lock import PATIENCE, ConfigLock, WconfdClient
from ganeti_masterd.requests.config_writing import ConfigWriter
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.requests.wconfd import (
    NOT_SERVED,
    WCONFD_METHODS,
    WconfdAnswers,
    WconfdParts,
)
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.config.sample import CLUSTER, CONTENT, NODE2, big, document, dump, uuid
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
        #: Clients that have died.
        self.dead: set[WconfdClient] = set()
        slices = Slices(timers)
        self.config_lock = ConfigLock(self.store, timers, lambda client: client not in self.dead)
        self.parts = WconfdParts(
            store=self.store,
            locks=self.locks.states,
            flushed=self.flush,
            slices=slices,
            lock_file=LOCK_FILE,
            pid=77,
            config_lock=self.config_lock,
            writer=ConfigWriter(self.store, self.config_lock, slices, timers, self.flush),
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


#: A tool, as it calls itself, and another one.
TOOL: list[Any] = ["renew_crypto", "/run/ganeti/livelocks/renew_crypto_1", 500]
OTHER: list[Any] = ["other", "/run/ganeti/livelocks/other_1", 501]

LOCK = "cluster/config"


class WritingTests(WconfdScene):
    """Methods by which tools lock and change the configuration."""

    def read(self) -> Any:
        """Returns the published configuration as JSON types."""
        return json.loads(encode(self.store.snapshot))

    def tag(self, tag: str) -> Deferred[Any]:
        """Has a job tag the cluster."""
        return self.store.change(CLUSTER, lambda it: it.with_tags((*it.tags, tag)))

    def written(self, document: Any, client: list[Any] = TOOL) -> Deferred[Any]:
        """Writes a document as the tool does."""
        done = self.ask("writeConfigAndUnlock", client, document)
        assert isinstance(done, Deferred)
        return done

    def flushed(self, done: Deferred[Any]) -> Any:
        """Returns an answer that waits for the one flush that is under way."""
        self.assertNoResult(done)
        self.flushes.pop().callback(None)
        return self.successResultOf(done)

    def test_lock_and_write(self) -> None:
        """What the tool changes is committed, recorded, flushed; the document's serial grows."""
        authors: list[Any] = []
        self.store.on_publication(lambda after, rows, author: authors.append((rows, author)))
        document = self.call("lockConfig", TOOL, False)
        self.assertEqual(document, self.read())
        document["cluster"]["candidate_certs"]["bootstrap"] = "AA:BB"
        self.assertIs(self.flushed(self.written(document)), True)
        after = self.read()
        self.assertEqual(after["serial_no"], document["serial_no"] + 1)
        self.assertEqual(after["cluster"], document["cluster"])
        self.assertEqual(after["nodes"], document["nodes"])
        ((rows, author),) = authors
        self.assertEqual([row.section for row in rows], ["cluster", ""])
        self.assertEqual((author.uid, author.job), (None, None))
        self.assertEqual(author.note, "written by renew_crypto (process 500)")
        self.assertEqual(self.call("listAllLocks"), [])

    def test_write_without_lock(self) -> None:
        """A client that hasn't locked it changes nothing, and is told so."""
        document = self.call("lockConfig", TOOL, False)
        document["cluster"]["tags"] = ["new"]
        before = self.read()
        for _ in range(2):
            message = self.refused("writeConfigAndUnlock", OTHER, document)
            self.assertIn("not locked by other (process 501)", message)
        self.assertEqual(self.read(), before)
        self.assertEqual(self.call("listAllLocks"), [LOCK])

    def test_write_repeated(self) -> None:
        """A client that asks again, as the answer was lost, hears false: it is written."""
        document = self.call("lockConfig", TOOL, False)
        document["cluster"]["tags"] = ["new"]
        self.flushed(self.written(document))
        after = self.read()
        other = self.call("lockConfig", OTHER, False)
        self.flushed(self.written(other, OTHER))
        for client in (TOOL, OTHER, TOOL):
            self.assertIs(self.ask("writeConfigAndUnlock", client, document), False)
        self.assertEqual(self.read(), after)
        # With a lock of its own since then it is no repeat.
        self.call("lockConfig", TOOL, False)
        self.call("unlockConfig", TOOL)
        self.assertIn("not locked by", self.refused("writeConfigAndUnlock", TOOL, document))

    def test_write_repeated_while_it_is_made(self) -> None:
        """Who asks again meanwhile hears what becomes of the first request, good or bad."""
        for fails in (True, False):
            document = self.call("lockConfig", TOOL, False)
            document["cluster"]["tags"] = ["new"]
            self.journal.held = True
            first = self.written(document)
            first.addErrback(lambda _: None)
            first.cancel()  # its connection is lost
            again = self.written(document)
            self.assertNoResult(again)
            if fails:
                self.journal.fail()
                self.journal.held = False
                self.failureResultOf(again, JobQueueError)
                message = self.refused("writeConfigAndUnlock", TOOL, document)
                self.assertIn("not locked by", message)
            else:
                self.journal.held = False
                self.journal.release()
                self.assertIs(self.flushed(again), True)
        self.assertEqual(self.read()["cluster"]["tags"], ["new"])

    def test_new_write_while_the_last_is_sent(self) -> None:
        """A client that has locked it again writes anew: the answer is none of the first."""
        document = self.call("lockConfig", TOOL, False)
        document["cluster"]["tags"] = ["one"]
        first = self.written(document)
        document = self.call("lockConfig", TOOL, False)
        document["cluster"]["tags"] = ["two"]
        second = self.written(document)
        self.assertEqual(self.read()["cluster"]["tags"], ["two"])
        for flush in self.flushes:
            flush.callback(None)
        self.assertIs(self.successResultOf(first), True)
        self.assertIs(self.successResultOf(second), True)

    def test_lists(self) -> None:
        """The lock and its holder are listed after the locks of jobs."""
        self.locks.acquire(4, Level.CLUSTER, shared(BGL))
        self.call("lockConfig", TOOL, False)
        self.assertEqual(self.call("listAllLocks")[-2:], ["cluster/BGL", LOCK])
        owners = self.call("listAllLocksOwners")
        self.assertEqual(owners[-1], [LOCK, [[TOOL, "exclusive"]]])
        self.assertEqual(self.call("listLocks", TOOL), [[LOCK, "exclusive"]])
        self.assertEqual(self.call("listLocks", OTHER), [])

    def test_others_must_wait(self) -> None:
        """While one has it others get null, the holder gets it again; unlocking is idempotent."""
        document = self.call("lockConfig", TOOL, False)
        self.assertIsNone(self.call("lockConfig", OTHER, False))
        self.assertIsNone(self.call("lockConfig", OTHER, True))
        self.assertIsNone(self.call("updateCluster", document["cluster"]))
        self.assertEqual(self.call("lockConfig", TOOL, False), document)
        self.assertEqual(self.call("unlockConfig", OTHER), [])
        self.assertIsNone(self.call("lockConfig", OTHER, False))
        self.assertEqual(self.call("unlockConfig", TOOL), [])
        self.assertEqual(self.call("unlockConfig", TOOL), [])
        self.assertEqual(self.call("lockConfig", OTHER, False), document)

    def test_shared(self) -> None:
        """Several may share it, who shares it can't write, and who is alone may have it whole."""
        document = self.call("lockConfig", TOOL, True)
        self.assertEqual(self.call("lockConfig", OTHER, True), document)
        self.assertIsNone(self.call("lockConfig", TOOL, False))
        message = self.refused("writeConfigAndUnlock", TOOL, document)
        self.assertEqual(message, "Requested lock OwnExclusive on the configuration missing")
        self.call("unlockConfig", OTHER)
        self.assertEqual(self.call("lockConfig", TOOL, False), document)
        self.assertEqual(self.call("listLocks", TOOL), [[LOCK, "exclusive"]])

    def test_jobs_wait(self) -> None:
        """A change of a job's waits for the holder, and is made on what that has written."""
        document = self.call("lockConfig", TOOL, False)
        first, second = self.tag("first"), self.tag("second")
        self.assertNoResult(first)
        state = self.config_lock.state
        assert state is not None
        self.assertEqual(state.holders, ["renew_crypto (process 500)"])
        self.assertEqual(state.changes_waiting, 2)
        document["cluster"]["tags"] = ["tool"]
        done = self.written(document)
        self.successResultOf(first)
        self.successResultOf(second)
        self.flushed(done)
        self.assertEqual(self.read()["cluster"]["tags"], ["first", "second", "tool"])
        self.assertIsNone(self.config_lock.state)

    def test_granted_once_nothing_is_pending(self) -> None:
        """The lock waits for changes begun before, which the holder sees."""
        self.journal.held = True
        self.tag("pending")
        done = self.ask("lockConfig", TOOL, False)
        self.assertNoResult(done)
        self.assertIsNone(self.call("lockConfig", OTHER, False))
        self.journal.held = False
        self.journal.release()
        document = json.loads(self.successResultOf(done).data)
        self.assertEqual(document["cluster"]["tags"], ["pending"])

    def test_patience_ends(self) -> None:
        """A holder that keeps a change waiting loses the lock and is told so; nothing is lost."""
        document = self.call("lockConfig", TOOL, False)
        self.clock.advance(10 * PATIENCE)  # nobody waits
        self.assertEqual(self.call("listAllLocks"), [LOCK])
        waiting = self.tag("job")
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.successResultOf(waiting)
        self.assertEqual(self.call("listAllLocks"), [])
        document["cluster"]["tags"] = ["tool"]
        self.assertIn(
            "was taken from renew_crypto", self.refused("writeConfigAndUnlock", TOOL, document)
        )
        self.refused("writeConfigAndUnlock", TOOL, document)
        self.assertEqual(self.read()["cluster"]["tags"], ["job"])
        self.assertEqual(self.call("lockConfig", TOOL, False), self.read())

    def test_dead_holder(self) -> None:
        """Who dies loses the lock: after a look, or at once where others ask or clean up."""
        for others in (lambda: self.clock.advance(6), lambda: self.call("cleanupLocks")):
            self.dead.clear()
            self.call("lockConfig", TOOL, False)
            waiting = self.tag("job")
            self.dead.add(WconfdClient(*TOOL))
            self.assertNoResult(waiting)
            others()
            self.successResultOf(waiting)
        self.dead.clear()
        document = self.call("lockConfig", TOOL, False)
        self.dead.add(WconfdClient(*TOOL))
        self.assertEqual(self.call("lockConfig", OTHER, False), self.read())
        # It lived all the same, such as with its file elsewhere: it must not think that it wrote.
        self.assertIn("not locked by", self.refused("writeConfigAndUnlock", TOOL, document))

    def test_closed(self) -> None:
        """At the stop changes that wait are let go, and nobody gets the lock any more."""
        self.call("lockConfig", TOOL, False)
        waiting = self.tag("job")
        self.config_lock.close()
        self.successResultOf(waiting)
        self.assertRaises(DaemonStopping, self.ask, "lockConfig", TOOL, False)

    def test_closed_before_it_is_granted(self) -> None:
        """A stop between the request and the grant leaves nothing locked."""
        self.journal.held = True
        self.tag("pending")
        done = self.ask("lockConfig", TOOL, False)
        self.config_lock.close()
        self.journal.held = False
        self.journal.release()
        self.failureResultOf(done, DaemonStopping)
        self.successResultOf(self.tag("after"))

    def test_waiting_change_is_cancelled(self) -> None:
        """A job that is given up while its change waits changes nothing."""
        self.call("lockConfig", TOOL, False)
        waiting = self.tag("never")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.call("unlockConfig", TOOL)
        self.assertEqual(self.read()["cluster"]["tags"], [])

    def test_cancelled_as_others_begin(self) -> None:
        """A change that has begun and is given up in the same turn keeps none that comes after."""
        self.call("lockConfig", TOOL, False)
        first = self.tag("first")
        second = self.store.change(uuid(9), lambda it: it)
        third = self.tag("third")
        second.addErrback(lambda _: first.cancel())
        self.journal.held = True
        self.call("unlockConfig", TOOL)
        self.failureResultOf(first, CancelledError)
        self.journal.held = False
        self.journal.release()
        self.successResultOf(third)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.read()["cluster"]["tags"], ["first", "third"])

    def test_refused_documents(self) -> None:
        """What wasn't read from the present one, or does what only jobs do, changes nothing."""
        before = self.read()
        node, group = next(iter(before["nodes"])), next(iter(before["nodegroups"]))
        serial = before["nodegroups"][group]["serial_no"]

        def without(document: Any) -> None:
            del document["nodes"][node]

        def renamed(document: Any) -> None:
            document["nodegroups"][group]["name"] = "new"

        def unnamed(document: Any) -> None:
            del next(iter(document["instances"].values()))["os"]

        def older(document: Any) -> None:
            document["nodegroups"][group].update(serial_no=serial - 1, alloc_policy="last_resort")

        def added(document: Any) -> None:
            new = {**document["nodes"][node], "uuid": uuid(5), "name": "new"}
            document["nodes"][uuid(5)] = new

        wrong: list[tuple[str, Any]] = [
            ("has the serial", lambda it: it.update(serial_no=it["serial_no"] + 1)),
            ("has the version", lambda it: it.update(version=3010000)),
            ("is of cluster", lambda it: it["cluster"].update(uuid=uuid(1))),
            ("only a job removes", without),
            ("only a job adds", added),
            ("only a job renames", renamed),
            ("instance 'instance31' lacks the key 'os'", unnamed),
            ("lacks the key 'hvparams'", lambda it: it["cluster"].pop("hvparams")),
            ("lacks the key 'serial_no'", lambda it: it["cluster"].pop("serial_no")),
            (f"has the serial {serial - 1} of node group 'default', which has {serial}", older),
            (
                "The master node can't be changed",
                lambda it: it["cluster"].update(master_node=NODE2),
            ),
        ]
        for text, change in wrong:
            document = self.call("lockConfig", TOOL, False)
            change(document)
            failure = self.failureResultOf(self.written(document), ConfigurationError)
            self.assertIn(text, failure.getErrorMessage())
            self.assertEqual(self.read(), before)
            self.assertEqual(self.call("listAllLocks"), [])

    def test_what_tools_leave_out(self) -> None:
        """Keys without a say, and those that Ganeti derives, stay in the file."""
        for members in ([], ["x"]):
            document = self.call("lockConfig", TOOL, False)
            group = next(iter(document["nodegroups"].values()))
            before = {**group, "members": members}
            group["members"] = members
            group["serial_no"] += 1
            self.flushed(self.written(document))
            document = self.call("lockConfig", TOOL, False)
            group = next(iter(document["nodegroups"].values()))
            del group["members"], group["networks"]
            group["serial_no"] += 1
            document["cluster"]["tags"] = ["members", *members]
            self.flushed(self.written(document))
            after = next(iter(self.read()["nodegroups"].values()))
            before["serial_no"] += 2
            self.assertEqual(after, before)
            self.assertEqual(self.read()["cluster"]["tags"], ["members", *members])

    def test_refused_for_new_faults(self) -> None:
        """A document that contradicts itself is refused with all that is wrong in it."""
        document = self.call("lockConfig", TOOL, False)
        document["cluster"]["tags"] = ["not a tag"]
        failure = self.failureResultOf(self.written(document), ConfigVerifyError)
        message, (fault,) = failure.value.args
        self.assertEqual(message, "Validation failed")
        self.assertIn("not a tag", fault)

    def test_misshapen(self) -> None:
        """What is no configuration, or no cluster, is refused with its place."""
        self.call("lockConfig", TOOL, False)
        document = self.read()
        del document["cluster"]["cluster_name"]
        message = self.refused("writeConfigAndUnlock", TOOL, document)
        self.assertIn("RPC input: writeConfigAndUnlock: argument config: cluster", message)
        self.assertIn("cluster_name", message)
        self.assertIn(
            "RPC input: updateCluster: argument cluster: ", self.refused("updateCluster", 5)
        )
        self.assertIn("argument shared", self.refused("lockConfig", TOOL, "no"))

    def test_journal_fails(self) -> None:
        """A change that can't be made durable fails, and the lock is free."""
        document = self.call("lockConfig", TOOL, False)
        document["cluster"]["tags"] = ["new"]
        self.journal.held = True
        done = self.written(document)
        self.journal.fail()
        self.failureResultOf(done, JobQueueError)
        self.journal.held = False
        self.assertEqual(self.call("lockConfig", OTHER, False)["cluster"]["tags"], [])

    def test_update_cluster(self) -> None:
        """The answer has the new serial and time, once all that can be reached have it."""
        cluster = self.read()["cluster"]
        self.clock.advance(100)
        cluster["tags"] = ["new"]
        serial, mtime = self.flushed(self.ask("updateCluster", cluster))
        after = self.read()["cluster"]
        self.assertEqual((serial, mtime), (after["serial_no"], after["mtime"]))
        self.assertEqual(serial, cluster["serial_no"] + 1)
        self.assertEqual(after["tags"], ["new"])
        # The very same once more: the answer was lost.
        self.assertEqual(self.flushed(self.ask("updateCluster", cluster)), (serial, mtime))
        self.assertEqual(self.read()["cluster"], after)

    def test_update_that_drops_a_key(self) -> None:
        """A cluster object without what Ganeti's daemons need is refused."""
        cluster = self.read()["cluster"]
        del cluster["hvparams"]
        failure = self.failureResultOf(self.ask("updateCluster", cluster), ConfigurationError)
        self.assertIn("lacks the key 'hvparams'", failure.getErrorMessage())
        cluster = self.read()["cluster"]
        del cluster["tags"]  # empty, so nothing is lost; it is in the file all the same
        cluster["new_key"] = 5
        self.flushed(self.ask("updateCluster", cluster))
        cluster = self.read()["cluster"]
        self.assertEqual(cluster["tags"], [])
        self.assertEqual(cluster.pop("new_key"), 5)
        failure = self.failureResultOf(self.ask("updateCluster", cluster), ConfigurationError)
        self.assertIn("lacks the key 'new_key'", failure.getErrorMessage())
        self.assertEqual(self.call("listAllLocks"), [])

    def test_update_of_an_unchanged_cluster(self) -> None:
        """An object that says nothing new has a new serial all the same."""
        cluster = self.read()["cluster"]
        serial, _ = self.flushed(self.ask("updateCluster", cluster))
        self.assertEqual(serial, cluster["serial_no"] + 1)

    def test_update_of_what_has_changed(self) -> None:
        """An object read before the last change is refused in the real daemon's words."""
        cluster = self.read()["cluster"]
        serial = cluster["serial_no"]
        self.successResultOf(self.tag("job"))
        failure = self.failureResultOf(self.ask("updateCluster", cluster), ConfigurationError)
        self.assertEqual(
            failure.getErrorMessage(),
            f"Configuration object updated since it has been read: {serial + 1} != {serial}",
        )
        other = {**self.read()["cluster"], "uuid": uuid(1)}
        self.failureResultOf(self.ask("updateCluster", other), ConfigurationError)
        master = {**self.read()["cluster"], "master_node": NODE2}
        failure = self.failureResultOf(self.ask("updateCluster", master), ConfigurationError)
        self.assertIn("gnt-cluster master-failover", failure.getErrorMessage())
        self.assertEqual(self.call("listAllLocks"), [])

    def test_client_goes_away(self) -> None:
        """A change that has begun is made though its client has disconnected."""
        self.journal.held = True
        cluster = {**self.read()["cluster"], "tags": ["new"]}
        done = self.ask("updateCluster", cluster)
        done.addErrback(lambda _: None)
        self.journal.release()
        done.cancel()
        self.journal.held = False
        self.journal.release()
        self.assertEqual(self.read()["cluster"]["tags"], ["new"])
        self.assertEqual(self.call("lockConfig", TOOL, False), self.read())


class FaultyConfigurationTests(WconfdScene):
    """A configuration that contradicts itself."""

    content = dump({**document(), "cluster": {**document()["cluster"], "tags": ["not a tag"]}})

    def test_known_faults_are_no_obstacle(self) -> None:
        """A change that brings no new fault is made."""
        cluster = {**json.loads(self.content)["cluster"], "candidate_pool_size": 3}
        self.ask("updateCluster", cluster)
        self.assertEqual(self.store.snapshot.cluster.candidate_pool_size, 3)

    def test_verify(self) -> None:
        """One error has all faults as texts; the configuration can still be read."""
        failure = self.failureResultOf(self.ask("verifyConfig"), ConfigVerifyError)
        message, faults = failure.value.args
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
