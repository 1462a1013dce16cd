"""Tests of the live page's files and documents; what they look like is tested in a browser."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.jobs import model
from ganeti_masterd.monitoring.files import NoFiles
from ganeti_masterd.monitoring.live.documents import MOST_LOG, PAGE_FILES
from ganeti_masterd.monitoring.live.inventory import ANSWERS, GONE, Inventory
from ganeti_masterd.monitoring.live.measuring import ALL, MOST_SOME, SOME
from ganeti_masterd.monitoring.usernames import UserNames
from tests.monitoring.scene import MonitoringScene
from tests.query.scene import big_snapshot, rich_snapshot

PROJECT = Path(__file__).resolve().parents[2]


class FileTests(MonitoringScene):
    """The files of the page."""

    def test_shipped(self) -> None:
        """The package has all of them, and no other; so has the wheel, by its patterns."""
        folder = files("ganeti_masterd.monitoring.live").joinpath("page")
        self.assertEqual({each.name for each in folder.iterdir()}, set(PAGE_FILES))
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
        patterns = project["tool"]["setuptools"]["package-data"]["ganeti_masterd"]
        for name in PAGE_FILES:
            path = f"monitoring/live/page/{name}"
            self.assertTrue(any(fnmatch(path, pattern) for pattern in patterns), path)

    def test_served(self) -> None:
        """Each is served with its type, and the page itself at the root."""
        for name, kind in PAGE_FILES.items():
            response = self.ask(f"/live/{name}")
            self.assertEqual((response.code, response.headers["content-type"]), (200, kind))
        self.assertEqual(self.ask("/").body, self.ask("/live/index.html").body)
        self.assertEqual(self.ask("/favicon.ico").headers["content-type"], "image/svg+xml")

    def test_dark_colours(self) -> None:
        """Those of the system's dark mode are those of the page's own."""
        text = files("ganeti_masterd.monitoring.live").joinpath("page/live.css").read_text("utf-8")
        rules = [':root:not([data-theme="light"])', ':root[data-theme="dark"]']
        system, chosen = (
            re.search(re.escape(rule) + r" \{(.*?)\}", text, re.DOTALL) for rule in rules
        )
        assert system is not None
        assert chosen is not None
        self.assertEqual(system[1].split(), chosen[1].split())
        self.assertIn("--page:", chosen[1])

    def test_nothing_from_elsewhere(self) -> None:
        """No file names another host, has script or style within HTML, or makes HTML of texts."""
        folder = files("ganeti_masterd.monitoring.live").joinpath("page")
        for name in PAGE_FILES:
            text = folder.joinpath(name).read_text("utf-8")
            text = text.replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(text, r"https?://|url\(|@import", name)
            self.assertNotRegex(
                text, r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", name
            )
        html = folder.joinpath("index.html").read_text("utf-8")
        self.assertNotRegex(html, r"\son[a-z]+=|\sstyle=|<style|<script>")
        for source in re.findall(r'(?:src|href)="(/[^"]+)"', html):
            self.assertEqual(self.ask(source).code, 200, source)

    def test_read_only(self) -> None:
        """No method but GET and HEAD."""
        for path in ("/", "/live/app.js", "/live/cluster", "/live/job?id=1"):
            self.assertEqual(self.ask(path, "POST").code, 405, path)


class ClusterScene(MonitoringScene):
    """Asks for nodes and instances."""

    def since(self, revision: int = 0) -> Any:
        """Returns an answer of ``/live/cluster``."""
        response = self.ask(f"/live/cluster?since={revision}")
        self.assertEqual(response.code, 200)
        return json.loads(response.body)

    def answer(self, *rows: list[Any]) -> None:
        """The nodes answer what they were asked last."""
        self.asked[-1][2].callback(list(rows))

    def add(self, name: str, **values: Any) -> Instance:
        """Adds an instance on the second node to the configuration."""
        node = self.snapshot.node("node2")
        uuid = values.pop("uuid", f"uuid-{name}")
        made = Instance(name=name, uuid=uuid, primary_node=node.uuid, **values)
        self.snapshot = self.snapshot.with_object("instances", made)
        return made


class ClusterTests(ClusterScene):
    """``/live/cluster``."""

    def test_all_then_changes(self) -> None:
        """The first answer has everything, the next only what changed and what is gone."""
        self.add("web1", admin_state="up", os="noop", disk_template="diskless")
        self.add("web2")
        first = self.since()
        self.assertTrue(first["full"])
        nodes = {row["name"]: row for row in first["nodes"]}
        self.assertEqual(set(nodes), {"node1", "node2", "node3"})
        self.assertEqual((nodes["node1"]["role"], nodes["node2"]["primaries"]), ("master", 2))
        self.assertEqual(
            first["instances"][0],
            {
                "name": "web1",
                "node": "node2",
                "secondaries": [],
                "wanted": "up",
                "os": "noop",
                "template": "diskless",
                "status": None,
                "memory": None,
                "vcpus": None,
            },
        )
        again = self.since(first["revision"])
        self.assertEqual((again["full"], again["nodes"], again["instances"]), (False, [], []))
        self.assertEqual(again["revision"], first["revision"])
        self.add("web1", admin_state="down", os="noop", disk_template="diskless")
        self.snapshot = self.snapshot.without("instances", "uuid-web2")
        changed = self.since(first["revision"])
        self.assertEqual([row["wanted"] for row in changed["instances"]], ["down"])
        self.assertEqual([row["name"] for row in changed["nodes"]], ["node2"])
        self.assertEqual(changed["gone"], {"nodes": [], "instances": ["web2"]})

    def test_renamed(self) -> None:
        """An instance with another name is a changed row, and its old name is gone."""
        made = self.add("web1")
        first = self.since()
        self.snapshot = self.snapshot.with_object("instances", replace(made, name="web7"))
        changed = self.since(first["revision"])
        self.assertEqual([row["name"] for row in changed["instances"]], ["web7"])
        self.assertEqual(changed["gone"]["instances"], ["web1"])
        self.snapshot = self.snapshot.with_object("instances", replace(made, name="web1"))
        back = self.since(first["revision"])
        self.assertEqual(back["gone"]["instances"], ["web7"])

    def test_unknown_revisions(self) -> None:
        """Revisions of another daemon, or of the future, get everything; nonsense gets 400."""
        first = self.since()
        for revision in (1, first["revision"] + 1, 10**17):
            self.assertTrue(self.since(revision)["full"], revision)
        for text in ("x", "-1", "1.5", "9" * 30):
            self.assertEqual(self.ask(f"/live/cluster?since={text}").code, 400, text)

    def test_daemon(self) -> None:
        """The daemon's own numbers are in every answer."""
        self.observed_journal.backlog = 7
        self.observed_journal.files_fault = "No space left"
        self.pool.busy = 3
        daemon = self.since()["daemon"]
        self.assertEqual((daemon["backlog"], daemon["files_fault"]), (7, "No space left"))
        self.assertEqual(daemon["threads"], {"opcodes": {"used": 3, "limit": 20}})
        self.assertEqual(daemon["clients"]["master"]["used"], 0)

    def test_what_goes_wrong_some_day(self) -> None:
        """Certificates that expire soon are told of, and faults of the configuration."""
        now = self.timers.now()

        class Files(NoFiles):
            def expiries(self) -> dict[str, float]:
                return {"rapi": now + 29 * 86400, "server": now + 31 * 86400, "spice": now - 1}

        self.monitoring = self.make_monitoring(files=Files(), config_faults=lambda: 2)
        self.begin()
        daemon = self.since()["daemon"]
        self.assertEqual(daemon["expiring"], {"rapi": now + 29 * 86400, "spice": now - 1})
        self.assertEqual(daemon["config_faults"], 2)

    def test_no_parameters(self) -> None:
        """Nothing of an instance's parameters is in it."""
        self.add("web1", osparams={"key": "hush"}, hvparams={"vnc": "hush"}, tags=("hush",))
        self.assertNotIn("hush", json.dumps(self.since()))


