"""OP_GROUP_EVACUATE and OP_INSTANCE_CHANGE_GROUP: which jobs they submit, what they refuse."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Network
from ganeti_masterd.errors import ECODE_INVAL, ECODE_NOENT, ECODE_NORES, ECODE_STATE
from ganeti_masterd.opcodes.types import Dependency
from tests.logical_units.moves.many import FAR_NODES, WEB, MovingScene

CHANGE = "OP_INSTANCE_CHANGE_GROUP"
EVACUATE = "OP_GROUP_EVACUATE"

#: The opcodes that move a mirror to two other nodes.
WALK = ["REPLACE_DISKS", "MIGRATE", "REPLACE_DISKS"]


def kinds(jobs: list[list[tuple[Any, ...]]]) -> list[list[str]]:
    """Returns the opcodes of jobs."""
    return [[kind for kind, _ in job] for job in jobs]


class ChangeGroupTests(MovingScene):
    """One instance goes to another group."""

    def test_mirror(self) -> None:
        """One job: a mirror walks, so that it never has less than two ends."""
        jobs = self.jobs(CHANGE, instance_name=WEB, target_groups=["far"], early_release=True)
        ((first, migration, second),) = jobs
        self.assertEqual(kinds(jobs), [WALK])
        for op in (first, second):
            self.assertIn(op[1]["remote_node"], FAR_NODES)
            self.assertIs(op[1]["early_release"], True)
        self.assertNotEqual(first[1]["remote_node"], second[1]["remote_node"])
        self.assertIsNone(migration[1].get("target_node"))
        self.assertEqual(
            self.world.lines,
            [
                f" - INFO: Instances to be moved: {WEB} (to far)",
                f" - INFO: Iallocator returned 1 job(s) for changing group of instance '{WEB}'",
            ],
        )

    def test_any_group(self) -> None:
        """Without a target: any other that isn't unallocable."""
        self.world.run("OP_GROUP_ADD", group_name="shut", alloc_policy="unallocable")
        self.world.run(
            "OP_GROUP_ASSIGN_NODES", group_name="shut", nodes=["node6", "node7", "node5"]
        )
        self.refuses(
            f"Can't compute solution for changing group of instance '{WEB}' using iallocator "
            "'hail': no",
            ECODE_NORES,
            CHANGE,
            instance_name=self.scripted(success=False, info="no"),
            iallocator="hail",
        )
        self.assertEqual(self.asked()[1]["target_groups"], [self.far])
        self.jobs(CHANGE, instance_name=WEB, target_groups=["shut"])

    def scripted(self, **answer: Any) -> str:
        """Has scripts answer this; returns the instance's name."""
        self.allocator_says(**answer)
        return WEB

    def test_refused(self) -> None:
        """Groups where the instance is, or that aren't there."""
        for template in ("plain", "diskless"):
            self.make(template, ["node1"], template)
        for name in (WEB, "plain", "diskless"):
            self.refuses(
                f"Can't use group(s) '{self.default}' as targets, they are used by the instance "
                f"'{name}'",
                ECODE_INVAL,
                CHANGE,
                instance_name=name,
                target_groups=["default", "far"],
            )
        self.refuses(
            "Node group 'nosuch' not found",
            ECODE_NOENT,
            CHANGE,
            instance_name=WEB,
            target_groups=["nosuch"],
        )
        self.assertFails(
            "Unable to evacuate instances plain (Instances of type plain cannot be relocated)",
            CHANGE,
            instance_name="plain",
            target_groups=["far"],
        )
        self.make("drbd", name="plan")
        self.forthcoming("plan")
        self.assertEqual(self.fails(CHANGE, instance_name="plan").args[1], ECODE_STATE)

    def test_only_group(self) -> None:
        """There is nowhere to go."""
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="default", nodes=FAR_NODES)
        self.world.run("OP_GROUP_REMOVE", group_name="far")
        text = "There are no possible target groups"
        self.refuses(text, ECODE_INVAL, CHANGE, instance_name=WEB)
        self.refuses(text, ECODE_INVAL, EVACUATE, group_name="default")

    def test_networks(self) -> None:
        """A group that isn't connected to the networks of the instance takes it only then."""
        self.world.run("OP_NETWORK_ADD", network_name="lan", network="192.0.2.0/24")
        lan: Network = self.world.now.network("lan")
        group = self.world.now.group("default")
        connected = {lan.uuid: {"mode": "routed", "link": "x", "vlan": ""}}
        self.modify(group.uuid, lambda now: replace(now, networks=connected))
        self.world.run(
            "OP_INSTANCE_SET_PARAMS",
            instance_name=WEB,
            nics=[["add", -1, {"network": "lan", "ip": "192.0.2.5"}]],
        )
        error = self.fails(CHANGE, instance_name=WEB, target_groups=["far"])
        self.assertIn(f"group far: not connected to network {lan.uuid}", str(error))
        self.assertEqual(self.world.submitted, [])
        self.modify(self.far, lambda now: replace(now, networks=connected))
        self.assertEqual(kinds(self.jobs(CHANGE, instance_name=WEB, target_groups=["far"])), [WALK])

    def test_locks_and_hooks(self) -> None:
        """All locks are shared; without a target they are those of all groups and nodes."""
        found = self.locks_of(CHANGE, instance_name=WEB)
        everything = ([], False)
        self.assertEqual(
            found, {"instance": ([WEB], False), "nodegroup": everything, "node": everything}
        )
        found = self.locks_of(CHANGE, instance_name=WEB, target_groups=["far"])
        everywhere = sorted(node for node in self.world.now.nodes)
        groups = (sorted([self.default, self.far]), False)
        self.assertEqual(
            found,
            {"instance": ([WEB], False), "nodegroup": groups, "node": (everywhere, False)},
        )
        self.jobs(CHANGE, instance_name=WEB)
        before, after = self.hook_variables()
        self.assertEqual(before["GANETI_TARGET_GROUPS"], self.far)
        self.assertEqual(before["GANETI_INSTANCE_NAME"], WEB)
        self.assertEqual(after["GANETI_POST_TARGET_GROUPS"], self.far)
        hooked = {node for node, call in self.calls if call == "hooks_runner"}
        self.assertEqual(hooked, {"node1"})

    def test_killed(self) -> None:
        """A kill at any checkpoint: no job is submitted."""
        for _ in self.each_kill(self.renew, CHANGE, instance_name=WEB):
            self.assertEqual(self.world.submitted, [])


