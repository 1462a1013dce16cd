"""OP_NODE_EVACUATE and OP_NODE_MIGRATE: which jobs they submit, and what they refuse."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NOENT,
    ECODE_NORES,
    ECODE_NOTUNIQUE,
    ECODE_STATE,
)
from tests.logical_units.moves.many import WEB, MovingScene

EVACUATE = "OP_NODE_EVACUATE"
MIGRATE = "OP_NODE_MIGRATE"

#: What every migration is that an allocator asks for.
MIGRATION = {
    "allow_failover": True,
    "allow_runtime_changes": False,
    "ignore_hvversions": True,
}


def replaced(name: str, node: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Returns what is told of the opcode that gives an instance another secondary node."""
    told = {"instance_name": name, "mode": "replace_new_secondary", "remote_node": node}
    return "REPLACE_DISKS", {**told, **more}


class EvacuateTests(MovingScene):
    """Primary or secondary instances leave a node."""

    def test_primary(self) -> None:
        """Mirrored instances go to their secondaries, others where the allocator says."""
        self.make("diskless", ["node2"], "solo")
        (solo,), (web,) = self.jobs(EVACUATE, node_name="node2", mode="primary-only")
        self.assertEqual(web, ("MIGRATE", {"instance_name": WEB, **MIGRATION}))
        target = solo[1].pop("target_node")
        self.assertIn(target, ("node1", "node3", "node4"))
        self.assertEqual(solo, ("MIGRATE", {"instance_name": "solo", **MIGRATION}))
        self.assertEqual(
            self.world.lines,
            [
                f" - INFO: Evacuating instances from node 'node2': solo, {WEB}",
                f" - INFO: Instances to be moved: solo (to {target}), {WEB} (to node3, node2)",
            ],
        )

    def test_secondary(self) -> None:
        """Mirrors get new secondary nodes; locks may be released early."""
        ((op,),) = self.jobs(EVACUATE, node_name="node3", mode="secondary-only", early_release=True)
        self.assertIn(op[1]["remote_node"], ("node1", "node4"))
        self.assertEqual(op, replaced(WEB, op[1]["remote_node"], early_release=True))

    def test_remote_node(self) -> None:
        """No allocator is asked where the opcode names the new secondary node."""
        self.make("drbd", ["node1", "node3"], "db")
        wanted = [[replaced("db", "node4")], [replaced(WEB, "node4")]]
        uuid = self.world.now.node("node4").uuid
        for named in ({"remote_node": "node4"}, {"remote_node_uuid": uuid}):
            found = self.jobs(EVACUATE, node_name="node3", mode="secondary-only", **named)
            self.assertEqual(found, wanted)
        self.assertNotIn("node_info", [call for _, call in self.calls])

    def test_nothing(self) -> None:
        """A node without such instances: no job, and no failure."""
        self.assertEqual(self.jobs(EVACUATE, node_name="node1", mode="primary-only"), [])
        self.assertEqual(self.world.lines, [" - INFO: No instances to evacuate from node 'node1'"])

    def test_dead_node(self) -> None:
        """A node that is offline can be evacuated: it isn't asked."""
        self.set_node("node3", offline=True)
        ((op,),) = self.jobs(EVACUATE, node_name="node3", mode="secondary-only")
        self.assertIn(op[1]["remote_node"], ("node1", "node4"))
        self.set_node("node3", offline=False)
        self.set_node("node2", offline=True)
        ((op,),) = self.jobs(EVACUATE, node_name="node2", mode="primary-only")
        self.assertEqual(op[0], "MIGRATE")

    def test_planned(self) -> None:
        """What is only planned has no disks to move."""
        self.make("drbd", ["node2", "node3"], "plan")
        self.forthcoming("plan")
        self.assertEqual(len(self.jobs(EVACUATE, node_name="node2", mode="primary-only")), 1)
        self.assertIn(
            " - WARNING: Forthcoming instances stay where they are planned: plan",
            self.world.lines,
        )
        self.assertEqual(len(self.jobs(MIGRATE, node_name="node2")), 1)

    def test_what_can_not_move(self) -> None:
        """One that can't move keeps all from moving, and the failure names it and why."""
        self.make("plain", ["node2"], "db")
        text = "Unable to evacuate instances db (Instances of type plain cannot be relocated)"
        self.assertFails(text, EVACUATE, node_name="node2", mode="primary-only")
        self.assertEqual(self.world.lines[-1], f" - WARNING: {text}")
        self.assertEqual(self.world.submitted, [])

    def test_script(self) -> None:
        """A script gets the request and the option, and its jobs are submitted as they are."""
        jobs = [
            [
                {
                    "OP_ID": "OP_INSTANCE_REPLACE_DISKS",
                    "instance_name": WEB,
                    "mode": "replace_new_secondary",
                    "remote_node": "node4",
                    "disks": [],
                }
            ]
        ]
        self.allocator_says([[[WEB, "default", ["node2", "node4"]]], [], jobs])
        found = self.jobs(
            EVACUATE,
            node_name="node3",
            mode="secondary-only",
            iallocator="hail",
            ignore_soft_errors=True,
        )
        self.assertEqual(found, [[replaced(WEB, "node4")]])
        self.assertEqual(
            self.asked(),
            (
                "hail",
                {"type": "node-evacuate", "evac_mode": "secondary-only", "instances": [WEB]},
                {"ignore-soft-errors": None},
            ),
        )

    def test_script_finds_nothing(self) -> None:
        """An allocator without an answer: a refusal that says what it says."""
        self.allocator_says(success=False, info="cluster is full")
        self.refuses(
            "Can't compute node evacuation using iallocator 'hail': cluster is full",
            ECODE_NORES,
            EVACUATE,
            node_name="node3",
            mode="secondary-only",
            iallocator="hail",
        )

    def test_script_of_other_instances(self) -> None:
        """An answer about other instances, or not about all, moves nothing."""
        parameters = {"node_name": "node3", "mode": "secondary-only", "iallocator": "hail"}
        stray = [{"OP_ID": "OP_INSTANCE_MIGRATE", "instance_name": "other"}]
        for result, text in (
            ([[], [], []], f"says nothing about instances that are to be moved: {WEB}"),
            (
                [[[WEB, "default", ["node2", "node4"]]], [], [stray]],
                "moves instances that it wasn't asked about: other",
            ),
        ):
            self.allocator_says(result)
            self.assertFails(f"The allocator {text}", EVACUATE, **parameters)
            self.assertEqual(self.world.submitted, [])

    def test_refused(self) -> None:
        """What makes no sense."""
        node = {"node_name": "node3"}
        self.refuses(
            "Due to an issue with the iallocator interface it is not possible to evacuate all "
            "instances at once; specify explicitly whether to evacuate primary or secondary "
            "instances",
            ECODE_INVAL,
            EVACUATE,
            **node,
            mode="all",
        )
        for text, code, more in (
            (
                "Can not use evacuated node as a new secondary node",
                ECODE_INVAL,
                {"remote_node": "node3"},
            ),
            (
                "Node node2 is the primary node of instance web.example.com, cannot use it as "
                "secondary",
                ECODE_INVAL,
                {"remote_node": "node2"},
            ),
            (
                "Do not specify both, iallocator and node",
                ECODE_INVAL,
                {"remote_node": "node4", "iallocator": "hail"},
            ),
            ("Node 'nosuch' not known", ECODE_NOENT, {"remote_node": "nosuch"}),
            ("Node 'nosuch' not known", ECODE_NOENT, {"node_name": "nosuch"}),
        ):
            self.refuses(text, code, EVACUATE, **{**node, "mode": "secondary-only", **more})
        self.refuses(
            "Without the use of an iallocator only secondary instances can be evacuated",
            ECODE_INVAL,
            EVACUATE,
            **node,
            mode="primary-only",
            remote_node="node4",
        )

    def test_unusable_remote_node(self) -> None:
        """A new secondary node that takes no instances is refused before any job is made."""
        for state, text in (
            ({"offline": True}, "Can't use offline node: node4"),
            ({"drained": True}, "Can't use drained node node4"),
            ({"vm_capable": False}, "Can't use non-vm_capable node node4"),
        ):
            self.renew()
            self.set_node("node4", **state)
            self.refuses(
                text,
                ECODE_STATE,
                EVACUATE,
                node_name="node3",
                mode="secondary-only",
                remote_node="node4",
            )

    def test_other_uuids(self) -> None:
        """Nodes whose uuid isn't the one expected are refused."""
        for more in ({"node_uuid": "x"}, {"remote_node": "node4", "remote_node_uuid": "x"}):
            error = self.fails(EVACUATE, node_name="node3", mode="secondary-only", **more)
            self.assertEqual(error.args[1], ECODE_NOTUNIQUE)

    def test_locks(self) -> None:
        """All are shared: the instances, and the nodes to which they may go."""
        members = self.uuids("node1", "node2", "node3", "node4")
        wanted = {"instance": ([WEB], False), "nodegroup": ([self.default], False)}
        found = self.locks_of(EVACUATE, node_name="node3", mode="secondary-only")
        self.assertEqual(found, {**wanted, "node": (members, False)})
        found = self.locks_of(
            EVACUATE, node_name="node3", mode="secondary-only", remote_node="node6"
        )
        self.assertEqual(
            found,
            {
                "instance": ([WEB], False),
                "nodegroup": (sorted([self.default, self.far]), False),
                "node": (self.uuids("node3", "node6"), False),
            },
        )
        found = self.locks_of(EVACUATE, node_name="node3", mode="primary-only")
        self.assertNotIn("instance", found)

    def test_killed(self) -> None:
        """A kill at any checkpoint: no job is submitted."""
        for _ in self.each_kill(self.renew, EVACUATE, node_name="node3", mode="secondary-only"):
            self.assertEqual(self.world.submitted, [])

    def test_silent_node(self) -> None:
        """Nodes of which the allocator must know: one that says nothing fails it."""
        self.break_call("node_info", "node4")
        error = self.fails(EVACUATE, node_name="node3", mode="secondary-only")
        self.assertIn("Can't get data for node node4", str(error))
        self.assertEqual(self.world.submitted, [])