class MeasuringTests(ClusterScene):
    """When nodes are asked, and what comes of their answers."""

    def begin_looking(self) -> int:
        """A page is opened, and the nodes answer; returns the revision."""
        self.since()
        self.answer(["node1", 1000, 400, 50, 20, 8], ["node2", None, None, None, None, None])
        self.answer(["web1", "running", 128, 1])
        return int(self.since()["revision"])

    def test_only_while_someone_looks(self) -> None:
        """Nodes are asked when a page asks, at most once a minute, and never by themselves."""
        self.add("web1")
        self.clock.advance(1000)
        self.assertEqual(self.asked, [])
        revision = self.begin_looking()
        self.assertEqual([kind for kind, _, _ in self.asked], ["node", "instance"])
        self.assertEqual(self.asked[1][1], ())
        self.clock.advance(ALL - 1)
        self.since(revision)
        self.assertEqual(len(self.asked), 2)
        self.clock.advance(1)
        self.since(revision)
        self.assertEqual(len(self.asked), 3)
        self.clock.advance(ALL)
        self.since(revision)
        self.assertEqual(len(self.asked), 3, "asked again while it asks")

    def test_answers(self) -> None:
        """What nodes say is in their rows; the age of it is told; silence is None."""
        self.add("web1")
        first = self.since()
        self.assertTrue(first["daemon"]["measuring"])
        self.assertIsNone(first["daemon"]["measured"])
        self.begin_looking()
        changed = self.since(first["revision"])
        self.assertFalse(changed["full"])
        (row,) = changed["nodes"]
        self.assertEqual((row["name"], row["memory"], row["memory_free"]), ("node1", 1000, 400))
        (row,) = changed["instances"]
        self.assertEqual((row["status"], row["memory"], row["vcpus"]), ("running", 128, 1))
        self.assertEqual(changed["daemon"]["measured"], self.timers.now())

    def test_changed_instances(self) -> None:
        """Instances that changed are asked for alone, and soon."""
        self.add("web1")
        self.add("web2")
        revision = self.begin_looking()
        self.add("web1", admin_state="up")
        self.since(revision)
        self.assertEqual(len(self.asked), 2)
        self.clock.advance(SOME)
        self.since(revision)
        self.assertEqual(self.asked[-1][:2], ("instance", ("web1",)))
        self.answer(["web1", "ADMIN_down", 128, 1])
        rows = {row["name"]: row for row in self.since()["instances"]}
        self.assertEqual(rows["web1"]["status"], "ADMIN_down")
        self.assertIsNone(rows["web2"]["status"])
        for number in range(MOST_SOME + 10):
            self.add(f"more{number}")
        self.since(revision)
        self.clock.advance(SOME)
        self.since(revision)
        self.assertEqual(len(self.asked[-1][1]), MOST_SOME)

    def test_removed_before_asked(self) -> None:
        """An instance that is gone by then isn't asked for."""
        self.add("web1")
        revision = self.begin_looking()
        self.add("web2")
        self.since(revision)
        self.snapshot = self.snapshot.without("instances", "uuid-web2")
        self.clock.advance(SOME)
        self.since(revision)
        self.assertEqual(len(self.asked), 2)

    def test_failure(self) -> None:
        """A failure is told and logged, and the nodes are asked again in time."""
        self.since()
        self.asked[-1][2].errback(OSError("No route"))
        self.assertEqual(self.since()["daemon"]["measure_fault"], "No route")
        self.clock.advance(ALL)
        self.begin_looking()
        self.assertIsNone(self.since()["daemon"]["measure_fault"])

    def test_close(self) -> None:
        """Once monitoring is closed nothing is asked any more, and an answer comes to no harm."""
        self.since()
        self.successResultOf(self.monitoring.close())
        self.asked[-1][2].errback(OSError("stopping"))
        self.clock.advance(ALL)
        self.since()
        self.assertEqual(len(self.asked), 1)


