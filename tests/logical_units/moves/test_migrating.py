"""OP_INSTANCE_MIGRATE: there, refusals, and the node calls in their order."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.logical_units.moves.versions import is_safe
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.moving import MIGRATE, MovingScene
from tests.logical_units.world import MustWait

#: The calls of a migration of an instance with mirrors, from node2 to node3, as real daemon 3.0.2
#: makes them; the question whether it runs on node3 is ours.
CALLS = [
    ("node3", "node_info"),
    ("node2", "instance_migratable"),
    ("node2", "instance_info"),
    ("node3", "instance_info"),
    ("node2", "node_info"),
    ("node3", "node_info"),
    *[("node3", "blockdev_find")] * 3,
    ("node2", "migration_info"),
    ("node3", "blockdev_close"),
    ("node2", "drbd_disconnect_net"),
    ("node3", "drbd_disconnect_net"),
    ("node2", "drbd_attach_net"),
    ("node3", "drbd_attach_net"),
    ("node2", "drbd_wait_sync"),
    ("node3", "drbd_wait_sync"),
    ("node2", "blockdev_open"),
    ("node3", "blockdev_open"),
    ("node3", "accept_instance"),
    ("node2", "instance_migrate"),
    ("node2", "instance_get_migration_status"),
    ("node2", "instance_finalize_migration_src"),
    ("node3", "instance_finalize_migration_dst"),
    ("node2", "blockdev_close"),
    ("node2", "drbd_wait_sync"),
    ("node3", "drbd_wait_sync"),
    ("node2", "drbd_disconnect_net"),
    ("node3", "drbd_disconnect_net"),
    ("node2", "drbd_attach_net"),
    ("node3", "drbd_attach_net"),
    ("node2", "drbd_wait_sync"),
    ("node3", "drbd_wait_sync"),
]

LINES = """\
Migrating instance db.example.com
* checking disk consistency between source and target
* closing instance disks on node node3
* changing into standalone mode
* changing disks into dual-master mode
* wait until resync is done
* opening instance disks on node node2 in shared mode
* opening instance disks on node node3 in shared mode
* preparing node3 to accept the instance
* migrating instance to node3
* starting memory transfer
* memory transfer complete
* closing instance disks on node node2
* wait until resync is done
* changing into standalone mode
* changing disks into single-master mode
* wait until resync is done
* done""".splitlines()


class MigratingTests(MovingScene):
    """An instance goes to its other node, and to nodes that share its storage."""

    def test_mirrored(self) -> None:
        """The calls, the log, the configuration; and back."""
        for hypervisor in ("fake", "kvm"):
            self.renew()
            before = self.make(up=True, hypervisor=hypervisor)
            self.assertIsNone(self.move(MIGRATE))
            self.assertEqual(self.made_calls(), CALLS)
            self.assertEqual(self.world.lines, LINES)
            self.assertWhole("node3")
            self.assertEqual(self.now().serial_no, before.serial_no + 1)
            self.move(MIGRATE)
            self.assertWhole("node2")

    def test_secondary_named(self) -> None:
        """The node to which it goes anyway may be named."""
        self.make(up=True)
        self.move(MIGRATE, target_node="node3")
        self.assertWhole("node3")

    def test_shared(self) -> None:
        """To the node that is named, or that an allocator chooses."""
        for template in ("sharedfile", "rbd", "diskless"):
            self.renew()
            self.make(template, ("node2",), up=True)
            self.move(MIGRATE, target_node="node4")
            self.assertEqual(self.where(), ["node4"])
            self.assertEqual(self.now().primary_node, self.world.now.node("node4").uuid)
            text = " - INFO: Selected nodes for instance db.example.com via iallocator builtin: "
            self.move(MIGRATE, iallocator="builtin")
            self.assertTrue(any(line.startswith(text) for line in self.world.lines))
            self.assertNotEqual(self.where(), ["node4"])
            self.assertEqual(len(self.where()), 1)
            unmapped = [
                line for line in self.world.lines if line.startswith("* unmapping instance's")
            ]
            self.assertEqual(bool(unmapped), template == "rbd")
            self.assertEqual(self.world.faults(), [])

    def test_shared_calls(self) -> None:
        """Storage that all nodes reach is opened by both, then by one."""
        self.make("sharedfile", ("node2",), up=True)
        self.move(MIGRATE, target_node="node4")
        self.assertEqual(
            [each for each in self.made_calls() if each[1].startswith(("block", "drbd"))],
            [
                ("node4", "blockdev_close"),
                ("node2", "blockdev_open"),
                ("node4", "blockdev_open"),
                ("node2", "blockdev_close"),
                ("node4", "blockdev_open"),
            ],
        )
        opened = [
            arguments[2]
            for (_, call), arguments in zip(self.calls, self.arguments, strict=True)
            if call == "blockdev_open"
        ]
        self.assertEqual(opened, [False, False, True])

    def test_mode(self) -> None:
        """Live is what was asked for, or what the hypervisor is set to."""
        for parameters, live in (
            ({}, True),
            ({"mode": "non-live"}, False),
            ({"live": False}, False),
            ({"mode": "live"}, True),
        ):
            self.renew()
            self.make(up=True)
            self.move(MIGRATE, **parameters)
            ((_, _, _, sent),) = self.arguments_of("instance_migrate")
            self.assertIs(sent, live)
            ((_, _, told),) = self.arguments_of("instance_finalize_migration_src")
            self.assertIs(told, live)
            self.assertEqual(self.hook_variables()[0]["GANETI_MIGRATE_LIVE"], str(live))

    def arguments_of(self, procedure: str) -> list[Any]:
        """Returns the arguments of each call of a procedure."""
        return [
            arguments
            for (_, call), arguments in zip(self.calls, self.arguments, strict=True)
            if call == procedure
        ]

    def test_progress(self) -> None:
        """How far it is, how fast, and how long it takes; the job has no slot meanwhile."""
        self.renew(description=Description(migration_speed=16.0))
        self.make(up=True, hypervisor="kvm", beparams={"minmem": 1024, "maxmem": 1024})
        self.move(MIGRATE)
        self.assertWhole("node3")
        told = [line for line in self.world.progressed if "memory transfer" in line]
        self.assertEqual(len(told), 64 - len(self.logged("memory transfer progress")))
        self.assertEqual(
            told[9], " - INFO: * memory transfer progress: 14.06 %, 16.0 MiB/s, 55s left"
        )
        self.assertEqual(len(self.logged("memory transfer progress")), 1)

    def logged(self, text: str) -> list[str]:
        """Returns the log lines that contain a text."""
        return [line for line in self.world.lines if text in line]

    def test_postcopy(self) -> None:
        """The waiting goes on after the switch, until all memory is there."""
        self.renew(description=Description(migration_speed=16.0))
        self.make(up=True, hypervisor="kvm", hvparams={"migration_caps": "xbzrle:postcopy-ram"})
        self.move(MIGRATE)
        self.assertWhole("node3")
        self.assertEqual(len(self.logged("has switched to postcopy")), 1)
        self.assertEqual(len(self.logged("memory transfer complete")), 1)

    def test_less_memory(self) -> None:
        """An instance that uses more than the target has left gives some back, if it may."""
        self.make(up=True, beparams={"minmem": 128, "maxmem": 4096}, nodes=("node2", "node3"))
        self.take_memory("node3", 200)
        self.assertRefused(
            "Memory ballooning not allowed and not enough free memory to fit instance "
            f"{NAME} on target node node3 (have 200MB, need 4096MB)",
            "insufficient_resources",
            MIGRATE,
            instance_name=NAME,
            allow_runtime_changes=False,
        )
        self.move(MIGRATE)
        self.assertWhole("node3")
        self.assertIn("* setting instance memory to 200", self.world.lines)
        self.assertEqual(self.world.nodes.node("node3").state.instances[NAME].memory, 200)

    def test_memory_given_back(self) -> None:
        """If it fails later, the instance has its memory again."""
        self.make(up=True, beparams={"minmem": 128, "maxmem": 4096})
        self.take_memory("node3", 200)
        self.break_call("accept_instance", "node3")
        self.fails(MIGRATE, instance_name=NAME)
        self.assertWhole("node2")
        self.assertEqual(self.world.nodes.node("node2").state.instances[NAME].memory, 4096)

    def take_memory(self, node: str, left: int) -> None:
        """Fills a node's memory with something else."""
        self.run_on(node, "filler")
        held = self.world.nodes.node(node)
        used = replace(held.state.instances["filler"], memory=0)
        held.state.instances["filler"] = used
        hardware = held.hardware
        free = hardware.memory - hardware.memory_dom0 - hardware.memory_reserved
        held.state.instances["filler"] = replace(used, memory=free - left)

    def test_versions(self) -> None:
        """Between which versions it is safe."""
        for hypervisor, source, target, safe in (
            ("kvm", [7, 2, 0], [5, 0, 0], True),
            ("xen-pvm", [4, 11], [4, 11], True),
            ("xen-pvm", [4, 11], [4, 12], True),
            ("xen-hvm", [4, 11], [4, 13], False),
            ("xen-hvm", [4, 11], [4, 10], False),
            ("xen-hvm", [4, 11], [5, 11], False),
            ("xen-hvm", None, [5, 11], False),
            ("fake", None, None, True),
            ("fake", [1], [2], False),
        ):
            self.assertIs(is_safe(hypervisor, source, target), safe, (hypervisor, source, target))

    def test_unsafe_version(self) -> None:
        """Nothing is done unless that was asked for."""
        self.make(up=True)
        boot, memory = "b", {"memory_total": 9999, "memory_free": 9999, "memory_dom0": 1}
        about = {**memory, "cpu_total": 4, "hv_version": [3]}
        self.break_call("node_info", "node2", kind="garbage", payload=[boot, None, [about]])
        self.assertFails(
            "Unsupported migration between hypervisor versions ([3] to None)",
            MIGRATE,
            instance_name=NAME,
        )
        self.assertWhole("node2")
        self.move(MIGRATE, ignore_hvversions=True)
        self.assertWhole("node3")

    def test_long_resync(self) -> None:
        """Nodes give up waiting for a long sync; it is waited for all the same."""
        self.make(up=True, sizes=(4096,))
        self.world.nodes.world.set_pace(SyncPace(seconds=300, quick_seconds=300))
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, *rest: Any, **options: Any) -> Any:
            done = inner(targets, procedure, *rest, **options)
            if procedure == "drbd_disconnect_net" and not written:
                written.append(True)
                # While they are apart the guest writes over much of its disk.
                for node in ("node2",):
                    mirrors = self.world.nodes.world.mirrors
                    for minor in mirrors.of_node(node):
                        mirrors.written(node, minor)
            return done

        written: list[bool] = []
        self.world.nodes.call = call  # type: ignore[method-assign]
        self.move(MIGRATE)
        self.assertGreater(self.world.clock.seconds(), 1300)
        self.assertIn("- progress: ", "".join(self.world.lines))


