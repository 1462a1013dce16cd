"""Tests of the opcodes that verify, on simulated and on scripted nodes."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.locking.levels import Level, all_exclusive, all_shared, exclusive, shared
from ganeti_masterd.logical_units.verification import configuration, gathering
from ganeti_masterd.logical_units.verification.sizes import corrected, with_child_sizes
from ganeti_masterd.rpc.calls import HOOKS_RUNNER
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import HookResult, typed
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.cluster import with_instance
from tests.logical_units.scene import UnitScene
from tests.logical_units.test_verify_judges import GOOD
from tests.logical_units.world import World

MIB = 1048576


class OverviewTests(UnitScene):
    """The cluster's verification is jobs of its own."""

    def setUp(self) -> None:
        super().setUp()
        group = next(iter(self.ctx.snapshot().groups.values()))
        snapshot = self.ctx.snapshot()
        for number in (2, 3):
            more = replace(group, name=f"group{number}", uuid=f"g{number}")
            snapshot = snapshot.with_object("nodegroups", more)
        self.ctx = type(self.ctx)(snapshot, self.nodes)

    def test_all(self) -> None:
        """The configuration is first; the groups wait for that job and then run in parallel."""
        parameters: dict[str, Any] = {
            "error_codes": True,
            "verbose": True,
            "ignore_errors": ["ENODEHV"],
            "skip_checks": ["nplusone_mem"],
            "verify_clutter": True,
            "debug_simulate_errors": True,
        }
        result = self.run_unit("OP_CLUSTER_VERIFY", **parameters)
        self.assertEqual(result, {"jobs": [[True, 2], [True, 3], [True, 4], [True, 5]]})
        (config,), *groups = self.ctx.submitted
        self.assertEqual(config.op_id, "OP_CLUSTER_VERIFY_CONFIG")
        self.assertEqual((config.error_codes, config.ignore_errors), (True, ("ENODEHV",)))
        for place, (op,) in enumerate(groups, 1):
            self.assertEqual(op.op_id, "OP_CLUSTER_VERIFY_GROUP")
            self.assertEqual([(d.job, d.states) for d in op.depends], [(-place, ())])
            self.assertEqual(op.skip_checks, ("nplusone_mem",))
            self.assertTrue(op.verbose and op.verify_clutter and op.debug_simulate_errors)
        uuids = set(self.ctx.snapshot().groups)
        self.assertEqual({op.group_name for (op,) in groups}, uuids)

    def test_one(self) -> None:
        """One group alone waits for nothing."""
        self.run_unit("OP_CLUSTER_VERIFY", group_name="group2")
        ((op,),) = self.ctx.submitted
        self.assertEqual((op.group_name, op.depends), ("group2", None))

    def test_disks(self) -> None:
        """Disks are verified in each group, or in one."""
        self.assertEqual(len(self.run_unit("OP_CLUSTER_VERIFY_DISKS")["jobs"]), 3)
        self.ctx.submitted.clear()
        self.run_unit("OP_CLUSTER_VERIFY_DISKS", group_name="group3")
        ((op,),) = self.ctx.submitted
        self.assertEqual((op.op_id, op.group_name), ("OP_GROUP_VERIFY_DISKS", "g3"))
        error = self.assertRaises(
            OpPrereqError, self.unit, "OP_CLUSTER_VERIFY_DISKS", group_name="nosuch"
        )
        self.assertEqual(error.args[1], "unknown_entity")

    def test_external_disks(self) -> None:
        """If all disks are external, there is nothing to verify."""
        snapshot = self.ctx.snapshot().without("instances", "i-1")
        snapshot = with_instance(snapshot, "one", ["node1"], template="ext")
        self.ctx = type(self.ctx)(snapshot, self.nodes)
        self.assertEqual(self.run_unit("OP_CLUSTER_VERIFY_DISKS"), {"jobs": []})

    def test_locks(self) -> None:
        """Submitting needs no lock of its own."""
        for op_id in ("OP_CLUSTER_VERIFY", "OP_CLUSTER_VERIFY_DISKS"):
            self.assertEqual(list(self.wanted(self.unit(op_id))), [Level.CLUSTER])