class InventoryTests(SynchronousTestCase):
    """Rows of a large cluster."""

    def test_encoded_once(self) -> None:
        """One change among 10,000 instances is one row, and the answer is made once for all."""
        snapshot = big_snapshot(500, 10000)
        inventory = Inventory(1000)
        inventory.follow(snapshot)
        first = inventory.since(0, b"{}")
        self.assertGreater(len(first), 1_000_000)
        one = next(iter(snapshot.instances.values()))
        revision = inventory.revision
        self.assertEqual(
            inventory.follow(snapshot.with_object("instances", replace(one, os="other"))),
            [one.name],
        )
        changed = json.loads(inventory.since(revision, b"{}"))
        self.assertEqual([row["os"] for row in changed["instances"]], ["other"])
        self.assertEqual(changed["nodes"], [])
        self.assertLess(len(inventory.since(revision, b"{}")), 1000)

    def test_disks(self) -> None:
        """An instance whose disks are on another node by now is a changed row."""
        snapshot = rich_snapshot()
        inventory = Inventory(1000)
        inventory.follow(snapshot)
        one = next(one for one in snapshot.instances.values() if len(snapshot.nodes_of(one)) > 1)
        (disk, *_) = snapshot.disks_of(one)
        other = next(uuid for uuid in snapshot.nodes if uuid not in snapshot.nodes_of(one))
        assert disk.logical_id is not None
        ends = [one.primary_node, other, *disk.logical_id[2:]]
        moved = snapshot
        for each in snapshot.disks_of(one):
            changed = replace(each, logical_id=tuple(ends), nodes=(one.primary_node, other))
            moved = moved.with_object("disks", changed)
        revision = inventory.revision
        inventory.follow(moved)
        rows = {
            row["name"]: row for row in json.loads(inventory.since(revision, b"{}"))["instances"]
        }
        self.assertIn(snapshot.nodes[other].name, rows[one.name]["secondaries"])

    def test_answers_are_bounded(self) -> None:
        """Whatever revisions are asked from, few answers are kept."""
        snapshot = big_snapshot(3, 30)
        inventory = Inventory(1000)
        inventory.follow(snapshot)
        for number in range(ANSWERS * 3):
            one = replace(snapshot.instances[f"i{number % 30}"], os=f"os{number}")
            snapshot = snapshot.with_object("instances", one)
            inventory.follow(snapshot)
        for revision in (*range(2000), 10**15):
            inventory.since(revision, b"{}")
            self.assertLessEqual(len(inventory._answers), ANSWERS)

    def test_forgotten(self) -> None:
        """Who was away while more went than is remembered gets everything."""
        snapshot = big_snapshot(3, GONE + 10)
        inventory = Inventory(1000)
        inventory.follow(snapshot)
        revision = inventory.revision
        for number in range(GONE + 5):
            snapshot = snapshot.without("instances", f"i{number}")
        inventory.follow(snapshot)
        answer = json.loads(inventory.since(revision, b"{}"))
        self.assertTrue(answer["full"])
        self.assertEqual(len(answer["instances"]), 5)


