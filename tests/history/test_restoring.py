"""Which earlier configurations can come back, and what of them; serials only go on."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.changes import Remove, Restore, Update, draft
from ganeti_masterd.config.document import apply_rows, encode, parse
from ganeti_masterd.config.verify import verify
from ganeti_masterd.history.restoring import (
    disks_contradict,
    instances_contradict,
    plan_restore,
)
from tests.config.sample import INSTANCE1, NODE1, NODE2, document, dump, sample

NOW = 1_900_000_000.0


class PlanTests(SynchronousTestCase):
    """``plan_restore``."""

    def setUp(self) -> None:
        self.now = sample()

    def test_same(self) -> None:
        """The same configuration has nothing against it, and nothing to look at."""
        planned = plan_restore(self.now, sample())
        self.assertEqual((planned.refusals, planned.kept, planned.claims), ([], [], []))
        self.assertEqual(draft(self.now, [Restore(planned.goal)], NOW).rows, [])

    def test_foreign(self) -> None:
        """Another cluster's, and another format's."""
        for key, value, words in (("uuid", "x", "of cluster x"), ("version", 3010000, "format")):
            plain = document()
            (plain["cluster"] if key == "uuid" else plain)[key] = value
            (refusal,) = plan_restore(self.now, parse(dump(plain))).refusals
            self.assertIn(words, refusal)

    def test_nodes(self) -> None:
        """Nodes that came or went since."""
        less = self.now.without("nodes", NODE2)
        name = self.now.nodes[NODE2].name
        self.assertIn(
            f"node {name} was removed from the cluster since", plan_restore(less, self.now).refusals
        )
        self.assertIn(f"node {name} was added", plan_restore(self.now, less).refusals[0])

    def test_kept(self) -> None:
        """Roles, the master and ports stay, or go on, whatever the version says."""
        node = self.now.nodes[NODE2]
        earlier = self.now.with_object(
            "nodes", replace(node, offline=not node.offline, tags=("then",))
        )
        cluster = self.now.cluster
        earlier = earlier.with_object(
            "cluster",
            replace(
                cluster,
                master_node=NODE2,
                cluster_name="old",
                highest_used_port=cluster.highest_used_port - 2,
            ),
        )
        planned = plan_restore(self.now, earlier)
        self.assertEqual(len(planned.kept), 2)
        goal = planned.goal
        self.assertEqual(goal.cluster.master_node, cluster.master_node)
        self.assertEqual(goal.cluster.cluster_name, cluster.cluster_name)
        self.assertEqual(goal.cluster.highest_used_port, cluster.highest_used_port)
        self.assertEqual(goal.nodes[NODE2].offline, node.offline)
        self.assertEqual(goal.nodes[NODE2].tags, ("then",))

    def test_disks(self) -> None:
        """Disks that came, went or grew are to be looked at; others aren't."""
        instance = next(each for each in self.now.instances.values() if each.disks)
        changes: list[Any] = [Remove("instances", instance.uuid)]
        changes += [Remove("disks", uuid) for uuid in instance.disks]
        less = draft(self.now, changes, NOW).after
        count = len(instance.disks)
        back, away = plan_restore(less, self.now).claims, plan_restore(self.now, less).claims
        self.assertEqual([claim.wanted for claim in back], [True] * count)
        self.assertEqual([claim.wanted for claim in away], [False] * count)
        (claim, *_) = back
        self.assertIsNone(disks_contradict(claim, "n", claim.size))
        self.assertIn("any more", str(disks_contradict(claim, "n", None)))
        self.assertIn("it had", str(disks_contradict(claim, "n", claim.size + 1)))
        (claim, *_) = away
        self.assertIsNone(disks_contradict(claim, "n", None))
        self.assertIn("is on node n", str(disks_contradict(claim, "n", 5)))

    def test_running(self) -> None:
        """Instances that run unknown to the version, or elsewhere than it says."""
        name = self.now.instances[INSTANCE1].name
        place = self.now.instances[INSTANCE1].primary_node
        other = next(uuid for uuid in self.now.nodes if uuid != place)
        less = self.now.without("instances", INSTANCE1)

        def against(goal: Any, node: str) -> list[str]:
            return list(instances_contradict(self.now, goal, node, {name: {}, "stranger": {}}))

        self.assertEqual(against(self.now, place), [])
        self.assertIn("runs on node", against(self.now, other)[0])
        self.assertIn("which that version doesn't have", against(less, place)[0])


class ChangeTests(SynchronousTestCase):
    """The change ``Restore``."""

    def test_serials(self) -> None:
        """Whatever comes back, no serial is one that was there before; rows make the same file."""
        first = sample()
        second = draft(first, [Update(NODE1, lambda n: n.with_tags(["x"]))] * 1, NOW).after
        for _ in range(3):
            change = Update(INSTANCE1, lambda i: replace(i, os=i.os + "x"))
            second = draft(second, [change], NOW).after
        third = draft(second, [Remove("instances", INSTANCE1)], NOW).after
        result = draft(third, [Restore(first)], NOW + 1)
        after = result.after
        self.assertGreater(
            after.instances[INSTANCE1].serial_no, second.instances[INSTANCE1].serial_no
        )
        self.assertEqual(after.nodes[NODE1].serial_no, second.nodes[NODE1].serial_no + 1)
        self.assertEqual(after.nodes[NODE2], first.nodes[NODE2])
        self.assertEqual(after.cluster.serial_no, third.cluster.serial_no + 1)
        self.assertEqual(after.header.serial_no, third.header.serial_no + 1)
        self.assertEqual(after.instances[INSTANCE1].os, first.instances[INSTANCE1].os)
        self.assertEqual(parse(apply_rows(encode(third), result.rows)), after)
        self.assertEqual(verify(after), verify(first))
        undone = draft(after, [Restore(third)], NOW + 2).after
        self.assertNotIn(INSTANCE1, undone.instances)
