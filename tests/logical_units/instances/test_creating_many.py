"""OP_INSTANCE_MULTI_ALLOC: many instances are placed at once."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import ECODE_INVAL
from ganeti_masterd.locking.levels import BGL, Level, LockMode, exclusive, shared
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes import decode_opcode
from tests.logical_units.instances.creation import FOREIGN, NETWORK, CreationCase
from tests.logical_units.world import Refused


class ManyTests(CreationCase):
    """Places, jobs, refusals."""

    def inner(self, name: str, template: str = "plain", **more: Any) -> dict[str, Any]:
        """Returns an opcode within."""
        more.setdefault("pnode", ...)
        more.setdefault("snode", ...)
        return {
            "OP_ID": "OP_INSTANCE_CREATE",
            **self.parameters(template, instance_name=name, **more),
        }

    def many(self, *instances: dict[str, Any], **more: Any) -> Any:
        """Runs the opcode."""
        self.world.submitted.clear()
        result = self.world.run("OP_INSTANCE_MULTI_ALLOC", instances=list(instances), **more)
        self.assertEqual(self.world.faults(), [])
        return result

    def assertNoJobs(self, text: str, code: str, *instances: dict[str, Any], **more: Any) -> None:
        """Expects a refusal; nothing is submitted."""
        refused: Refused = self.assertRaises(Refused, self.many, *instances, **more)
        self.assertEqual(refused.error.args, (text, code))
        self.assertEqual(self.world.submitted, [])
        self.assertEqual(self.world.faults(), [])

    def test_allocated(self) -> None:
        """Each gets nodes and a job; defaults are those of a single creation."""
        result = self.many(
            self.inner("one", opportunistic_locking=True),
            self.inner("two", "drbd", beparams={"memory": 256}),
        )
        self.assertEqual((result["allocatable"], result["failed"]), (["one", "two"], []))
        self.assertEqual([good for good, _ in result["jobs"]], [True, True])
        (one,), (two,) = self.world.submitted
        self.assertEqual(one.instance_name, "one")
        self.assertIsNotNone(one.pnode)
        self.assertIsNone(one.snode)
        self.assertFalse(one.opportunistic_locking)
        self.assertNotIn(None, (two.pnode, two.snode))

    def test_names(self) -> None:
        """Names are not looked up; the jobs do that."""
        nics = [{"ip": "auto", "mode": "routed"}]
        result = self.many(self.inner("one.example.com", name_check=True, nics=nics))
        self.assertEqual(result["allocatable"], ["one.example.com"])
        ((op,),) = self.world.submitted
        self.assertEqual((op.name_check, op.nics[0]["ip"]), (True, "auto"))

    def test_jobs_run(self) -> None:
        """The jobs that are submitted can be run."""
        self.many(self.inner("one"), self.inner("two", "drbd"))
        for (op,) in list(self.world.submitted):
            fields = {name: getattr(op, name) for name in op.__struct_fields__}
            self.world.run(
                "OP_INSTANCE_CREATE",
                **{key: value for key, value in fields.items() if value is not None},
            )
        self.assertEqual(len(self.world.now.instances), 3)
        self.assertEqual(self.world.faults(), [])

    def test_one_without_place(self) -> None:
        """One that fits nowhere doesn't keep the others from their places."""
        result = self.many(self.inner("one"), self.inner("huge", disks=[{"size": 99999999}]))
        self.assertEqual((result["allocatable"], result["failed"]), (["one"], ["huge"]))
        self.assertEqual(len(self.world.submitted), 1)

    def test_named_nodes(self) -> None:
        """Where all name their nodes no allocator is asked."""
        result = self.many(self.inner("one", pnode="node2"), self.inner("two", pnode="node3"))
        self.assertEqual(result["allocatable"], ["one", "two"])
        self.assertEqual([op.pnode for (op,) in self.world.submitted], ["node2", "node3"])
        self.assertNotIn("node_info", [call for call, _ in self.made()])

    def test_networks(self) -> None:
        """An allocator chooses only groups that are connected to the networks of the NICs."""
        self.world.run("OP_GROUP_ADD", group_name="far")
        self.world.run(
            "OP_GROUP_ASSIGN_NODES", group_name="far", nodes=["node3", "node4"], force=True
        )
        self.world.run(
            "OP_NETWORK_CONNECT",
            group_name="far",
            network_name=FOREIGN,
            network_mode="routed",
            network_link="tab9",
        )
        for network, nodes in ((NETWORK, ("node1", "node2")), (FOREIGN, ("node3", "node4"))):
            result = self.many(
                *(
                    self.inner(f"i{number}", nics=[{"network": network, "ip": "pool"}])
                    for number in range(3)
                )
            )
            self.assertEqual(result["failed"], [])
            for (op,) in self.world.submitted:
                self.assertIn(op.pnode, nodes)

    def test_dry_run(self) -> None:
        """A dry run tells the same and submits nothing."""
        result = self.many(self.inner("one", pnode="node2"), dry_run=True)
        self.assertEqual(result, {"jobs": [], "allocatable": ["one"], "failed": []})
        self.assertEqual(self.world.submitted, [])

    def test_refusals(self) -> None:
        """What makes no sense."""
        one = self.inner("one")
        self.assertNoJobs("There are no instances to be made", ECODE_INVAL)
        self.assertNoJobs(
            "iallocator are not allowed to be set on instance objects",
            ECODE_INVAL,
            self.inner("one", iallocator="hail"),
        )
        self.assertNoJobs(
            "There are instance objects providing pnode/snode while others do not",
            ECODE_INVAL,
            one,
            self.inner("two", pnode="node1"),
        )
        self.assertNoJobs("There are duplicate instance names: one", ECODE_INVAL, one, one)
        self.assertNoJobs(
            "The networked disk templates need a mirror node",
            ECODE_INVAL,
            self.inner("one", "drbd", pnode="node1"),
        )
        self.assertNoJobs(
            "instance 0: OP_TAGS_GET makes no instance",
            ECODE_INVAL,
            {"OP_ID": "OP_TAGS_GET", "kind": "cluster", "name": None},
        )
        self.assertNoJobs(
            "Opportunistic locking is only available in combination with an instance allocator",
            ECODE_INVAL,
            self.inner("one", pnode="node1"),
            opportunistic_locking=True,
        )

    def test_locks(self) -> None:
        """All are shared, so that nothing waits for it but what changes nodes."""
        op = {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": [self.inner("one")]}
        for more, names in (
            ({}, None),
            (
                {"instances": [self.inner("one", pnode="node2")]},
                {self.world.now.node("node2").uuid},
            ),
        ):
            unit = unit_for(decode_opcode({**op, **more}))
            assert unit is not None
            unit.expand(self.world.now)
            for level in (Level.NODE, Level.NODE_RES):
                wanted = unit.locks(level, self.world.now)
                self.assertEqual((wanted.mode, wanted.names), (LockMode.SHARED, names))

    def test_free_nodes(self) -> None:
        """Free nodes that aren't enough: it waits for all."""
        held = [self.world.now.node(name).uuid for name in ("node2", "node3", "node4")]
        self.create(instance_name="full", disks=[{"size": 900 * 1024}])
        self.world.locks.acquire(900, Level.CLUSTER, shared(BGL))
        self.world.locks.acquire(900, Level.NODE, exclusive(held))
        self.addCleanup(self.world.locks.release_all, 900)
        self.world.before_second_try = lambda: self.world.locks.release_all(900)
        big = self.inner("big", disks=[{"size": 900 * 1024}])
        result = self.many(big, opportunistic_locking=True)
        self.assertEqual(result["allocatable"], ["big"])
        self.assertIn("* falling back to full lock allocation", self.world.lines)
        self.assertIn(self.world.submitted[0][0].pnode, ("node2", "node3", "node4"))

    def test_only_free_nodes(self) -> None:
        """Where the free nodes are enough, all are placed on these."""
        held = [self.world.now.node(name).uuid for name in ("node1", "node2", "node3")]
        self.world.locks.acquire(900, Level.CLUSTER, shared(BGL))
        self.world.locks.acquire(900, Level.NODE, exclusive(held))
        self.world.submitted.clear()
        try:
            self.world.run(
                "OP_INSTANCE_MULTI_ALLOC",
                instances=[self.inner("one"), self.inner("two")],
                opportunistic_locking=True,
            )
        finally:
            self.world.locks.release_all(900)
        self.assertEqual([op.pnode for (op,) in self.world.submitted], ["node4", "node4"])
        self.assertEqual(self.world.faults(), [])

    def test_kill(self) -> None:
        """A kill submits nothing."""
        for moment in range(100):
            self.world.kill_after = moment
            self.world.submitted.clear()
            if self.world.try_run("OP_INSTANCE_MULTI_ALLOC", instances=[self.inner("one")]):
                self.assertGreater(moment, 3)
                return
            self.assertEqual((self.world.submitted, self.world.faults()), ([], []))
        raise self.failureException("it never ends")

    def test_no_answer(self) -> None:
        """Where nothing fits there are no jobs."""
        result = self.many(self.inner("huge", disks=[{"size": 99999999}]))
        self.assertEqual((result["jobs"], result["failed"]), ([], ["huge"]))
