"""Changes: the result of a transaction, which serials increase, and what is refused."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.changes import (
    SERIAL_STEP,
    Add,
    Change,
    Draft,
    Remove,
    Rewrite,
    Update,
    draft,
)
from ganeti_masterd.config.document import apply_rows, encode, parse
from ganeti_masterd.config.objects import FilterRule, Instance, Network, Node
from ganeti_masterd.errors import (
    ConfigurationError,
    OpExecError,
    OpPrereqError,
    ProgrammerError,
    TagError,
)

from .sample import (
    CLUSTER,
    CONTENT,
    GROUP,
    INSTANCE1,
    NODE1,
    NODE2,
    document,
    dump,
    sample,
    uuid,
)

NOW = 1800000000.25


def offline(node: Node) -> Node:
    """Returns the node, marked offline."""
    return replace(node, offline=True)


class Drafting(SynchronousTestCase):
    def draft(self, *changes: Change) -> Draft:
        """Applies changes to the sample, and checks that the rows match the result."""
        made = draft(sample(), changes, NOW)
        self.assertEqual(parse(apply_rows(CONTENT, made.rows)), made.after)
        self.assertEqual(apply_rows(CONTENT, made.rows), encode(made.after))
        return made

    def serials(self, made: Draft) -> tuple[int, int]:
        """Returns by how much the serials of cluster and document increased."""
        before = sample()
        return (
            made.after.cluster.serial_no - before.cluster.serial_no,
            made.after.header.serial_no - before.header.serial_no,
        )

    def test_update(self) -> None:
        """An update changes the serial and time of the object and of the document."""
        made = self.draft(Update(INSTANCE1, lambda i: i.with_tags(["web"])))
        instance = made.after.instances[INSTANCE1]
        self.assertEqual(instance.tags, ("prod", "web"))
        self.assertEqual((instance.serial_no, instance.mtime), (28, NOW))
        self.assertEqual(self.serials(made), (0, 1))
        self.assertEqual(made.after.header.mtime, NOW)
        self.assertEqual([row.section for row in made.rows], ["instances", ""])

    def test_another_master(self) -> None:
        """Its serial leaves room for what the old master has changed and nobody else knows."""
        made = self.draft(Update(CLUSTER, lambda it: replace(it, master_node=NODE2)))
        self.assertEqual(self.serials(made), (1, SERIAL_STEP))

    def test_rewrite(self) -> None:
        """Objects stand as they are sent, whatever the order of keys; only what differs is new."""
        plain = document()
        plain["cluster"] = dict(reversed(plain["cluster"].items()))
        plain["nodes"][NODE2]["serial_no"] = 70
        plain["nodes"] = dict(reversed(plain["nodes"].items()))
        made = self.draft(Rewrite(parse(dump(plain))))
        self.assertEqual(self.serials(made), (0, 1))
        self.assertEqual(made.after.nodes[NODE2].serial_no, 70)
        self.assertEqual(
            [(row.section, row.uuid) for row in made.rows], [("nodes", NODE2), ("", "")]
        )
        plain["cluster"]["tags"] = ["new"]
        made = self.draft(Rewrite(parse(dump(plain))))
        self.assertEqual([row.section for row in made.rows], ["nodes", "cluster", ""])
        self.assertEqual(self.serials(made), (0, 1))

    def test_rewrite_of_nothing(self) -> None:
        """A document that says what is there changes nothing."""
        before = sample()
        made = draft(before, [Rewrite(sample())], NOW)
        self.assertIs(made.after, before)
        self.assertEqual(made.rows, [])

    def test_update_of_a_node(self) -> None:
        """Updating a node also changes the cluster's serial and time, as in the real daemon."""
        made = self.draft(Update(NODE2, offline))
        self.assertEqual(made.after.nodes[NODE2].serial_no, 6)
        self.assertEqual(self.serials(made), (1, 1))
        self.assertEqual(made.after.cluster.mtime, NOW)
        self.assertEqual([row.section for row in made.rows], ["nodes", "cluster", ""])

    def test_update_of_the_cluster(self) -> None:
        """The cluster is updated by its uuid; its serial increases by one."""
        made = self.draft(
            Update(CLUSTER, lambda c: replace(c, candidate_pool_size=2)), Update(NODE2, offline)
        )
        self.assertEqual(made.after.cluster.candidate_pool_size, 2)
        self.assertEqual(self.serials(made), (1, 1))

    def test_add_and_remove(self) -> None:
        """An added object gets serial 1; the cluster's serial increases, its time is kept."""
        net = Network(name="net", network="192.0.2.0/24", uuid=uuid(1), serial_no=9)
        made = self.draft(Add("networks", net), Remove("instances", INSTANCE1))
        added = made.after.networks[uuid(1)]
        self.assertEqual((added.serial_no, added.ctime, added.mtime), (1, NOW, NOW))
        self.assertNotIn(INSTANCE1, made.after.instances)
        self.assertEqual(self.serials(made), (1, 1))
        self.assertEqual(made.after.cluster.mtime, sample().cluster.mtime)

    def test_rename(self) -> None:
        """Renaming an object changes the cluster's serial."""
        made = self.draft(Update(INSTANCE1, lambda i: replace(i, name="renamed")))
        self.assertEqual(self.serials(made), (1, 1))
        self.assertEqual(made.after.instance("renamed").uuid, INSTANCE1)

    def test_filters(self) -> None:
        """Filter rules have no serial; changing them changes only the document's."""
        rule = FilterRule(uuid=uuid(3), watermark=1, priority=2)
        made = self.draft(
            Add("filters", rule), Update(uuid(3), lambda rule: replace(rule, priority=5))
        )
        self.assertEqual(made.after.filters[uuid(3)].priority, 5)
        self.assertEqual(self.serials(made), (0, 1))

    def test_several_of_one_object(self) -> None:
        """Each change sees the ones before it; the object's serial increases by one."""
        made = self.draft(
            Update(INSTANCE1, lambda i: i.with_tags(["a"]), serial=27),
            Update(INSTANCE1, lambda i: i.with_tags(["b"]), serial=27),
        )
        self.assertEqual(made.after.instances[INSTANCE1].tags, ("a", "b", "prod"))
        self.assertEqual(made.after.instances[INSTANCE1].serial_no, 28)
        self.assertEqual(len(made.rows), 2)

    def test_add_then_remove(self) -> None:
        """An object that is added and removed within a transaction leaves nothing."""
        net = Network(name="net", network="192.0.2.0/24", uuid=uuid(1))
        made = self.draft(Add("networks", net), Remove("networks", uuid(1)))
        self.assertEqual(made.after.networks, {})

    def test_remove_then_add(self) -> None:
        """A name is free again as soon as its object is removed."""
        instance = Instance(name="instance1", uuid=uuid(1))
        made = self.draft(Remove("instances", INSTANCE1), Add("instances", instance))
        self.assertEqual(made.after.instance("instance1").uuid, uuid(1))

    def test_nothing(self) -> None:
        """A change that returns the same object makes no row and changes no serial."""
        before = sample()
        made = draft(before, [Update(NODE1, lambda node: node)], NOW)
        self.assertIs(made.after, before)
        self.assertEqual(made.rows, [])


