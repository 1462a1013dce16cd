"""OP_INSTANCE_SET_PARAMS changes parameters, state and place of an instance."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Cluster, Node
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, exclusive, shared
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.simulation.description import DescribedNode, Description
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.node import OSDefinition
from ganeti_masterd.simulation.state import Hardware
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.instances.modifying import MODIFY, TEMPLATES, ModifyCase, plain
from tests.logical_units.made import made_instance
from tests.logical_units.test_instance_disks_life import NAME
from tests.logical_units.world import World

DEMO = OSDefinition(
    "demo", variants=("plain", "fancy"), parameters=(("fs", "x"), ("dhcp", "x"), ("pw", "x"))
)
DESCRIPTION = Description(
    systems=(DEMO, OSDefinition("noop", api_versions=(5, 10))),
    default=DescribedNode(hardware=Hardware(memory=4096, memory_dom0=1024, bridges=("br0",))),
)


class ParameterCase(ModifyCase):
    """Base: nodes with little memory and an OS that takes parameters; a mirrored instance."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World(
            disk_templates=TEMPLATES, description=DESCRIPTION, hypervisors=("fake", "kvm")
        )
        made_instance(self.world, "drbd", os="demo+plain")

    def change_node(self, name: str, **about: Any) -> None:
        """Changes a node in the configuration."""

        def changed(node: Node) -> Node:
            return replace(node, **about)

        self.world.store.change(self.world.now.node(name).uuid, changed)

    def change_cluster(self, **about: Any) -> None:
        """Changes the cluster."""

        def changed(cluster: Cluster) -> Cluster:
            return replace(cluster, **about)

        self.world.store.change(self.world.now.cluster.uuid, changed)


class ArgumentTests(ParameterCase):
    """What is refused before anything is asked, and what is locked."""

    def test_nothing(self) -> None:
        """At least one change is needed."""
        self.assertEqual(self.refusal(), ("No changes submitted", "wrong_input"))
        self.assertEqual(self.refusal(force=True), ("No changes submitted", "wrong_input"))

    def test_conversion_alone(self) -> None:
        """With other disks, another primary, or two ways to find a node there is none."""
        self.assertEqual(
            self.refusal(disk_template="file", disks=[["remove", 0, {}]]),
            (
                "Disk template conversion and other disk changes not supported at the same time",
                "wrong_input",
            ),
        )
        self.assertEqual(
            self.refusal(disk_template="file", pnode="node3"),
            (
                "Disk template conversion and a new primary node are not supported at the same "
                "time",
                "wrong_input",
            ),
        )
        self.assertEqual(
            self.refusal(disk_template="drbd", remote_node="node4", iallocator="hail"),
            ("Do not specify both, iallocator and node", "wrong_input"),
        )

    def test_provider_alone(self) -> None:
        """Parameters of a provider without a conversion would do nothing."""
        text, code = self.refusal(ext_params={"provider": "x"}, beparams={"vcpus": 2})
        self.assertIn("Parameters of an external storage provider are given by the disks", text)
        self.assertEqual(code, "wrong_input")

    def test_forthcoming(self) -> None:
        """A planned instance isn't changed."""
        self.world.store.change(
            self.instance.uuid, lambda instance: replace(instance, forthcoming=True)
        )
        text, code = self.refusal(beparams={"vcpus": 2})
        self.assertIn("forthcoming instances not supported", text)
        self.assertEqual(code, "wrong_state")

    def test_locks(self) -> None:
        """The nodes before and after; for disks that are made their resources too."""
        now = self.world.now
        group = {Level.NODEGROUP: shared({now.node("node2").group})}
        own = exclusive({now.node("node2").uuid, now.node("node3").uuid})
        more = exclusive({now.node(name).uuid for name in ("node2", "node3", "node4")})
        everyone = exclusive(set(now.nodes))
        self.world.run("OP_INSTANCE_SET_PARAMS", instance_name=NAME, disks=[["detach", 0, {}]])
        disk = next(uuid for uuid in now.disks if uuid != "d-web.example.com")
        only = exclusive({now.node("node2").uuid})
        attach: dict[str, Any] = {"disks": [["attach", -1, {"uuid": disk}]]}
        self.assertEqual(
            self.locks(MODIFY, **attach),
            {
                Level.INSTANCE: exclusive(NAME),
                Level.NODE: own,
                Level.NODE_RES: own,
                **group,
            },
        )
        self.assertEqual(self.locks(MODIFY, beparams={"vcpus": 1})[Level.NODE], only)
        self.modify(**attach)
        for changes, nodes, resources in (
            ({"beparams": {"vcpus": 1}}, own, None),
            ({"disks": [["remove", 0, {}]]}, own, None),
            ({"disks": [["add", -1, {"size": 1}]]}, own, own),
            ({"pnode": "node4"}, more, None),
            ({"disk_template": "plain"}, own, own),
            ({"disk_template": "drbd", "remote_node": "node4"}, more, more),
            ({"disk_template": "drbd"}, everyone, everyone),
        ):
            wanted: dict[Level, object] = {
                Level.INSTANCE: exclusive(NAME),
                Level.NODE: nodes,
                **group,
            }
            if resources is not None:
                wanted[Level.NODE_RES] = resources
            self.assertEqual(self.locks(MODIFY, **changes), wanted, changes)


