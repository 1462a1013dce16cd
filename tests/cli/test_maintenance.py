"""The plan of a node's maintenance, and the command with a daemon that answers from a table."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli import maintenance_plan as planning
from ganeti_masterd.cli.maintenance_plan import HostedInstance, MaintainedNode
from ganeti_masterd.opcodes import decode_opcode
from tests.cli.doubles import OK_ROW, CommandCase


def instance(name: str, *nodes: str, template: str = "drbd", **about: Any) -> HostedInstance:
    """Returns an instance of 128 MiB of memory and, with disks, 64 and 32 MiB of them."""
    facts: dict[str, Any] = {
        "admin_state": "up",
        "disks": [] if template == "diskless" else [64, 32],
        "memory": 128,
        "tags": [],
        **about,
    }
    return HostedInstance(
        name=name, primary=nodes[0], secondaries=list(nodes[1:]), template=template, **facts
    )


NODE = MaintainedNode("node2", False, False, False, [], [], [])
INSTANCES = [
    instance("db", "node2", "node3"),
    instance("idle", "node2", "node1", admin_state="down"),
    instance("web", "node3", "node2"),
    instance("far", "node2", template="rbd"),
    instance("here", "node2", template="plain"),
    instance("off", "node2", template="file", admin_state="down"),
]


def kinds(jobs: Any) -> list[list[tuple[str, str | None]]]:
    """Returns what the opcodes of jobs are, and whom they are about; all can be read."""
    for job in jobs:
        for op in job:
            decode_opcode(op)
    return [
        [(op["OP_ID"].removeprefix("OP_"), op.get("instance_name") or op.get("name")) for op in job]
        for job in jobs
    ]


class PlanTests(SynchronousTestCase):
    """What is done to which instance."""

    def test_plan(self) -> None:
        """Primaries move, mirrors after them; what can't move stays, and is said to."""
        plan = planning.plan_of("node2", INSTANCES, {"web": "node1"})
        self.assertEqual(
            [(each.instance, each.action, each.to, each.mebibytes) for each in plan],
            [
                ("db", "move", "node3", 128),
                ("idle", "move", "node1", 0),
                ("far", "move", "where the allocator says", 128),
                ("db", "mirror", "where the allocator says", 96),
                ("idle", "mirror", "where the allocator says", 96),
                ("web", "mirror", "node1", 96),
                ("here", "stay", "plain can't move: stop it first", 0),
                ("off", "stay", "file can't move: it is down", 0),
            ],
        )
        kept = planning.plan_of("node2", INSTANCES, {}, keep_mirrors=True)
        self.assertEqual(
            [each.instance for each in kept if "no redundancy" in each.to], ["db", "idle", "web"]
        )
        self.assertEqual(sum(each.mebibytes for each in kept), 256)

    def test_draining(self) -> None:
        """A node that is drained already stays so after the maintenance."""
        (job,) = planning.drain(NODE)
        self.assertEqual(kinds([job]), [[("TAGS_SET", "node2"), ("NODE_SET_PARAMS", None)]])
        drained = MaintainedNode("node2", False, True, False, [], [], [])
        self.assertEqual((planning.drain(drained), planning.undrain(drained)), ([], []))
        ours = MaintainedNode("node2", False, True, False, [], [], ["maintenance:drained"])
        (job,) = planning.undrain(ours)
        self.assertEqual(kinds([job]), [[("NODE_SET_PARAMS", None), ("TAGS_DEL", "node2")]])
        self.assertIs(job[0]["drained"], False)

    def test_moves(self) -> None:
        """What an instance was is noted before it moves; an allocator finds what is needed."""
        jobs = planning.moves("node2", INSTANCES)
        self.assertEqual(
            kinds(jobs),
            [[("TAGS_SET", name), ("INSTANCE_MIGRATE", name)] for name in ("db", "idle", "far")],
        )
        self.assertEqual([job[1].get("iallocator") for job in jobs], [None, None, "."])
        self.assertEqual(jobs[0][0]["tags"], ["maintenance:primary:node2"])

    def test_evacuation(self) -> None:
        """Mirrors of instances that were moved off before aren't noted a second time."""
        after = [
            instance("db", "node3", "node2", tags=["maintenance:primary:node2"]),
            instance("web", "node3", "node2"),
        ]
        (job,) = planning.evacuation("node2", after)
        self.assertEqual(kinds([job]), [[("TAGS_SET", "web"), ("NODE_EVACUATE", None)]])
        self.assertEqual(job[-1]["mode"], "secondary-only")
        self.assertEqual(planning.evacuation("node2", [instance("db", "node2", "node1")]), [])

    def test_returns(self) -> None:
        """The mirror comes back first, the instance after it, and the note goes at last."""
        primary, secondary = ["maintenance:primary:node2"], ["maintenance:secondary:node2"]
        moved = [
            instance("db", "node3", "node1", tags=primary),
            instance("half", "node3", "node2", tags=primary),
            instance("back", "node2", "node3", tags=primary),
            instance("web", "node3", "node1", tags=[*secondary, "other"]),
            instance("far", "node5", template="rbd", tags=primary),
            instance("else", "node3", "node1", tags=["maintenance:primary:node9"]),
        ]
        jobs = planning.returns("node2", moved)
        self.assertEqual(
            [[kind for kind, _ in job] for job in kinds(jobs)],
            [
                ["INSTANCE_REPLACE_DISKS", "INSTANCE_MIGRATE", "TAGS_DEL"],
                ["INSTANCE_MIGRATE", "TAGS_DEL"],
                ["TAGS_DEL"],
                ["INSTANCE_REPLACE_DISKS", "TAGS_DEL"],
                ["INSTANCE_MIGRATE", "TAGS_DEL"],
            ],
        )
        self.assertEqual(jobs[0][0]["remote_node"], "node2")
        self.assertNotIn("target_node", jobs[0][1])
        self.assertEqual(jobs[4][0]["target_node"], "node2")
        self.assertEqual(jobs[3][-1]["tags"], secondary)
        self.assertEqual(
            [(each.instance, each.action) for each in planning.returning("node2", moved)],
            [
                ("db", "mirror"),
                ("db", "move"),
                ("half", "move"),
                ("web", "mirror"),
                ("far", "move"),
            ],
        )

    def test_verdict(self) -> None:
        """Running instances keep a node on; mirrors there are lost while it is off."""
        self.assertEqual(planning.running_on("node2", INSTANCES), ["db", "far", "here"])
        self.assertEqual(planning.unprotected_without("node2", INSTANCES), ["web"])

    def test_places(self) -> None:
        """Where mirrors would go, and why one can't."""
        answer = {
            "success": True,
            "result": [[["web", "default", ["node3", "node1"]]], [["db", "full"]], []],
        }
        self.assertEqual(planning.mirror_places(answer), {"web": "node1", "db": "nowhere: full"})
        self.assertEqual(planning.mirror_places({"success": False, "info": "no"}), {})