class Refusing(SynchronousTestCase):
    def refused(self, kind: type[Exception], *changes: Change, saying: str = "") -> None:
        """Checks that the last of ``changes`` is refused."""
        before = sample()
        fault = self.assertRaises(kind, draft, before, changes, NOW)
        self.assertIn(saying, str(fault))
        self.assertEqual(before, sample())

    def test_gone(self) -> None:
        """An object that is gone can be neither updated nor removed."""
        gone = Remove("nodes", NODE2)
        self.refused(ConfigurationError, gone, Update(NODE2, offline), saying="is gone")
        self.refused(ConfigurationError, gone, gone, saying="is gone")
        self.refused(ConfigurationError, Remove("instances", NODE2), saying="is gone")

    def test_serial_moved(self) -> None:
        """A change planned on another serial is refused, and the error has both serials."""
        for change in (
            Update(NODE2, offline, serial=4),
            Remove("nodes", NODE2, serial=6),
            Update(CLUSTER, lambda c: c, serial=125),
            Update(uuid(9), lambda c: c, serial=1),
        ):
            self.refused(ConfigurationError, change)
        self.refused(
            ConfigurationError,
            Update(NODE2, offline, serial=4),
            saying="node 'node2' was changed in the meantime (its serial is 5, not 4)",
        )
        draft(sample(), [Update(NODE2, offline, serial=5)], NOW)

    def test_function_raises(self) -> None:
        """Ganeti's errors are passed on; others become an OpExecError that names the object."""

        def own(node: Any) -> Any:
            raise OpPrereqError("no", "wrong_state")

        self.refused(OpPrereqError, Update(NODE1, own), saying="no")
        self.refused(OpExecError, Update(NODE1, lambda node: node.nosuch), saying="node 'node1'")
        self.refused(TagError, Update(NODE1, lambda node: node.with_tags(["bad tag!"])))

    def test_another_object(self) -> None:
        """A function must return an object with the uuid of the one it was given."""
        for function in (
            lambda node: replace(node, uuid=uuid(1)),
            lambda node: None,
            lambda node: sample().cluster,
        ):
            self.refused(ProgrammerError, Update(NODE1, function))

    def test_taken(self) -> None:
        """A uuid or a name that is taken is refused."""
        node = sample().nodes[NODE1]
        self.refused(ConfigurationError, Add("nodes", node), saying="uuid")
        self.refused(ConfigurationError, Add("nodes", replace(node, uuid=GROUP)), saying="uuid")
        other = replace(node, uuid=uuid(1))
        self.refused(ConfigurationError, Add("nodes", other), saying="node 'node1': the name")
        rename = Update(NODE2, lambda node: replace(node, name="node1"))
        self.refused(ConfigurationError, rename, saying="the name is taken")

    def test_wrong_section(self) -> None:
        """An object belongs in the section of its kind."""
        node = replace(sample().nodes[NODE1], uuid=uuid(1), name="n")
        self.refused(ProgrammerError, Add("instances", node))
        self.refused(ProgrammerError, Add("cluster", sample().cluster))
        self.refused(ProgrammerError, Remove("planets", NODE1))

    def test_all_or_none(self) -> None:
        """A transaction of which one change fails changes nothing."""
        self.refused(ConfigurationError, Update(NODE1, offline), Remove("nodes", "nosuch"))