class EvacuateGroupTests(MovingScene):
    """All instances leave a group."""

    def three(self) -> None:
        """Makes two more instances in the group, and one elsewhere."""
        self.make("drbd", ["node1", "node4"], "db")
        self.make("diskless", ["node1"], "solo")
        self.make("drbd", ["node5", "node6"], "other")

    def test_all(self) -> None:
        """Each instance's opcodes are one job; none waits for another."""
        self.three()
        jobs = self.jobs(EVACUATE, group_name="default", early_release=True)
        names = [{told["instance_name"] for _, told in job} for job in jobs]
        self.assertCountEqual(names, [{"db"}, {"solo"}, {WEB}])
        self.assertCountEqual(kinds(jobs), [["MIGRATE"], WALK, WALK])
        for job in self.world.submitted:
            self.assertEqual([op.depends for op in job], [None] * len(job))
            for op in job:
                self.assertIn(getattr(op, "early_release", None), (None, True))
        moved, returned = self.world.lines
        for name in ("db", "solo", WEB):
            self.assertIn(f"{name} (to far)", moved)
        self.assertEqual(
            returned, " - INFO: Iallocator returned 3 job(s) for evacuating node group default"
        )

    def test_side_by_side(self) -> None:
        """Jobs that can run at once come first; in sequence they come as they are planned."""
        where = {"s1": ("node1", "node5"), "s2": ("node1", "node6"), "s3": ("node4", "node7")}
        where[WEB] = ("node2", "node5")
        for name, (source, _) in where.items():
            if name != WEB:
                self.make("diskless", [source], name)
        jobs = [[{"OP_ID": "OP_INSTANCE_MIGRATE", "instance_name": name}] for name in where]
        moved = [[name, "far", [target]] for name, (_, target) in where.items()]
        self.allocator_says([moved, [], jobs])
        for more, order in (
            ({}, ["s1", "s3", "s2", WEB]),
            ({"sequential": True}, ["s1", "s2", "s3", WEB]),
        ):
            found = self.jobs(EVACUATE, group_name="default", iallocator="hail", **more)
            self.assertEqual([job[0][1]["instance_name"] for job in found], order)

    def test_in_sequence(self) -> None:
        """One job after the other, whether the one before succeeded or not."""
        self.three()
        self.jobs(EVACUATE, group_name="default", target_groups=["far"], sequential=True)
        before = (Dependency(-1, ("error", "success")),)
        first, *others = self.world.submitted
        self.assertEqual({op.depends for op in first}, {None})
        self.assertEqual({op.depends for job in others for op in job}, {before})
        self.assertEqual(
            self.world.lines[-1], " - INFO: Jobs will be submitted to run sequentially"
        )

    def test_failovers(self) -> None:
        """Failovers instead of migrations, to the same nodes."""
        self.three()
        jobs = self.jobs(EVACUATE, group_name="default", force_failover=True)
        failovers = {
            told["instance_name"]: told for job in jobs for kind, told in job if kind == "FAILOVER"
        }
        self.assertCountEqual(failovers, ["db", "solo", WEB])
        self.assertIn(failovers["solo"]["target_node"], FAR_NODES)
        self.assertEqual(failovers["db"], {"instance_name": "db"})
        self.assertNotIn("MIGRATE", [kind for job in kinds(jobs) for kind in job])
        self.assertEqual(self.world.lines[-1], " - INFO: Will insist on failovers")

    def test_failover_of_a_script(self) -> None:
        """What a script says of a migration holds for the failover as well."""
        migration = {
            "OP_ID": "OP_INSTANCE_MIGRATE",
            "instance_name": WEB,
            "target_node": "node5",
            "ignore_ipolicy": True,
            "cleanup": True,
            "allow_failover": True,
        }
        self.allocator_says([[[WEB, "far", ["node5", "node6"]]], [], [[migration]]])
        jobs = self.jobs(EVACUATE, group_name="default", force_failover=True, iallocator="hail")
        wanted = {
            "instance_name": WEB,
            "target_node": "node5",
            "ignore_ipolicy": True,
            "cleanup": True,
        }
        self.assertEqual(jobs, [[("FAILOVER", wanted)]])
        self.assertEqual(
            self.asked(),
            (
                "hail",
                {"type": "change-group", "instances": [WEB], "target_groups": [self.far]},
                {},
            ),
        )

    def test_empty(self) -> None:
        """A group without instances is evacuated already."""
        self.assertEqual(self.jobs(EVACUATE, group_name="far"), [])
        self.assertEqual(
            self.world.lines, [" - INFO: No instances to evacuate from node group far"]
        )
        self.make("drbd", ["node5", "node6"], "plan")
        self.forthcoming("plan")
        self.assertEqual(self.jobs(EVACUATE, group_name="far"), [])

    def test_split_mirror(self) -> None:
        """A mirror with one end in the group keeps the other one."""
        self.make("drbd", ["node5", "node2"], "split1")
        self.make("drbd", ["node2", "node5"], "split2")
        jobs = self.jobs(EVACUATE, group_name="far")
        found = {told["instance_name"]: kinds([job])[0] for job in jobs for _, told in job}
        self.assertEqual(
            found, {"split1": ["MIGRATE", "REPLACE_DISKS"], "split2": ["REPLACE_DISKS"]}
        )

    def test_one_can_not_move(self) -> None:
        """Nothing is submitted then."""
        self.make("plain", ["node1"], "db")
        self.assertFails(
            "Unable to evacuate instances db (Instances of type plain cannot be relocated)",
            EVACUATE,
            group_name="default",
        )
        self.assertEqual(self.world.submitted, [])

    def test_refused(self) -> None:
        """The group itself as a target, groups that aren't there, an allocator without answer."""
        self.refuses(
            f"Group to be evacuated ({self.default}) can not be used as a target group (targets "
            f"are {self.far}, {self.default})",
            ECODE_INVAL,
            EVACUATE,
            group_name="default",
            target_groups=["far", "default", "far"],
        )
        for more in ({"group_name": "nosuch"}, {"target_groups": ["nosuch"]}):
            self.refuses(
                "Node group 'nosuch' not found",
                ECODE_NOENT,
                EVACUATE,
                **{"group_name": "default", **more},
            )
        self.allocator_says(success=False, info="full")
        self.refuses(
            "Can't compute group evacuation using iallocator 'hail': full",
            ECODE_NORES,
            EVACUATE,
            group_name="default",
            iallocator="hail",
        )

    def test_locks_and_hooks(self) -> None:
        """All locks are shared; hooks run on the master and in the group."""
        self.make("drbd", ["node5", "node2"], "split")
        instances = (["split", WEB], False)
        everything = ([], False)
        self.assertEqual(
            self.locks_of(EVACUATE, group_name="default"),
            {"instance": instances, "nodegroup": everything, "node": everything},
        )
        found = self.locks_of(EVACUATE, group_name="far", target_groups=["default"])
        self.assertEqual(found["instance"], (["split"], False))
        self.assertEqual(found["nodegroup"], (sorted([self.default, self.far]), False))
        self.assertEqual(found["node"], (sorted(self.world.now.nodes), False))
        self.forget()
        self.jobs(EVACUATE, group_name="far")
        before, after = self.hook_variables()
        self.assertEqual(before["GANETI_GROUP_NAME"], "far")
        self.assertEqual(before["GANETI_TARGET_GROUPS"], self.default)
        self.assertEqual(after["GANETI_POST_TARGET_GROUPS"], self.default)
        hooked = {node for node, call in self.calls if call == "hooks_runner"}
        self.assertEqual(hooked, {"node1", *FAR_NODES})

    def test_killed(self) -> None:
        """A kill at any checkpoint: no job is submitted."""
        for _ in self.each_kill(self.renew, EVACUATE, group_name="default"):
            self.assertEqual(self.world.submitted, [])