class MigrateTests(MovingScene):
    """Primary instances leave a node while they run."""

    def test_jobs(self) -> None:
        """A job for each, with what the opcode says; whether each can migrate is its matter."""
        self.make("plain", ["node2"], "db")
        self.make("diskless", ["node2"], "solo")
        jobs = self.jobs(
            MIGRATE,
            node_name="node2",
            mode="non-live",
            allow_runtime_changes=False,
            ignore_ipolicy=True,
            iallocator="hail",
        )
        common = {"mode": "non-live", "allow_runtime_changes": False, "ignore_ipolicy": True}
        self.assertCountEqual(
            jobs,
            [
                [("MIGRATE", {"instance_name": "db", "iallocator": "hail", **common})],
                [("MIGRATE", {"instance_name": "solo", "iallocator": "hail", **common})],
                # Its mirror says where it goes.
                [("MIGRATE", {"instance_name": WEB, **common})],
            ],
        )
        self.assertEqual(self.jobs(MIGRATE, node_name="node4"), [])

    def test_target(self) -> None:
        """The node that is named is that of every job."""
        uuid = self.world.now.node("node3").uuid
        for named in ({"target_node": "node3"}, {"target_node_uuid": uuid}):
            found = self.jobs(MIGRATE, node_name="node2", live=True, **named)
            job = ("MIGRATE", {"instance_name": WEB, "live": True, "target_node": "node3"})
            self.assertEqual(found, [[job]])

    def test_refused(self) -> None:
        """Targets that can't be."""
        self.set_node("node4", drained=True)
        for text, code, more in (
            ("Node 'nosuch' not known", ECODE_NOENT, {"target_node": "nosuch"}),
            (
                "Node node2 can't be the target of its own instances",
                ECODE_INVAL,
                {"target_node": "node2"},
            ),
            (
                "Do not specify both, iallocator and node",
                ECODE_INVAL,
                {"target_node": "node3", "iallocator": "hail"},
            ),
            ("Can't use drained node node4", ECODE_STATE, {"target_node": "node4"}),
        ):
            self.refuses(text, code, MIGRATE, node_name="node2", **more)

    def test_locks_and_hooks(self) -> None:
        """It shares the node; hooks run on the master, and know what was asked for."""
        self.assertEqual(
            self.locks_of(MIGRATE, node_name="node2"), {"node": (self.uuids("node2"), False)}
        )
        self.jobs(MIGRATE, node_name="node2")
        before, after = self.hook_variables()
        self.assertEqual(after["GANETI_POST_NODE_NAME"], "node2")
        self.assertEqual(before["GANETI_NODE_NAME"], "node2")
        self.assertEqual(before["GANETI_ALLOW_RUNTIME_CHANGES"], "True")
        hooked = {node for node, call in self.calls if call == "hooks_runner"}
        self.assertEqual(hooked, {"node1"})

    def test_dry_run(self) -> None:
        """A dry run submits nothing."""
        self.world.run(MIGRATE, node_name="node2", dry_run=True)
        self.assertEqual(self.world.submitted, [])


class BesideTests(MovingScene):
    """Many jobs run side by side."""

    def test_one_node(self) -> None:
        """Jobs that have a node in common are in natural order."""
        self.fill("drbd", [("node1", f"node{number}") for number in (2, 3, 4, 2, 3, 4, 2, 3, 4, 2)])
        jobs = self.jobs(MIGRATE, node_name="node1")
        names = [job[0][1]["instance_name"] for job in jobs]
        self.assertEqual(names, [f"i{number}" for number in range(1, 11)])

    def test_no_dependencies(self) -> None:
        """Each job is one instance's, and waits for no other job."""
        names = self.fill("drbd", [("node2", "node3"), ("node1", "node3"), ("node4", "node3")] * 3)
        jobs = self.jobs(EVACUATE, node_name="node3", mode="secondary-only")
        self.assertCountEqual([job[0][1]["instance_name"] for job in jobs], [*names, WEB])
        self.assertTrue(all(op.depends is None for job in self.world.submitted for op in job))
