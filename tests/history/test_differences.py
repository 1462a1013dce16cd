"""Differences in words, of all kinds of objects, without what is private."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import parse
from ganeti_masterd.history.differences import HIDDEN, differences, masked
from ganeti_masterd.history.states import state_of
from tests.config.sample import CLUSTER, GROUP, INSTANCE1, NODE1, document, dump, sample

SECRET = "hush-hush"


class WordsTests(SynchronousTestCase):
    """``differences`` of a real configuration and a changed one."""

    def setUp(self) -> None:
        self.old = document()
        self.new = document()

    def lines(self) -> list[str]:
        before, after = (state_of(parse(dump(each))) for each in (self.old, self.new))
        found = [one.text for one in differences(before, after)]
        back = [one.text for one in differences(after, before)]
        self.assertEqual(len(found), len(back))
        self.assertNotIn(SECRET, repr((found, back)))
        return found

    def test_nothing(self) -> None:
        """The same configuration differs in nothing; serials and times don't count."""
        self.assertEqual(self.lines(), [])
        self.new["nodes"][NODE1].update(serial_no=99, mtime=9.5)
        self.new["serial_no"] = 99
        self.assertEqual(self.lines(), [])

    def test_each_kind(self) -> None:
        """Each object says its kind, its name and what changed."""
        instance: Any = self.new["instances"][INSTANCE1]
        name = instance["name"]
        instance["beparams"] = {**instance["beparams"], "maxmem": 4096}
        instance["osparams_private"] = {"root_password": SECRET}
        instance["tags"] = [*instance["tags"], "new"]
        instance["primary_node"] = NODE1
        self.old["instances"][INSTANCE1]["primary_node"] = next(
            uuid for uuid in self.old["nodes"] if uuid != NODE1
        )
        other = self.old["nodes"][self.old["instances"][INSTANCE1]["primary_node"]]["name"]
        node = self.new["nodes"][NODE1]["name"]
        self.new["nodes"][NODE1]["offline"] = not self.new["nodes"][NODE1]["offline"]
        self.new["nodegroups"][GROUP]["alloc_policy"] = "unallocable"
        self.new["cluster"]["candidate_pool_size"] += 1
        self.new["cluster"]["osparams_private_cluster"] = {"debian": {"key": SECRET}}
        memory = self.old["instances"][INSTANCE1]["beparams"].get("maxmem", "unset")
        lines = self.lines()
        for line in (
            f"instance {name}: be/maxmem {memory} -> 4096",
            f"instance {name}: tag new added",
            f"instance {name}: primary node {other} -> {node}",
            f"instance {name}: osparams private/root_password added",
            f"node {node}: offline no -> yes",
        ):
            self.assertIn(line, lines)
        text = "\n".join(lines)
        self.assertIn("alloc policy", text)
        self.assertIn("candidate pool size", text)
        self.assertIn("osparams private cluster/debian/key added", text)
        self.assertEqual(len(lines), 8)

    def test_come_and_gone(self) -> None:
        """Objects that come and go; disks are called by their instance."""
        name = self.new["instances"][INSTANCE1]["name"]
        disks = self.new["instances"].pop(INSTANCE1)["disks"]
        for disk in disks:
            del self.new["disks"][disk]
        self.new["filters"] = {
            CLUSTER: {
                "uuid": CLUSTER,
                "watermark": 1,
                "priority": 0,
                "predicates": [],
                "action": "PAUSE",
                "reason_trail": [],
            }
        }
        lines = self.lines()
        self.assertIn(f"instance {name} removed", lines)
        self.assertIn(f"filter rule {CLUSTER} added", lines)
        for place in range(len(disks)):
            self.assertIn(f"disk disk/{place} of instance {name} removed", lines)

    def test_nics(self) -> None:
        """NICs are found again by their uuid, whatever their place."""
        instances = [i for i in self.new["instances"].values() if i["nics"]]
        instance = instances[0]
        instance["nics"].insert(
            0, {**instance["nics"][0], "uuid": CLUSTER, "mac": "aa:00:00:99:99:99"}
        )
        instance["nics"][1]["ip"] = "192.0.2.77"
        lines = self.lines()
        name = instance["name"]
        self.assertIn(f"instance {name}: NIC 0 (aa:00:00:99:99:99) added", lines)
        self.assertTrue(any("NIC 1 ip" in line and "192.0.2.77" in line for line in lines), lines)

    def test_drbd(self) -> None:
        """DRBD's secret is never shown; that it changed is."""
        for each, secret in ((self.old, "before"), (self.new, SECRET)):
            disk = next(iter(each["disks"].values()))
            disk["dev_type"] = "drbd"
            disk["logical_id"] = [*list(each["nodes"])[:2], 11000, 0, 1, secret]
        (line,) = self.lines()
        self.assertIn("shared secret", line)

    def test_masked(self) -> None:
        """A whole configuration is shown without anything private."""
        self.new["cluster"]["osparams_private_cluster"] = {"debian": {"key": SECRET}}
        self.new["instances"][INSTANCE1]["osparams_private"] = {"x": {"y": SECRET}}
        disk = next(iter(self.new["disks"].values()))
        disk.update(dev_type="drbd", logical_id=["a", "b", 1, 0, 1, SECRET])
        shown = json.dumps(masked(self.new))
        self.assertNotIn(SECRET, shown)
        self.assertIn(HIDDEN, shown)
        self.assertEqual(
            masked({"name": "x", "n": [1, {"a": None}]}), {"name": "x", "n": [1, {"a": None}]}
        )

    def test_slice(self) -> None:
        """Only the places asked for are compared."""
        before = state_of(sample())
        after = dict(before)
        del after["nodes", NODE1]
        self.assertEqual(differences(before, after, [("cluster", "")]), [])
        self.assertEqual(len(differences(before, after, [("nodes", NODE1)])), 1)