class ConfigTests(UnitScene):
    """The configuration is verified as a whole, without locks."""

    def setUp(self) -> None:
        super().setUp()
        self.ctx.root = self.mktemp()
        self.made: list[str] = []
        self.patch(configuration, "check_file", self.check)

    def check(self, path: str, now: float) -> list[Any]:
        """Stands for looking at a certificate."""
        self.made.append(path)
        return []

    def test_sound(self) -> None:
        """A sound configuration gives one line per step."""
        self.assertIs(self.run_unit("OP_CLUSTER_VERIFY_CONFIG"), True)
        self.assertEqual(
            self.ctx.lines,
            [
                "* Verifying cluster config",
                "* Verifying cluster certificate files",
                "* Verifying hypervisor parameters",
                "* Verifying all nodes belong to an existing group",
            ],
        )
        self.assertIn(f"{self.ctx.root}/var/lib/ganeti/server.pem", self.made)
        self.assertEqual(list(self.wanted(self.unit("OP_CLUSTER_VERIFY_CONFIG"))), [Level.CLUSTER])

    def broken(self) -> None:
        """Breaks the configuration in all ways."""
        now = self.ctx.snapshot()
        cluster = replace(
            now.cluster,
            hvparams={**now.cluster.hvparams, "fake": {"migration_mode": "x"}},
            os_hvp={"os": {"fake": {"acpi": 1}}},
        )
        instance = replace(now.instances["i-1"], hypervisor="fake", hvparams={"x": 1})
        lost = replace(now.instances["i-1"], name="lost", uuid="l", primary_node="gone")
        now = now.with_object("cluster", cluster).with_object("instances", instance)
        now = now.with_object("instances", lost)
        now = now.with_object("nodes", replace(now.master, group="gone"))
        root, self.ctx = self.ctx.root, type(self.ctx)(now, self.nodes)
        self.ctx.root = root

    def test_broken(self) -> None:
        """Every fault is reported, with its code if requested."""
        self.broken()
        self.assertIs(self.run_unit("OP_CLUSTER_VERIFY_CONFIG", error_codes=True), False)
        told = [line for line in self.ctx.lines if line.startswith("  - ")]
        for part in (
            "ECLUSTERCFG:cluster:None:node 'node1' is in group 'gone', which does not exist",
            "ECLUSTERCFG:cluster:None:hypervisor cluster parameters syntax check (source fake):",
            "ECLUSTERCFG:cluster:None:hypervisor os os parameters syntax check (source fake):",
            "ECLUSTERCFG:cluster:None:hypervisor instance web.example.com parameters syntax check",
            "ECLUSTERDANGLINGNODES:node:None:the following nodes (and their instances) belong to a"
            " non existing group: node1 (web.example.com)",
            "ECLUSTERDANGLINGINST:node:None:the following instances have a non-existing"
            " primary-node: lost",
        ):
            self.assertTrue(any(part in line for line in told), part)

    def test_ignored(self) -> None:
        """Ignored faults are only warnings."""
        self.broken()
        ignored = ["ECLUSTERCFG", "ECLUSTERDANGLINGNODES", "ECLUSTERDANGLINGINST"]
        self.assertIs(self.run_unit("OP_CLUSTER_VERIFY_CONFIG", ignore_errors=ignored), True)
        self.assertTrue(any(line.startswith("  - WARNING: cluster : ") for line in self.ctx.lines))

    def test_simulated(self) -> None:
        """Faults can be simulated, to test programs that parse them."""
        done = self.run_unit(
            "OP_CLUSTER_VERIFY_CONFIG", debug_simulate_errors=True, error_codes=True
        )
        self.assertIs(done, False)
        self.assertIn("  - ERROR:ECLUSTERCERT:cluster:None:simulated error", self.ctx.lines)