class RefusalTests(MovingScene):
    """Each refusal says why, and changes nothing."""

    def refuses(self, text: str, code: str = "wrong_state", **parameters: object) -> None:
        """Expects that the migration is refused."""
        self.assertRefused(text, code, MIGRATE, instance_name=NAME, **parameters)

    def test_layout(self) -> None:
        """Without a mirror there is nowhere to go."""
        for template in ("plain", "file"):
            self.renew()
            self.make(template, ("node2",), up=True)
            self.refuses(f"Instance's disk layout '{template}' does not allow migrations")
            self.refuses(
                f"Instance's disk layout '{template}' does not allow migrations",
                allow_failover=True,
            )

    def test_arbitrary_node(self) -> None:
        """A mirror has one other end."""
        self.make(up=True)
        text = (
            "Instances with disk types drbd cannot be migrated to arbitrary nodes "
            "(neither an iallocator nor a target node can be passed)"
        )
        self.refuses(text, "wrong_input", target_node="node4")
        self.refuses(text, "wrong_input", iallocator="builtin")

    def test_targets(self) -> None:
        """A node that can't be taken."""
        self.make("sharedfile", ("node2",), up=True)
        self.refuses(f"Cannot migrate instance {NAME} to its primary (node2)", target_node="node2")
        self.refuses("Node 'nosuch' not known", "unknown_entity", target_node="nosuch")
        self.refuses(
            "Do not specify both, iallocator and node",
            "wrong_input",
            target_node="node3",
            iallocator="builtin",
        )
        self.world.run("OP_NODE_SET_PARAMS", node_name="node4", drained=True)
        self.refuses("Can't use drained node node4", target_node="node4")
        self.world.run("OP_NODE_SET_PARAMS", node_name="node4", drained=False, offline=True)
        self.refuses("Can't use offline node: node4", target_node="node4")

    def test_not_running(self) -> None:
        """An instance that is down is failed over, where that is allowed."""
        self.make()
        text = f"Can't migrate, please use failover: Instance {NAME} is not running"
        self.refuses(text)
        self.move(MIGRATE, allow_failover=True)
        self.assertWhole("node3", up=False)
        self.assertIn(
            " - INFO: Instance is marked down or offline, fallback allowed, switching to failover",
            self.world.lines,
        )

    def test_crashed(self) -> None:
        """One that is up and doesn't run as well."""
        self.make(up=True)
        self.crash()
        self.refuses(f"Can't migrate, please use failover: Instance {NAME} is not running")
        self.move(MIGRATE, allow_failover=True)
        self.assertWhole("node3")
        self.assertIn(
            " - INFO: Can't migrate, instance offline, fallback to failover", self.world.lines
        )

    def test_always_failover(self) -> None:
        """Some instances are never migrated."""
        self.make(up=True, beparams={"always_failover": True})
        self.move(MIGRATE)
        self.assertWhole("node3")
        self.assertIn("Failover instance db.example.com", self.world.lines)
        self.assertNotIn("instance_migrate", [name for _, name in self.calls])

    def test_source_offline(self) -> None:
        """A node that is marked offline can't send anything."""
        self.make(up=True)
        self.set_offline("node2")
        self.refuses("Can't migrate, please use failover: Node is marked offline")

    def test_both_parameters(self) -> None:
        """The old and the new one for the same."""
        self.make(up=True)
        self.refuses(
            "Only one of the 'live' and 'mode' parameters are accepted",
            "wrong_input",
            live=True,
            mode="live",
        )

    def test_memory(self) -> None:
        """Not even the least that it needs."""
        self.make(up=True, beparams={"minmem": 512, "maxmem": 512})
        running = self.world.nodes.node("node3").state.instances
        self.run_on("node3", "filler")
        free = 100
        hardware = self.world.nodes.node("node3").hardware
        total = hardware.memory - hardware.memory_dom0 - hardware.memory_reserved
        running["filler"] = replace(running["filler"], memory=total - free)
        self.refuses(
            f"Not enough memory on node node3 for migrating instance {NAME}: needed 512 MiB, "
            "available 100 MiB",
            "insufficient_resources",
        )

    def test_runs_there(self) -> None:
        """It is never started a second time."""
        self.make(up=True)
        self.run_on("node3")
        self.refuses(
            f"Instance '{NAME}' runs on node node3, which is not its primary node node2; it is "
            "not started a second time"
        )
        self.crash("node3")

    def check_nodes(self, procedure: str) -> None:
        """Here an instance may run twice: a test has done that."""

    def test_degraded(self) -> None:
        """A mirror that isn't whole."""
        self.make(up=True)
        throw(self.world.nodes, ["down", "node3", NAME])
        self.assertFails(
            "Disk 0 is degraded or not fully synchronized on target node, aborting migration",
            MIGRATE,
            instance_name=NAME,
        )
        self.assertIn(" - WARNING: Can't find disk on node node3", self.world.lines)
        self.assertEqual(self.where(), ["node2"])

    def test_bridge(self) -> None:
        """The other node lacks one."""
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n", nicparams={"mode": "bridged", "link": "br9"})
        self.make(up=False, nics=[nic])
        self.break_call("bridges_exist", "node3", text="Missing bridges br9")
        self.refuses(
            "Error checking bridges on destination node 'node3': Missing bridges br9",
            "environment_error",
        )

    def test_network(self) -> None:
        """A node whose group isn't connected to a network of the instance."""
        self.world.run("OP_NETWORK_ADD", network_name="lan", network="192.0.2.0/24")
        self.world.run("OP_GROUP_ADD", group_name="far")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="far", nodes=["node4"])
        lan = self.world.now.network("lan").uuid
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n", network=lan)
        self.make("diskless", ("node2",), nics=[nic])
        self.refuses(
            f"Network 'lan' of network interface 0 of instance '{NAME}' is not connected to node "
            "group 'far', which node node4 is in",
            target_node="node4",
        )
        self.modify(
            self.world.now.group("far").uuid,
            lambda group: replace(group, networks={lan: {"mode": "routed", "link": "x"}}),
        )
        self.refuses(
            f"Can't migrate, please use failover: Instance {NAME} is not running",
            target_node="node4",
        )

    def test_policy(self) -> None:
        """The group's policy, unless that is to be ignored."""
        self.world.run("OP_GROUP_ADD", group_name="far")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="far", nodes=["node4"])
        self.make("diskless", ("node2",), up=True)
        self.world.run(
            "OP_GROUP_SET_PARAMS", group_name="far", ipolicy={"disk-templates": ["drbd"]}
        )
        text = (
            "Instance does not meet target node group's (far) instance policy: Disk template "
            "diskless is not allowed (allowed templates drbd)"
        )
        self.refuses(text, "wrong_input", target_node="node4")
        self.move(MIGRATE, target_node="node4", ignore_ipolicy=True)
        self.assertEqual(self.where(), ["node4"])
        self.assertIn(f" - WARNING: {text}", self.world.lines)

    def test_mixed(self) -> None:
        """Disks that are mirrored in two ways."""
        self.make(up=True)
        (disk,) = self.world.now.disks_of(self.now())
        self.make("sharedfile", ("node2",), "other")
        (shared,) = self.world.now.instance("other").disks
        self.modify(shared, lambda now: replace(now, iv_name="disk/1"))
        self.modify(self.world.now.instance("other").uuid, lambda now: replace(now, disks=()))
        self.modify(self.now().uuid, lambda now: replace(now, disks=(disk.uuid, shared)))
        self.refuses(
            "Instance mixes internal and external mirroring. This is not currently supported."
        )