class JobTests(MonitoringScene):
    """``/live/job``."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.start()

    def page(self, job_id: int) -> Any:
        """Returns the document of a job."""
        response = self.ask(f"/live/job?id={job_id}")
        self.assertEqual(response.code, 200)
        return json.loads(response.body)

    def test_log(self) -> None:
        """The job with its opcodes and the last lines of its log, without its parameters."""
        job_id = self.submit_one()
        job = self.queue.tip(job_id)
        assert job is not None
        self.queue.commit([model.begin_running(job, 0, self.timers.now())])
        for number in range(MOST_LOG + 5):
            self.successResultOf(self.queue.add_log(job_id, 0, "message", f"line {number}"))
        page = self.page(job_id)
        self.assertEqual((len(page["log"]), page["left_out"]), (MOST_LOG, 5))
        self.assertEqual(page["log"][-1]["text"], f"line {MOST_LOG + 4}")
        self.assertEqual(page["opcodes"][0]["summary"], "TEST_DELAY(1.0e-3)")
        self.assertEqual(page["opcodes"][0]["status"], "running")
        self.assertEqual(page["job"]["last"], f"line {MOST_LOG + 4}")
        self.assertEqual(set(page["opcodes"][0]), {"summary", "status", "started", "ended"})

    def test_none(self) -> None:
        """A job that isn't in the queue, and what is no number."""
        self.assertEqual(self.ask("/live/job?id=99").code, 404)
        for text in ("", "x", "-1", "1e3"):
            self.assertEqual(self.ask(f"/live/job?id={text}").code, 400, text)


class UserTests(SynchronousTestCase):
    """Names of users."""

    def write(self, path: str, users: Mapping[str, int]) -> None:
        """Writes a file of users, which a look at its time tells from the one before."""
        lines = [f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in users.items()]
        Path(path).write_text("".join(["# comment\n", "broken\n", "odd:x:y:\n", *lines]))
        os.utime(path, ns=(len(users), len(users)))

    def test_names(self) -> None:
        """Known ones by name, others by number; a file that changed is read again."""
        path = self.mktemp()
        names = UserNames(path)
        self.assertEqual(names(0), "uid 0")
        self.write(path, {"root": 0, "toor": 0})
        self.assertEqual((names(0), names(1000)), ("root", "uid 1000"))
        self.write(path, {"root": 0, "anna": 1000, "x": 7})
        self.assertEqual(names(1000), "anna")
        Path(path).unlink()
        self.assertEqual(names(0), "uid 0")