class BackendTests(ParameterCase):
    """Backend parameters, memory and the policy."""

    def test_changed(self) -> None:
        """The result has them as given; one transaction writes all."""
        before = self.world.now
        result = self.modify(
            beparams={"memory": "256M", "vcpus": 2},
            offline=True,
        )
        self.assertEqual(
            result, [("be/memory", "256M"), ("be/vcpus", 2), ("admin_state", "offline")]
        )
        own = {"maxmem": 256, "minmem": 256, "vcpus": 2}
        self.assertEqual(dict(self.instance.beparams), own)
        self.assertEqual(self.instance.serial_no, before.instance(NAME).serial_no + 1)
        self.assertEqual(self.world.now.header.serial_no, before.header.serial_no + 1)

    def test_default_and_auto(self) -> None:
        """One goes back to the cluster's value, or has it from now on."""
        self.modify(beparams={"maxmem": 512, "minmem": 256, "vcpus": 4})
        self.assertEqual(
            self.modify(beparams={"maxmem": "auto", "minmem": "default", "vcpus": None}),
            [("be/maxmem", "auto"), ("be/minmem", "default"), ("be/vcpus", None)],
        )
        self.assertEqual(dict(self.instance.beparams), {"maxmem": 128})

    def test_refused(self) -> None:
        """What makes no sense."""
        text, code = self.refusal(beparams={"maxmem": 100})
        self.assertEqual(code, "wrong_input")
        self.assertIn("minmem (128) must not be larger than maxmem (100)", text)
        self.assertEqual(self.refusal(beparams={"color": 1})[0], "Unknown parameter 'color'")
        self.assertEqual(self.instance.beparams, {})

    def test_memory(self) -> None:
        """The nodes must have it, the secondary too if it is to take over; force helps."""
        self.assertEqual(
            self.refusal(beparams={"maxmem": 4000}),
            (
                "This change will prevent the instance from starting, due to 928 MB of memory "
                "missing on its primary node",
                "insufficient_resources",
            ),
        )
        self.assertEqual(
            self.calls(beparams={"maxmem": 256}),
            [
                ("node2", "instance_info"),
                ("node2", "node_info"),
                ("node3", "node_info"),
                ("node2", "instance_metadata_modify"),
            ],
        )
        made_instance(
            self.world, "diskless", "fat.example.com", nodes=("node3",), beparams={"maxmem": 3000}
        )
        self.world.run("OP_INSTANCE_STARTUP", instance_name="fat.example.com")
        self.assertEqual(
            self.refusal(beparams={"maxmem": 1024}),
            (
                "This change will prevent the instance from failover to its secondary node node3, "
                "due to not enough memory",
                "wrong_state",
            ),
        )
        self.modify(beparams={"maxmem": 1024, "auto_balance": False})
        self.modify(beparams={"maxmem": 4000}, force=True)

    def test_memory_unknown(self) -> None:
        """A secondary that can't say refuses, a primary only warns; one offline isn't asked."""
        self.break_call("node_info", "node3")
        self.assertEqual(
            self.refusal(beparams={"maxmem": 256}),
            ("Can't get info from secondary node node3: broken", "wrong_state"),
        )
        self.change_node("node3", offline=True, master_candidate=False)
        self.drop_certificate("node3")
        self.break_call("node_info", "node2")
        self.modify(beparams={"maxmem": 256})
        self.assertIn(" - WARNING: Not asked for their memory, as offline: node3", self.world.lines)
        self.assertIn(
            " - WARNING: Can't get info from primary node node2: broken", self.world.lines
        )

    def drop_certificate(self, name: str) -> None:
        """Takes away the certificate of a node that is no candidate."""
        uuid = self.world.now.node(name).uuid
        kept = {key: v for key, v in self.world.now.cluster.candidate_certs.items() if key != uuid}
        self.change_cluster(candidate_certs=kept)

    def test_policy(self) -> None:
        """All sizes count as soon as one changes; only ignore_ipolicy helps, not force."""
        group = self.world.now.group("default")
        for force in (False, True):
            self.assertEqual(
                self.refusal(beparams={"minmem": 1}, force=force),
                (
                    f"Instance allocation to group {group.uuid} (default) violates policy: "
                    "memory-size value 4 is not in range [128, 32768]",
                    "wrong_input",
                ),
            )
        self.modify(beparams={"minmem": 1}, ignore_ipolicy=True)
        self.refusal(beparams={"vcpus": 2})
        self.modify(os_name="demo+fancy")

    def test_runtime_memory(self) -> None:
        """A running instance gets it at once."""
        self.assertEqual(
            self.refusal(runtime_mem=100),
            (f"Instance {NAME} is not running", "wrong_state"),
        )
        self.modify(beparams={"maxmem": 256})
        self.start()
        self.assertEqual(
            self.refusal(runtime_mem=20),
            (
                f"Instance {NAME} must have memory between 128 and 256 MB of memory unless "
                "--force is given",
                "wrong_input",
            ),
        )
        self.assertEqual(self.modify(runtime_mem=200), [("runtime_memory", 200)])
        running = self.world.nodes.node("node2").state.instances
        self.assertEqual(running[NAME].memory, 200)
        self.modify(runtime_mem=20, force=True)
        self.assertEqual(running[NAME].memory, 20)
        self.assertEqual(
            self.refusal(runtime_mem=3500, force=True),
            (
                f"Not enough memory on node node2 for ballooning memory for instance {NAME}: "
                "needed 3480 MiB, available 3052 MiB",
                "insufficient_resources",
            ),
        )
        self.break_call("instance_balloon_memory")
        self.assertEqual(
            self.refusal(runtime_mem=200, beparams={"vcpus": 2}),
            (f"Cannot modify instance runtime memory ({NAME}, to 200 MiB): broken",),
        )
        self.assertNotIn("vcpus", self.instance.beparams)