class CommandTests(CommandCase):
    """The command: what it asks and submits, and what it refuses."""

    def setUp(self) -> None:
        super().setUp()
        self.node: list[Any] = ["node2", False, False, False, ["db"], ["web"], []]
        self.instances: list[list[Any]] = [
            ["db", "node2", ["node3"], "drbd", "up", [64], 128, []],
            ["web", "node3", ["node2"], "drbd", "up", [100], 128, []],
            ["here", "node2", [], "plain", "up", [64], 128, []],
        ]
        self.submitted: list[Any] = []
        self.unfinished: list[dict[str, Any]] = []
        self.failing = False
        self.daemon.answers.update(
            Query=self.answer_query,
            QueryClusterInfo={"name": "cluster", "default_iallocator": "hail"},
            QueryJobs=self.answer_jobs,
            SubmitJob=lambda job: self.submit([job])[0][1],
            SubmitManyJobs=self.submit,
            WaitForJobChange=lambda *_: None,
        )

    def answer_query(self, what: str, fields: list[str], _: Any) -> Any:
        rows = [self.node] if what == "node" else self.instances
        return {"fields": [], "data": [[[0, value] for value in row] for row in rows]}

    def submit(self, jobs: list[Any]) -> list[Any]:
        first = 10 + len(self.submitted)
        self.submitted += jobs
        return [[True, first + place] for place in range(len(jobs))]

    def answer_jobs(self, ids: list[int] | None, fields: list[str]) -> list[list[Any]]:
        known = {job["id"]: job for job in self.unfinished}
        rows = []
        for number in ids if ids is not None else list(known):
            row = {**OK_ROW, "id": number}
            if number in known and ids is None:
                row = known[number]
            elif number in known:
                row = {**known[number], "status": known[number]["status"]}
                if "opresult" in fields and "ops" not in fields:
                    row = {**row, "status": "success"}
            elif self.failing:
                row |= {"status": "error", "opstatus": ["error"], "opresult": [["X", ["no"]]]}
            elif self.submitted[number - 10][-1]["OP_ID"] == "OP_TEST_ALLOCATOR":
                said = {"success": True, "result": [[["web", "g", ["node3", "node1"]]], [], []]}
                row["opresult"] = [json.dumps(said)]
            rows.append([row[name] for name in fields])
        return rows

    def ids(self) -> list[str]:
        """Returns what the last opcode of each submitted job is."""
        return [job[-1]["OP_ID"].removeprefix("OP_") for job in self.submitted]

    def test_plan(self) -> None:
        """Lines for people: where each goes, and how long it takes; nothing is changed."""
        said = self.run_ok("node-maintenance", "node2", "--plan", "--speed", "50")
        self.assertEqual(
            said.splitlines(),
            [
                "db\tmove\tnode3\t128\t2.56 s",
                "db\tmirror\twhere the allocator says\t64\t1.28 s",
                "web\tmirror\tnode1\t100\t2.00 s",
                "here\tstay\tplain can't move: stop it first\t-\t-",
                "4 steps, 292 MiB to copy, about 5.84 s at 50 MiB/s",
            ],
        )
        self.assertEqual(self.ids(), ["TEST_ALLOCATOR"])
        self.assertEqual(self.submitted[0][0]["iallocator"], "hail")

    def test_begin(self) -> None:
        """Drained, moved, evacuated; all jobs name the command as their reason."""
        result = self.run_failing("node-maintenance", "node2", "--yes")
        self.assertEqual(
            self.ids(), ["TEST_ALLOCATOR", "NODE_SET_PARAMS", "INSTANCE_MIGRATE", "NODE_EVACUATE"]
        )
        for job in self.submitted:
            for op in job:
                self.assertEqual(
                    op["reason"][-1][:2], ["gnt:client:gnt-luxi", "node-maintenance node2"]
                )
        # Nothing has moved in this table.
        self.assertIn(
            "Node node2 must not be switched off: db, here run there\n"
            "Without redundancy while it is off: web\n",
            result.stdout,
        )

    def test_may_be_off(self) -> None:
        """An empty node, drained: nothing to do, and it may be switched off."""
        self.node[2:] = [True, False, [], [], []]
        self.instances = []
        said = self.run_ok("node-maintenance", "node2")
        self.assertEqual(said, "There is nothing to move\nNode node2 may be switched off\n")
        self.assertEqual(self.submitted, [])
        told = self.run_json("node-maintenance", "node2")
        self.assertEqual((told["may_be_off"], told["plan"]), (True, []))

    def test_not_asked(self) -> None:
        """Without anybody to ask nothing is begun."""
        result = self.run_failing("node-maintenance", "node2", "--keep-mirrors")
        self.assertIn("give --yes", result.stderr)
        self.assertEqual(self.submitted, [])

    def test_draining_fails(self) -> None:
        """Nothing moves from a node that could not be drained."""
        self.failing = True
        result = self.run_failing("node-maintenance", "node2", "--yes", "--keep-mirrors")
        self.assertIn("needed for all that follows", result.stderr)
        self.assertEqual(self.ids(), ["NODE_SET_PARAMS"])

    def test_refused(self) -> None:
        """The master, unknown nodes, offline nodes, and options that don't go together."""
        self.node[1] = True
        self.assertIn("is the master", self.run_failing("node-maintenance", "node2").stderr)
        self.node[1], self.node[3] = False, True
        result = self.run_failing("node-maintenance", "node2", "--undo")
        self.assertIn("is marked offline", result.stderr)
        self.run_failing("node-maintenance", "node2", "--undo", "--keep-mirrors", code=2)
        self.daemon.answers["Query"] = {"fields": [], "data": []}
        self.assertIn("no node x", self.run_failing("node-maintenance", "x").stderr)
        self.daemon.answers["Query"] = {"data": [[[0, 5]]]}
        self.assertIn("can't be understood", self.run_failing("node-maintenance", "x").stderr)

    def test_earlier_jobs(self) -> None:
        """Jobs of a run that was stopped are waited for, not submitted again; others aren't."""
        ours = ["gnt:client:gnt-luxi", "node-maintenance node2", 5]
        op = {"OP_ID": "OP_INSTANCE_MIGRATE", "instance_name": "db"}
        for number, reason in ((3, ours), (4, ["gnt:client:gnt-luxi", "submit", 5])):
            ops = [{**op, "reason": [reason]}]
            self.unfinished.append({**OK_ROW, "id": number, "status": "running", "ops": ops})
        self.node[2:] = [True, False, [], [], []]
        self.instances = []
        result = self.invoke("--socket", self.socket, "node-maintenance", "node2")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("1 job of an earlier run first", result.stderr)

    def test_undo(self) -> None:
        """The node takes instances again, and they come back; what doesn't is named."""
        self.node[2], self.node[-1] = True, ["maintenance:drained"]
        tags = ["maintenance:primary:node2"]
        self.instances = [["db", "node3", ["node1"], "drbd", "up", [64], 128, tags]]
        result = self.run_failing("node-maintenance", "node2", "--undo", "--yes")
        self.assertEqual(self.ids(), ["TAGS_DEL", "TAGS_DEL"])
        self.assertIn("Not back yet, run this again for them: db", result.stdout)
        self.node[-1], self.instances = [], []
        said = self.run_ok("node-maintenance", "node2", "--undo", "--yes")
        self.assertEqual(said, "There is nothing to move\nAll is back on node node2\n")
