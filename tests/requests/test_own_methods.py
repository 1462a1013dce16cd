"""The methods that luxid doesn't have: versions of the configuration, and a backup in pieces."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred

from ganeti_masterd.errors import GenericError, OpPrereqError
from ganeti_masterd.events import Events
from ganeti_masterd.history.recorder import ConfigHistory
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.devices import Fate, NotedDevice
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import BGL, Level, shared
from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.requests import backing_up
from ganeti_masterd.requests.backup_desk import FORGOTTEN_AFTER, MOST, BackupDesk
from ganeti_masterd.requests.config_history import PATIENCE, RESTORER
from ganeti_masterd.requests.daemon import HistoryParts
from ganeti_masterd.requests.registry import OWN_METHODS, LuxiAnswers
from ganeti_masterd.testing.nodes import Failed
from tests.config.sample import CLUSTER, NODE1
from tests.history.test_recorder import AtOnce
from tests.requests.scene import DELAY, RequestScene


class OwnScene(RequestScene):
    """The scene with a history."""

    def setUp(self) -> None:
        super().setUp()
        self.locks = LockKeeper(self.timers, Events())
        snapshot = self.store.snapshot
        self.locks.populate(Level.INSTANCE, [i.name for i in snapshot.instances.values()])
        for level in (Level.NODE, Level.NODE_RES):
            self.locks.populate(level, snapshot.nodes)
        self.locks.populate(Level.NODEGROUP, snapshot.groups)
        self.locks.populate(Level.NETWORK, snapshot.networks)
        history = ConfigHistory(
            os.path.abspath(self.mktemp()),
            AtOnce(),  # type: ignore[arg-type]
            self.timers,
            lambda: self.store.snapshot,
            lambda job: None,
        )
        self.store.on_publication(history.record)
        history.start()
        self.addCleanup(history.close)
        parts = HistoryParts(
            history,
            self.locks,
            self.nodes,
            lambda work: maybeDeferred(work),
            BackupDesk(self.timers),
        )
        self.daemon = replace(self.daemon, history=parts)
        self.answers = LuxiAnswers(self.daemon)
        self.nodes.answers["all_instances_info"] = {}

    def tag(self, *tags: str) -> None:
        done = self.store.change(NODE1, lambda node: node.with_tags(tags))
        self.successResultOf(done)

    def tags(self) -> tuple[str, ...]:
        return self.store.snapshot.nodes[NODE1].tags


class HistoryMethodTests(OwnScene):
    """``ConfigLog``, ``ConfigDiff``, ``ConfigShow`` and ``ConfigRestore``."""

    def test_told(self) -> None:
        """Versions, a difference in words, a version as a whole."""
        self.tag("one")
        first, second = self.call("ConfigLog")
        self.assertEqual((first["id"], second["id"], second["change_count"]), (1, 2, 1))
        (line,) = self.call("ConfigDiff", 1)
        self.assertTrue(line["text"].endswith("tag one added"), line)
        self.assertEqual(self.call("ConfigDiff", 2, 2), [])
        self.assertEqual(self.call("ConfigShow", 1)["cluster"]["uuid"], CLUSTER)
        self.refused("ConfigDiff", 1, 9, kind=OpPrereqError)
        self.refused("ConfigLog", 0, kind=OpPrereqError)

    def test_restored_and_undone(self) -> None:
        """A version comes back as one change, with the client's uid, and goes again."""
        self.tag("one")
        serial = self.store.snapshot.header.serial_no
        checked = self.call("ConfigRestore", 1, True)
        self.assertEqual((checked["refusals"], len(checked["changes"])), ([], 1))
        self.assertEqual(self.tags(), ("one",))
        done = self.call("ConfigRestore", 1)
        self.assertEqual((done["serial"], self.tags()), (serial + 1, ()))
        last = self.call("ConfigLog")[-1]
        self.assertEqual((last["uid"], last["note"]), (1000, "version 1 restored"))
        self.call("ConfigRestore", 2)
        self.assertEqual(self.tags(), ("one",))
        self.assertEqual(self.locks.owned(RESTORER, Level.CLUSTER), frozenset())

    def test_contradicted(self) -> None:
        """A node that doesn't answer is a reason to change nothing; the locks are free again."""
        self.tag("one")
        self.nodes.answers["all_instances_info"] = Failed("down")
        answer = self.call("ConfigRestore", 1)
        self.assertIn("doesn't say what runs there: down", answer["refusals"][0])
        self.assertEqual((answer["serial"], self.tags()), (None, ("one",)))
        self.assertEqual(self.locks.owned(RESTORER, Level.CLUSTER), frozenset())

    def test_patience(self) -> None:
        """Jobs that keep the cluster's lock are waited for, not for ever."""
        self.tag("one")
        self.locks.acquire(7, Level.CLUSTER, shared(BGL))
        answer = self.ask("ConfigRestore", 1)
        self.assertNoResult(answer)
        self.clock.advance(PATIENCE)
        self.failureResultOf(answer).trap(OpPrereqError)
        self.assertEqual(self.tags(), ("one",))
        self.locks.release_all(7)
        self.call("ConfigRestore", 1)
        self.assertEqual(self.tags(), ())

    def test_one_at_a_time(self) -> None:
        """While one is being restored another is refused, and doesn't disturb it."""
        self.tag("one")
        self.locks.acquire(7, Level.CLUSTER, shared(BGL))
        answer = self.ask("ConfigRestore", 1)
        self.refused("ConfigRestore", 1, kind=OpPrereqError)
        self.assertNoResult(answer)
        self.locks.release_all(7)
        self.successResultOf(answer)
        self.assertEqual(self.tags(), ())

    def test_huge_numbers(self) -> None:
        """A number beyond what the file can hold is the number of no version."""
        self.refused("ConfigDiff", 1 << 80, kind=OpPrereqError)
        self.assertEqual(len(self.call("ConfigLog", 1 << 80)), 1)

    def test_monitors(self) -> None:
        """A socket for monitors tells versions, and neither restores nor hands out secrets."""
        answers = LuxiAnswers(self.daemon, read_only=True)
        for name, arguments in (("ConfigRestore", [1]), ("Backup", [])):
            request = LuxiRequest(name, arguments)
            self.assertRaises(OpPrereqError, answers, request, self.peer)
        self.assertEqual(
            {n for n, m in OWN_METHODS.items() if m.changes}, {"ConfigRestore", "Backup"}
        )

    def test_without(self) -> None:
        """A daemon without a history refuses each of them."""
        self.answers = LuxiAnswers(replace(self.daemon, history=None))
        for name, arguments in (("ConfigLog", []), ("ConfigShow", [1]), ("Backup", [])):
            self.refused(name, *arguments, kind=GenericError)