class HypervisorTests(ParameterCase):
    """Hypervisor parameters."""

    def test_global(self) -> None:
        """Those of whole nodes are refused, with a default too."""
        for value in ("live", "default"):
            text, code = self.refusal(hvparams={"migration_mode": value})
            self.assertEqual(
                text,
                "The following hypervisor parameters are global and cannot be customized at "
                "instance level, please modify them at cluster level: migration_mode",
            )
            self.assertEqual(code, "wrong_input")

    def kvm(self) -> None:
        """Makes it an instance under KVM."""
        self.world.store.change(
            self.instance.uuid, lambda instance: replace(instance, hypervisor="kvm")
        )

    def test_changed(self) -> None:
        """They are asked of all nodes; a secondary that is offline is not."""
        self.kvm()
        self.assertEqual(
            self.calls(hvparams={"boot_order": "network"}),
            [
                ("node2", "hypervisor_validate_params"),
                ("node3", "hypervisor_validate_params"),
                ("node2", "instance_metadata_modify"),
            ],
        )
        self.assertEqual(self.instance.hvparams, {"boot_order": "network"})
        self.world.run("OP_NODE_SET_PARAMS", node_name="node3", offline=True, force=True)
        self.assertEqual(
            self.modify(hvparams={"boot_order": "default"}), [("hv/boot_order", "default")]
        )
        self.assertEqual(self.instance.hvparams, {})
        self.assertEqual(
            self.modify(os_name="demo+fancy", osparams={"fs": "xfs"}),
            [("os", "demo+fancy"), ("os/fs", "xfs")],
        )

    def test_refused(self) -> None:
        """By the rules, by a node, or as there aren't enough processors."""
        self.kvm()
        self.assertIn("fails syntax check", str(self.refusal(hvparams={"boot_order": "x"})[0]))
        self.assertEqual(
            self.refusal(hvparams={"cpu_mask": "0:1:2"}, beparams={"vcpus": 2}),
            ("Number of vCPUs [2] does not match the CPU mask [0:1:2]", "wrong_input"),
        )
        self.assertEqual(
            self.refusal(hvparams={"cpu_mask": "0-99"}),
            ("Node node2 has 16 physical CPUs, but 100 are required", "insufficient_resources"),
        )
        self.break_call("hypervisor_validate_params", "node3")
        self.assertEqual(
            self.refusal(hvparams={"boot_order": "network"}),
            ("Hypervisor parameter validation failed on node node3: broken", "environment_error"),
        )
        self.assertEqual(self.instance.hvparams, {})