class LockTests(MovingScene):
    """What is locked, and what hooks are told."""

    def test_locks(self) -> None:
        """The instance's nodes; the node named; all of them for an allocator."""
        self.make()
        nodes = (sorted(self.world.now.nodes_of(self.now())), True)
        first = {"instance": ([NAME], True)}
        own = {**first, "node": nodes, "node-res": nodes}
        self.assertEqual(self.locks_of(MIGRATE, instance_name=NAME), own)
        self.make("sharedfile", ("node2",), "shared")
        named = (sorted(self.world.now.node(name).uuid for name in ("node2", "node4")), True)
        self.assertEqual(
            self.locks_of(MIGRATE, instance_name="shared", target_node="node4"),
            {"instance": (["shared"], True), "node": named, "node-res": named},
        )
        self.assertEqual(
            self.locks_of(MIGRATE, instance_name="shared"),
            {"instance": (["shared"], True), "node": ([], True), "node-res": ([], True)},
        )

    def test_released(self) -> None:
        """With an allocator the others are given back once it has chosen."""
        self.make("sharedfile", ("node2",), up=True)
        found: list[object] = []

        def beside() -> None:
            target = self.arguments[-1]
            if self.calls[-1][1] == "accept_instance" and target:
                chosen = self.calls[-1][0]
                free = next(
                    node.name
                    for node in self.world.now.nodes.values()
                    if node.name not in ("node2", chosen)
                )
                self.world.run("OP_TAGS_SET", kind="node", name=free, tags=["beside"])
                found.append(free)
            else:
                self.world.meanwhile.append(beside)

        self.world.meanwhile.append(beside)
        self.move(MIGRATE, iallocator="builtin")
        self.assertEqual(len(found), 1)

    def test_watcher(self) -> None:
        """A start or a stop meanwhile waits, and finds it on its new node."""
        self.make(up=True)
        waited: list[str] = []

        def beside() -> None:
            for op_id in ("OP_INSTANCE_STARTUP", "OP_INSTANCE_SHUTDOWN"):
                self.assertRaises(MustWait, self.world.run, op_id, instance_name=NAME)
                waited.append(op_id)

        self.world.meanwhile.append(beside)
        self.move(MIGRATE)
        self.assertEqual(len(waited), 2)
        self.forget()
        self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        self.assertNotIn("instance_start", [name for node, name in self.calls if node == "node2"])
        self.assertWhole("node3")

    def test_hooks(self) -> None:
        """They run on all nodes of the instance; after it the nodes are those of that time."""
        self.make(up=True)
        self.move(MIGRATE)
        ran = [
            node
            for (node, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name == "hooks_runner" and arguments[0] == "instance-migrate"
        ]
        self.assertEqual(sorted(ran), sorted(["node1", "node2", "node3"] * 2))
        before, after = self.hook_variables()
        self.assertEqual(
            {key: before[f"GANETI_{key}"] for key in _HOOK_KEYS},
            {
                "MIGRATE_LIVE": "True",
                "MIGRATE_CLEANUP": "False",
                "ALLOW_RUNTIME_CHANGES": "True",
                "OLD_PRIMARY": "node2",
                "NEW_PRIMARY": "node3",
                "OLD_SECONDARY": "node3",
                "NEW_SECONDARY": "node2",
            },
        )
        self.assertEqual(
            {key: after[f"GANETI_POST_{key}"] for key in _HOOK_KEYS[3:]},
            {
                "OLD_PRIMARY": "node3",
                "NEW_PRIMARY": "node3",
                "OLD_SECONDARY": "node2",
                "NEW_SECONDARY": "node3",
            },
        )

    def test_hooks_shared(self) -> None:
        """There are no secondary nodes."""
        self.make("sharedfile", ("node2",), up=True)
        self.move(MIGRATE, target_node="node4")
        before = self.hook_variables()[0]
        self.assertEqual(before["GANETI_OLD_SECONDARY"], "")
        self.assertEqual(before["GANETI_NEW_PRIMARY"], "node4")


_HOOK_KEYS = (
    "MIGRATE_LIVE",
    "MIGRATE_CLEANUP",
    "ALLOW_RUNTIME_CHANGES",
    "OLD_PRIMARY",
    "NEW_PRIMARY",
    "OLD_SECONDARY",
    "NEW_SECONDARY",
)