class BackupMethodTests(OwnScene):
    """``Backup``."""

    def fetched(self) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        token = None
        while True:
            piece: dict[str, Any] = self.call("Backup", token)
            for name, content in piece["files"]:
                self.assertNotIn(name, files)
                files[name] = zlib.decompress(base64.b64decode(content))
            token = piece["token"]
            if token is None:
                return files

    def test_moment(self) -> None:
        """What changes while a backup is fetched isn't in it."""
        self.patch(backing_up, "PIECE", 1)
        self.call("SubmitJob", [DELAY])
        first = self.call("Backup")
        self.call("SubmitJob", [DELAY])
        self.tag("later")
        files, token = dict(first["files"]), first["token"]
        while token is not None:
            piece = self.call("Backup", token)
            files.update(piece["files"])
            token = piece["token"]
        self.assertEqual([name for name in files if "job-" in name], ["queue/job-1"])
        config = zlib.decompress(base64.b64decode(files["config.data"]))
        self.assertNotIn(b'"later"', config)
        self.assertEqual(zlib.decompress(base64.b64decode(files["queue/serial"])), b"1\n")
        self.assertIn("queue/job-2", self.fetched())

    def test_few_at_once(self) -> None:
        """However many are begun at the same moment, few are kept, and each is fetched in turn."""
        self.patch(backing_up, "PIECE", 1)
        waiting: list[Deferred[Any]] = []

        def work(function: Callable[[], Any]) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1].addCallback(lambda _: function())

        history = self.daemon.history
        assert history is not None
        self.answers = LuxiAnswers(replace(self.daemon, history=replace(history, work=work)))
        asked = [self.ask("Backup") for _ in range(6)]
        self.assertEqual(len(waiting), MOST)
        for each in waiting:
            each.callback(None)
        for each in asked[MOST:]:
            self.failureResultOf(each).trap(OpPrereqError)

    def test_devices(self) -> None:
        """What a job was making on nodes isn't in a backup: nobody may clear it away there."""
        self.call("SubmitJob", [DELAY])
        device = NotedDevice(node="u", node_name="node2", owner="web", fate=Fate.REMOVE)
        running = model.begin_running(self.queue.jobs[1], 0, 2.0)
        self.successResultOf(self.queue.commit([model.note_devices(running, [device])]))
        self.assertNotIn(b"devices", self.fetched()["queue/job-1"])

    def test_forgotten(self) -> None:
        """A backup that isn't fetched to its end goes after a while; there are few at a time."""
        self.patch(backing_up, "PIECE", 1)
        first = self.call("Backup")
        for _ in range(3):
            self.call("Backup")
        self.refused("Backup", kind=OpPrereqError)
        self.clock.advance(FORGOTTEN_AFTER)
        self.refused("Backup", first["token"], kind=OpPrereqError)
        self.assertIn("config.data", self.fetched())