class GroupTests(UnitScene):
    """A group's nodes are called and checked."""

    def setUp(self) -> None:
        super().setUp()
        # Scripted nodes have no running instance.
        self.ctx = type(self.ctx)(self.ctx.snapshot().without("instances", "i-1"), self.nodes)
        self.patch(time, "time", lambda: 1000.0)
        self.nodes.answers["node_verify"] = self.answer
        self.change: dict[str, Any] = {}
        self.digests = dict(self.ctx.snapshot().cluster.candidate_certs)

    def answer(self, target: Any, arguments: list[Any]) -> dict[str, Any]:
        """Returns a sound answer, with what the test changes."""
        wanted = arguments[0]
        told = {
            **GOOD,
            "client-cert": [None, self.digests.get(target.key)],
            "filelist": dict.fromkeys(wanted["filelist"], "1"),
            **self.change,
        }
        if target.name == wanted.get("allowed-file-storage-paths"):
            told["allowed-file-storage-paths"] = []
        return told

    def verify(self, **parameters: Any) -> bool:
        """Verifies the group; returns whether it is sound."""
        sound: bool = self.run_unit("OP_CLUSTER_VERIFY_GROUP", group_name="default", **parameters)
        return sound

    @property
    def told(self) -> list[str]:
        """The findings in the log."""
        return [line for line in self.ctx.lines if line.startswith("  - ")]

    def test_sound(self) -> None:
        """A sound group gives one line per step."""
        self.assertTrue(self.verify())
        self.assertEqual(
            self.ctx.lines,
            [
                "* Verifying group 'default'",
                "* Gathering data (3 nodes)",
                "* Gathering information about nodes (3 nodes)",
                "* Gathering disk information (3 nodes)",
                "* Verifying configuration file consistency",
                "* Verifying node status",
                "* Verifying instance status",
                "* Verifying orphan volumes",
                "* Verifying N+1 Memory redundancy",
                "* Other Notes",
            ],
        )

    def test_verbose(self) -> None:
        """Nodes and instances are named if requested, offline nodes as skipped."""
        node = self.ctx.snapshot().node("node3")
        self.ctx.change(node.uuid, lambda now: replace(now, offline=True, master_candidate=False))
        self.verify(verbose=True, skip_checks=["nplusone_mem"])
        for line in (
            "* Verifying node node1 (master)",
            "* Verifying node node2 (master candidate)",
            "* Skipping offline node node3",
            "  - NOTICE: 1 offline node(s) found.",
        ):
            self.assertIn(line, self.ctx.lines)
        self.assertNotIn("* Verifying N+1 Memory redundancy", self.ctx.lines)

    def test_found(self) -> None:
        """A fault makes the result False, and is logged with its code if requested."""
        self.change = {"nodesetup": ["no procfs"]}
        self.assertFalse(self.verify(error_codes=True))
        self.assertIn("  - ERROR:ENODESETUP:node:node1:node setup error: no procfs", self.told)
        self.assertTrue(self.verify(ignore_errors=["ENODESETUP"]))

    def test_node_fails(self) -> None:
        """A node with no answer or a malformed one doesn't stop the other checks."""
        self.nodes.answers["node2", "node_verify"] = Failed("dead")
        for garbage in ([1], {"version": [3000000, "3.0.2"], "bridges": 5}, {}, "text", None):
            self.ctx.lines.clear()
            self.nodes.answers["node3", "node_verify"] = garbage
            self.assertFalse(self.verify())
            self.assertIn("  - ERROR: node node2: while contacting node: dead", self.told)
            self.assertTrue(any("node node3:" in line for line in self.told), garbage)

    def test_replicated_files(self) -> None:
        """Files that this daemon replicates have time to arrive."""
        config = self.ctx.root + "/var/lib/ganeti/config.data"
        late = iter(["2", "1"])

        def answer(target: Any, arguments: list[Any]) -> dict[str, Any]:
            told = self.answer(target, arguments)
            told["filelist"] = {**told["filelist"], config: next(late)}
            return told

        self.nodes.answers["node2", "node_verify"] = answer
        self.assertTrue(self.verify())
        self.assertEqual(self.ctx.slept, [gathering.PAUSE])

    def test_files_differ(self) -> None:
        """Replicated files that keep differing are reported, others at once."""
        config = self.ctx.root + "/var/lib/ganeti/config.data"
        self.nodes.answers["node2", "node_verify"] = lambda target, arguments: {
            **self.answer(target, arguments),
            "filelist": {path: "2" for path in arguments[0]["filelist"] if path != config},
        }
        self.assertFalse(self.verify())
        self.assertEqual(len(self.ctx.slept), gathering.TRIES - 1)
        self.assertTrue(any("config.data is missing from node(s) node2" in t for t in self.told))
        self.assertTrue(any("hmac.key found with 2 different" in t for t in self.told))

    def test_empty(self) -> None:
        """An empty group is sound."""
        group = replace(next(iter(self.ctx.snapshot().groups.values())), name="new", uuid="n")
        self.ctx = type(self.ctx)(self.ctx.snapshot().with_object("nodegroups", group), self.nodes)
        unit = self.unit("OP_CLUSTER_VERIFY_GROUP", group_name="new")
        self.assertIs(unit.exec(self.ctx), True)
        self.assertEqual(self.ctx.lines[-1], "* Empty node group, skipping verification")
        self.assertIs(unit.after_hooks(self.ctx, {}, True), True)

    def test_hooks(self) -> None:
        """Scripts that fail, and nodes that can't run them, fail the verification."""
        unit = self.unit("OP_CLUSTER_VERIFY_GROUP", group_name="default")
        self.assertIs(unit.exec(self.ctx), True)
        call = "hooks_runner"
        rows = [HookResult("a", 2, ""), HookResult("b", 1, "one\ntwo")]
        for answer, sound, lines in (
            (NodeResult("node1", call, []), True, []),
            (NodeResult("node1", call, None, "offline", True), True, []),
            (
                NodeResult("node1", call, rows),
                False,
                [
                    "  - ERROR: node node1: Script b failed, output:",
                    "      one\n      two",
                ],
            ),
            (
                NodeResult("node1", call, None, "dead"),
                False,
                ["  - ERROR: node node1: Communication failure in hooks execution: dead"],
            ),
        ):
            self.ctx.lines.clear()
            self.assertIs(unit.after_hooks(self.ctx, {"u": answer}, True), sound)
            self.assertEqual(self.ctx.lines, ["* Hooks Results", *lines])
        malformed = typed(NodeResult("node1", call, [[1]]), HOOKS_RUNNER)
        self.assertIs(unit.after_hooks(self.ctx, {"u": malformed}, True), False)

    def test_hook_environment(self) -> None:
        """Hooks get the tags, and run afterwards on the group's nodes."""
        self.ctx.change(self.ctx.snapshot().cluster.uuid, lambda now: now.with_tags(["a", "b"]))
        unit = self.unit("OP_CLUSTER_VERIFY_GROUP", group_name="default")
        environment = unit.hook_environment(self.ctx.snapshot())
        self.assertEqual(environment["CLUSTER_TAGS"], "a b")
        self.assertEqual(environment["NODE_TAGS_node2"], "")
        nodes = unit.hook_nodes(self.ctx.snapshot())
        self.assertEqual((nodes.before, len(nodes.after)), ((), 3))

    def test_locks(self) -> None:
        """Everything in the group is shared, and released before the answers are checked."""
        unit = self.unit("OP_CLUSTER_VERIFY_GROUP", group_name="default")
        now = self.ctx.snapshot()
        wanted = self.wanted(unit)
        self.assertEqual(wanted[Level.NODE], shared(now.nodes))
        self.assertEqual(wanted[Level.NODEGROUP], shared(now.groups))
        self.ctx.locks[Level.NODE] = set(now.nodes)
        unit.exec(self.ctx)
        self.assertEqual(self.ctx.owned(Level.NODE), frozenset())

    def test_request(self) -> None:
        """The request depends on the cluster: keys of nodes, programs, shared storage."""
        cluster = self.ctx.snapshot().cluster
        change: dict[str, Any] = {
            "modify_ssh_setup": True,
            "use_external_mip_script": True,
            "ndparams": {**cluster.ndparams, "oob_program": "/oob", "exclusive_storage": True},
            "enabled_disk_templates": (*cluster.enabled_disk_templates, "sharedfile"),
        }
        self.ctx.change(cluster.uuid, lambda now: replace(now, **change))
        self.verify(verify_clutter=True)
        asked = self.nodes.asked[0].arguments[0]
        self.assertEqual(asked["oob-paths"], ["/oob"])
        self.assertEqual(asked["user-scripts"], ["/etc/ganeti/scripts/master-ip-setup"])
        self.assertEqual(asked["exclusive-pvs"], True)
        self.assertEqual(asked["shared-file-storage-path"], "/srv/ganeti/shared-file-storage")
        self.assertEqual(asked["ssh-clutter"], True)
        self.assertEqual(asked["ssh-setup"][1], "rsa")
        self.assertEqual(asked["drbd-helper"], "/bin/true")
        self.assertEqual(asked["nodelist"][0], ["node1", "node2", "node3"])

    def test_simulate(self) -> None:
        """Faults can be simulated."""
        self.assertFalse(self.verify(debug_simulate_errors=True))
        self.assertTrue(any("simulated error" in line for line in self.told))