class SystemTests(ParameterCase):
    """The operating system and its parameters."""

    def test_name(self) -> None:
        """It is asked of the nodes, and listed."""
        self.assertEqual(self.modify(os_name="demo+fancy"), [("os", "demo+fancy")])
        self.assertEqual(self.instance.os, "demo+fancy")
        text, code = self.refusal(os_name="nosuch")
        self.assertIn("OS Parameters validation failed on node node2: ", text)
        self.assertEqual(code, "environment_error")
        self.assertEqual(self.modify(os_name="nosuch", force=True), [("os", "nosuch")])

    def test_blacklisted(self) -> None:
        """One that may not be installed isn't taken."""
        self.change_cluster(blacklisted_os=("noop",))
        self.assertEqual(self.refusal(os_name="noop")[1], "wrong_state")

    def test_parameters(self) -> None:
        """Private ones are never shown: not in the result, the log, or to hooks."""
        result = self.modify(osparams={"fs": "xfs"}, osparams_private={"pw": "s3cret"})
        self.assertEqual(result, [("os/fs", "xfs"), ("os_private/pw", "Private(?, descr='pw')")])
        self.assertEqual(self.instance.osparams, {"fs": "xfs"})
        self.assertEqual(self.instance.osparams_private, {"pw": "s3cret"})
        unit = self.checked(osparams_private={"pw": "other"})
        told = str([self.world.lines, result, unit.hook_environment(self.world.now)])
        self.assertNotIn("s3cret", told)
        self.assertNotIn("other", told)
        self.modify(osparams={"fs": None}, osparams_private={"pw": "default"})
        self.assertEqual((self.instance.osparams, self.instance.osparams_private), ({}, {}))

    def checked(self, **changes: Any) -> Any:
        """Returns the unit of a change after its checks."""
        unit = unit_for(decode_opcode({"OP_ID": MODIFY, "instance_name": NAME, **changes}))
        assert unit is not None
        unit.expand(self.world.now)
        ctx = SynchronousContext(self.world.now, self.world.nodes, job_id=9, clock=self.world.clock)
        unit.check(ctx)
        return unit

    def test_refused(self) -> None:
        """By the node's script, or as they are in two visibilities."""
        self.assertEqual(
            self.refusal(osparams={"nosuch": "1"}),
            (
                "OS Parameters validation failed on node node2: The following parameters are not "
                "supported by the OS demo: nosuch",
                "environment_error",
            ),
        )
        text, _ = self.refusal(osparams={"pw": "1"}, osparams_private={"pw": "2"})
        self.assertIn("Cannot assign multiple values to OS parameters", text)
        self.modify(osparams_private={"pw": "2"})
        text, _ = self.refusal(osparams={"pw": "1"})
        self.assertIn("Cannot assign multiple values to OS parameters", text)

    def test_hooks(self) -> None:
        """They see the new sizes, the new template and the memory; both phases on the old nodes."""
        unit = self.checked(
            beparams={"maxmem": 200}, nics=[["add", -1, {"ip": "10.0.0.9", "mode": "routed"}]]
        )
        told = unit.hook_environment(self.world.now)
        self.assertEqual(told["INSTANCE_MAXMEM"], 200)
        self.assertEqual(told["INSTANCE_NIC0_IP"], "10.0.0.9")
        nodes = tuple(self.world.now.node(name).uuid for name in ("node1", "node2", "node3"))
        self.assertEqual(unit.hook_nodes(self.world.now).before, nodes)
        self.assertEqual(unit.hook_nodes(self.world.now).after, nodes)
        told = self.checked(disk_template="plain").hook_environment(self.world.now)
        self.assertEqual(told["NEW_DISK_TEMPLATE"], "plain")
        self.start()
        told = self.checked(runtime_mem=128).hook_environment(self.world.now)
        self.assertEqual(told["RUNTIME_MEMORY"], 128)


