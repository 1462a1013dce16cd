"""Sending config.data: prepared once in a thread, one at a time, rate-limited if nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config import ssconf
from ganeti_masterd.config.document import parse
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.replication import replication, states
from ganeti_masterd.replication.acknowledgement import Ack
from ganeti_masterd.replication.pace import INTERVAL, Preparing, pause
from ganeti_masterd.replication.states import ConfigFile
from tests.config.sample import big, uuid
from tests.replication.model import FILES, Bytes
from tests.replication.scene import HELD, Scene

UPLOAD = "upload_file_single"


class PauseTests(SynchronousTestCase):
    def test_pause(self) -> None:
        """Only a large file that nobody waits for causes a pause, which counts from its sending."""
        self.assertEqual(pause(large=False, took=0.3, awaited=False), 0.0)
        self.assertEqual(pause(large=True, took=0.3, awaited=True), 0.0)
        self.assertEqual(pause(large=True, took=0.3, awaited=False), INTERVAL - 0.3)
        self.assertEqual(pause(large=True, took=3.0, awaited=False), 0.0)


class PreparingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def in_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Records the function instead of running it."""
        done: Deferred[Any] = Deferred()
        self.threads.append((function, done))
        return done

    def test_once_for_all(self) -> None:
        """Calls made meanwhile wait for the same work; later calls don't wait."""
        preparing, file = Preparing(self.in_thread), ConfigFile(Bytes(b"{}"))
        waiting = [preparing.prepare(file), preparing.prepare(file)]
        ((function, done),) = self.threads
        self.assertFalse(any(each.called for each in waiting))
        done.callback(function())
        for each in [*waiting, preparing.prepare(file)]:
            self.assertIsNone(self.successResultOf(each))
        self.assertEqual(len(self.threads), 1)

    def test_failure(self) -> None:
        """If preparing fails, the Deferreds still fire, and using the file raises."""
        preparing = Preparing(lambda function: fail(RuntimeError("no")))
        self.assertIsNone(self.successResultOf(preparing.prepare(ConfigFile(Bytes(b"{}")))))


class SendingTests(SynchronousTestCase):
    def scene(self, ack: Ack = Ack.CANDIDATES, **options: Any) -> Scene:
        """Returns a scene whose configuration counts as large, with all candidates up to date."""
        self.patch(states, "LARGE", 0)
        scene = Scene(ack, **options)
        scene.replication.start()
        scene.wait(2)
        return scene

    def uploads(self, scene: Scene, node: str = "node2") -> int:
        """Returns how often a node was sent config.data."""
        return scene.nodes[node].asked.count(UPLOAD)

    def test_compressed(self) -> None:
        """A large file is sent compressed and arrives unchanged."""
        scene = self.scene()
        scene.commit(scene.model.change(0))
        self.assertEqual(scene.nodes["node2"].files[FILES.config], scene.model.config())

    def test_all_who_wait_share_one(self) -> None:
        """Changes made while a file is in flight are sent together in the next one."""
        scene = self.scene()
        node = scene.nodes["node2"]
        before = self.uploads(scene)
        node.mode = HELD
        done = [scene.commit(scene.model.change(0)) for _ in range(10)]
        self.assertEqual(self.uploads(scene), before + 1)
        for each in done:
            self.assertNoResult(each)
        node.release()
        self.successResultOf(done[0])
        for each in done[1:]:
            self.assertNoResult(each)
        self.assertEqual(self.uploads(scene), before + 2)
        node.release()
        for each in done[1:]:
            self.successResultOf(each)
        self.assertEqual(node.files[FILES.config], scene.model.config())

    def test_no_pause_for_those_who_wait(self) -> None:
        """A change that somebody waits for is sent at once, however soon after another."""
        scene = self.scene()
        for _ in range(5):
            self.successResultOf(scene.commit(scene.model.change(0)))
            self.assertEqual(scene.nodes["node2"].files[FILES.config], scene.model.config())

    def test_pace_where_nobody_waits(self) -> None:
        """With ``--ack=local`` a candidate gets one file a second, the newest."""
        scene = self.scene(Ack.LOCAL)
        before = self.uploads(scene)
        for _ in range(5):
            self.successResultOf(scene.commit(scene.model.change(0)))
        scene.clock.advance(0)
        self.assertEqual(self.uploads(scene), before + 1)
        scene.clock.advance(INTERVAL * 0.9)
        self.assertEqual(self.uploads(scene), before + 1)
        scene.clock.advance(INTERVAL * 0.1)
        self.assertEqual(self.uploads(scene), before + 2)
        self.assertEqual(scene.nodes["node2"].files[FILES.config], scene.model.config())
        scene.clock.advance(INTERVAL * 5)
        self.assertEqual(self.uploads(scene), before + 2)

    def test_end_while_one_waits(self) -> None:
        """A stop leaves no timer even if a file is waiting."""
        scene = self.scene(Ack.LOCAL)
        for _ in range(2):
            scene.commit(scene.model.change(0))
            scene.clock.advance(0)
        done = scene.replication.close()
        scene.wait(6)
        self.successResultOf(done)
        self.assertEqual(scene.clock.getDelayedCalls(), [])


class WorkTests(SynchronousTestCase):
    def test_tags_ask_for_no_simple_configuration(self) -> None:
        """With 2,000 instances a new tag computes no ssconf values, a new name does so once."""
        scene = Scene()
        before = parse(big(2000))
        scene.state.config = before
        scene.replication.start()
        asked: list[object] = []
        values = ssconf.ssconf_values

        def counted(now: Snapshot) -> dict[str, list[str]]:
            asked.append(now)
            return values(now)

        self.patch(replication, "ssconf_values", counted)
        one = before.instances[uuid(7)]
        tagged = before.with_object("instances", one.with_tags(["t"]))
        scene.replication.configured(before, tagged)
        self.assertEqual(asked, [])
        named = tagged.with_object("instances", replace(one, name="n"))
        scene.replication.configured(tagged, named)
        self.assertEqual(asked, [named])