class SimulatedTests(UnitScene):
    """On simulated nodes verification works as it is."""

    def test_two_groups(self) -> None:
        """Mirrors in other groups are asked too, and so is the master."""
        world = World(4)
        world.run("OP_GROUP_ADD", group_name="other")
        world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node3"], force=True)
        world.lines.clear()
        world.run("OP_CLUSTER_VERIFY_GROUP", group_name="default")
        self.assertIn("* Gathering information about extra nodes (1 nodes)", world.lines)
        self.assertIn("* Gathering information about the master node", world.lines)
        self.assertTrue(any("different groups: node2 (group default)" in t for t in world.lines))
        world.run("OP_CLUSTER_VERIFY_GROUP", group_name="other")
        self.assertEqual(world.faults(), [])

    def test_faults(self) -> None:
        """Whatever a node answers, the verification completes."""
        for payload in (None, [], {}, "text", [[1]]):
            for call in ("node_verify", "blockdev_getmirrorstatus_multi", "hooks_runner"):
                world = World(3)
                world.nodes.faults.add(
                    SimulatedFault(kind="garbage", node="node2", call=call, payload=payload)
                )
                world.run("OP_CLUSTER_VERIFY_GROUP", group_name="default")
                self.assertEqual(world.faults(), [])


class DisksTests(UnitScene):
    """Disks that are missing or not active are found."""

    def setUp(self) -> None:
        super().setUp()
        snapshot = self.ctx.snapshot()
        snapshot = with_instance(
            snapshot, "mirrored", ["node1", "node2"], template="drbd", disks_active=True
        )
        snapshot = with_instance(snapshot, "plain", ["node3"], template="plain", disks_active=True)
        plain = replace(snapshot.disks["d-plain"], logical_id=("xenvg", "data"))
        snapshot = snapshot.with_object("disks", plain)
        self.ctx = type(self.ctx)(snapshot, self.nodes)
        self.nodes.answers.update(
            {"lv_list": {"xenvg/data": ["4.0", False, True]}, "drbd_needs_activation": []}
        )

    def verify(self) -> Any:
        """Verifies the disks of the group."""
        return self.run_unit("OP_GROUP_VERIFY_DISKS", group_name="default")

    def test_sound(self) -> None:
        """Active disks need nothing."""
        self.assertEqual(self.verify(), [{}, [], {}])

    def test_inactive(self) -> None:
        """Volumes that are offline and mirrors that ask for it need activation."""
        self.nodes.answers["lv_list"] = {"xenvg/data": ["4.0", False, False]}
        self.nodes.answers["node2", "drbd_needs_activation"] = ["d-mirrored"]
        self.assertEqual(self.verify(), [{}, ["mirrored", "plain"], {}])

    def test_missing(self) -> None:
        """A volume that isn't there is missing."""
        self.nodes.answers["lv_list"] = {}
        uuid = self.ctx.snapshot().node("node3").uuid
        self.assertEqual(self.verify(), [{}, [], {"plain": [[uuid, "xenvg/data"]]}])

    def test_errors(self) -> None:
        """A node's failure or garbage is an error, and none of its volumes count as missing."""
        now = self.ctx.snapshot()
        self.nodes.answers["lv_list"] = Failed("dead")
        self.nodes.answers["node1", "drbd_needs_activation"] = "garbage"
        errors, inactive, missing = self.verify()
        self.assertEqual(errors[now.node("node3").uuid], "dead")
        self.assertIn("malformed result", errors[now.node("node1").uuid])
        self.assertEqual((inactive, missing), ([], {}))

    def test_offline(self) -> None:
        """Offline nodes are skipped."""
        uuid = self.ctx.snapshot().node("node3").uuid
        self.ctx.change(uuid, lambda node: replace(node, offline=True, master_candidate=False))
        self.assertEqual(self.verify(), [{}, [], {}])

    def test_locks(self) -> None:
        """Shared are the group's nodes and instances."""
        unit = self.unit("OP_GROUP_VERIFY_DISKS", group_name="default")
        wanted = self.wanted(unit)
        self.assertEqual(wanted[Level.INSTANCE], shared(["mirrored", "plain", "web.example.com"]))
        self.assertEqual(wanted[Level.NODE], shared(self.ctx.snapshot().nodes))