class StateTests(ParameterCase):
    """Offline, online, and another primary node."""

    def test_offline(self) -> None:
        """There and back; twice is fine; the disks count as inactive."""
        for _ in range(2):
            self.assertEqual(self.modify(offline=True), [("admin_state", "offline")])
            self.assertEqual(self.instance.admin_state, "offline")
            self.assertFalse(self.instance.disks_active)
        for _ in range(2):
            self.assertEqual(self.modify(offline=False), [("admin_state", "down")])
            self.assertEqual(self.instance.admin_state, "down")

    def test_offline_with_active_disks(self) -> None:
        """Its disks are shut down, as they count as inactive from then on."""
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.assertTrue(self.instance.disks_active)
        seen: list[str] = []
        call = self.world.nodes.call

        def noted(targets: Any, procedure: str, *more: Any, **options: Any) -> Any:
            seen.append(procedure)
            return call(targets, procedure, *more, **options)

        self.patch(self.world.nodes, "call", noted)
        self.modify(offline=True)
        self.assertFalse(self.instance.disks_active)
        self.assertIn("blockdev_shutdown", seen)

    def test_running(self) -> None:
        """One that is to run, or does, changes neither way."""
        self.start()
        state = f"Instance '{NAME}' is marked to be up, "
        self.assertEqual(
            self.refusal(offline=True),
            (state + "can't change to offline without being down first", "wrong_state"),
        )
        self.assertEqual(
            self.refusal(offline=False),
            (
                state + "can't change to online (down) without being offline first",
                "wrong_state",
            ),
        )
        self.world.store.change(
            self.instance.uuid, lambda instance: replace(instance, admin_state="down")
        )
        self.assertEqual(
            self.refusal(offline=True),
            (
                f"Instance {NAME} is running, can't change to offline without being down first",
                "wrong_state",
            ),
        )

    def test_primary(self) -> None:
        """To the secondary; it is in the result, and written with all else."""
        serial = self.world.now.header.serial_no
        self.assertEqual(
            self.modify(pnode="node3", beparams={"vcpus": 2}),
            [("be/vcpus", 2), ("pnode", "node3")],
        )
        self.assertEqual(self.world.now.header.serial_no, serial + 1)
        self.assertEqual(self.instance.primary_node, self.world.now.node("node3").uuid)
        self.assertEqual(self.modify(pnode="node3"), [])

    def test_primary_refused(self) -> None:
        """A node that can't be, or that lacks the disks; an instance that runs."""
        self.assertEqual(
            self.refusal(pnode="node4"),
            (
                f"Disks of instance {NAME} are not on node node4: disk/0; move the instance, or "
                "use --force if they are there in truth",
                "wrong_state",
            ),
        )
        self.assertEqual(self.refusal(pnode="nosuch")[1], "unknown_entity")
        self.change_node("node4", drained=True)
        self.assertEqual(
            self.refusal(pnode="node4", force=True), ("Can't use drained node node4", "wrong_state")
        )
        self.change_node("node4", drained=False, vm_capable=False)
        self.assertEqual(
            self.refusal(pnode="node4"), ("Can't use non-vm_capable node node4", "wrong_state")
        )
        self.change_node("node4", vm_capable=True)
        self.start()
        self.assertEqual(
            self.refusal(pnode="node3"), ("Instance is still running on node2", "wrong_state")
        )
        self.world.run("OP_INSTANCE_SHUTDOWN", instance_name=NAME)
        self.break_call("instance_info")
        self.modify(pnode="node3")
        self.assertIn(
            " - WARNING: Can't get instance runtime information: broken", self.world.lines
        )

    def test_primary_of_new_disks(self) -> None:
        """A disk that is made in the same opcode has to be there too."""
        self.modify(disks=[["remove", 0, {}]])
        add = ["add", -1, {"size": 16, "dev_type": "plain"}]
        text, _ = self.refusal(pnode="node3", disks=[add])
        self.assertIn("are not on node node3: disk/0", text)
        self.assertEqual(self.disks, ())

    def test_metadata(self) -> None:
        """The metadata daemon is told; that it can't be is a line in the log."""
        self.break_call("instance_metadata_modify")
        self.modify(beparams={"vcpus": 2})
        self.assertEqual(
            self.world.lines[-1], f"Could not update metadata for instance '{NAME}': broken"
        )

    def test_in_part(self) -> None:
        """A failure after some changes says which of them stay."""
        fault = SimulatedFault(kind="error", call="blockdev_create", after=6, text="broken")
        self.world.nodes.faults.add(fault)
        error = self.refused(
            MODIFY,
            disks=[["add", -1, {"size": 16}], ["add", -1, {"size": 32}]],
            beparams={"vcpus": 2},
        )
        self.assertIsInstance(error, OpExecError)
        self.assertEqual([disk.size for disk in self.disks], [64, 16])
        self.assertEqual(self.instance.beparams, {})
        self.assertEqual(
            self.world.lines[-2:],
            [
                f" - WARNING: Instance {NAME} is changed in part; done and kept: disk/1",
                "      Hint: Repeat the command without these changes",
            ],
        )

    def test_killed(self) -> None:
        """A kill leaves all as it was, or writes all."""

        def check(where: str) -> None:
            changed = (self.instance.beparams.get("vcpus"), self.instance.admin_state)
            self.assertIn(changed, ((None, "down"), (2, "offline")), where)

        self.killed_everywhere(plain, check, beparams={"vcpus": 2}, offline=True)