class SizesTests(UnitScene):
    """Sizes in the configuration become those of the nodes."""

    def setUp(self) -> None:
        super().setUp()
        snapshot = self.ctx.snapshot()
        for name in ("one", "two"):
            snapshot = with_instance(snapshot, name, ["node2"], template="file", size=100)
        self.ctx = type(self.ctx)(snapshot, self.nodes)
        self.nodes.answers["blockdev_getdimensions"] = lambda target, arguments: [
            [100 * MIB, None] for _ in arguments[0]
        ]

    def repair(self, **parameters: Any) -> Any:
        """Repairs sizes."""
        return self.run_unit("OP_CLUSTER_REPAIR_DISK_SIZES", **parameters)

    def test_right(self) -> None:
        """Sizes that are right stay."""
        before = self.ctx.snapshot()
        self.assertEqual(self.repair(), [])
        self.assertIs(self.ctx.snapshot(), before)

    def test_corrected(self) -> None:
        """A size that differs is corrected, of the instances named."""
        self.nodes.answers["blockdev_getdimensions"] = [[120 * MIB, None]]
        self.assertEqual(self.repair(instances=["one"]), [["one", 0, "size", 120]])
        self.assertEqual(self.ctx.snapshot().disks["d-one"].size, 120)
        self.assertEqual(self.ctx.snapshot().disks["d-two"].size, 100)
        self.assertIn(
            "has mismatched size, correcting: recorded 100, actual 120", self.ctx.lines[0]
        )

    def test_spindles(self) -> None:
        """On exclusive storage spindles are corrected too."""
        uuid = self.ctx.snapshot().node("node2").uuid
        self.ctx.change(uuid, lambda node: replace(node, ndparams={"exclusive_storage": True}))
        self.nodes.answers["blockdev_getdimensions"] = [[100 * MIB, 2], [100 * MIB, None]]
        self.assertEqual(self.repair(), [["one", 0, "spindles", 2]])
        self.assertIn("did not return valid spindles information", self.ctx.lines[-1])

    def test_warnings(self) -> None:
        """What can't be read is left alone, with a warning.

        A node with a malformed answer has failed, for all its disks.
        """
        failure = "Failure in blockdev_getdimensions call to node node2, ignoring: "
        malformed = f"{failure}RPC blockdev_getdimensions: malformed result: "
        for answer, *texts in (
            (Failed("dead"), f"{failure}dead"),
            ([[100 * MIB, None]], "Invalid result from node node2"),
            ([None, None], *["did not return size information"] * 2),
            ("garbage", malformed),
            ([5, 5], malformed),
            ([[120 * MIB, None], ["x", None]], malformed),
        ):
            self.ctx.lines.clear()
            self.nodes.answers["blockdev_getdimensions"] = answer
            self.assertEqual(self.repair(), [])
            self.assertEqual(len(self.ctx.lines), len(texts), answer)
            for line, text in zip(self.ctx.lines, texts, strict=True):
                self.assertIn(text, line)

    def test_children(self) -> None:
        """DRBD's data volume is at least as large as the disk."""
        child = Disk(dev_type="plain", size=50, uuid="c")
        meta = Disk(dev_type="plain", size=128, uuid="m")
        disk = Disk(dev_type="drbd", size=100, children=(child, meta), uuid="d")
        fixed = with_child_sizes(disk)
        self.assertEqual([one.size for one in fixed.children], [100, 128])
        self.assertIs(with_child_sizes(fixed), fixed)
        self.assertEqual(corrected(disk, 200, None).children[0].size, 200)
        self.assertIs(corrected(fixed, 100, None), fixed)

    def test_locks(self) -> None:
        """The instances named are held alone, or all."""
        node = self.ctx.snapshot().node("node2").uuid
        wanted = self.wanted(self.unit("OP_CLUSTER_REPAIR_DISK_SIZES", instances=["one"]))
        self.assertEqual(wanted[Level.INSTANCE], exclusive("one"))
        self.assertEqual(wanted[Level.NODE_RES], shared(node))
        wanted = self.wanted(self.unit("OP_CLUSTER_REPAIR_DISK_SIZES"))
        self.assertEqual(
            (wanted[Level.INSTANCE], wanted[Level.NODE_RES]), (all_exclusive, all_shared)
        )
        self.assertRaises(
            OpPrereqError, self.unit, "OP_CLUSTER_REPAIR_DISK_SIZES", instances=["nosuch"]
        )
