"""Tests of OP_CLUSTER_SET_PARAMS: checks in the configuration and on nodes, and effects."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Nic
from ganeti_masterd.errors import GenericError, OpExecError, OpPrereqError
from ganeti_masterd.journal.rows import ConfigRow
from ganeti_masterd.locking.levels import Level, all_shared
from ganeti_masterd.logical_units.cluster import set_params
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.cluster import with_instance
from tests.logical_units.scene import UnitScene
from tests.logical_units.world import World

OP = "OP_CLUSTER_SET_PARAMS"


class ParamsScene(UnitScene):
    """Base of tests that set up a cluster and check refusals."""

    def setUp(self) -> None:
        super().setUp()
        self.nodes.answers.update(
            {"vg_list": {"xenvg": 30000.0, "other": 30000.0}, "drbd_helper": "/bin/true"}
        )

    def with_cluster(self, **change: Any) -> None:
        """Changes the cluster before the test."""
        self.ctx.change(self.ctx.snapshot().cluster.uuid, lambda now: replace(now, **change))

    def with_instance(self, *arguments: Any, **more: Any) -> None:
        """Adds an instance before the test."""
        snapshot = with_instance(self.ctx.snapshot(), *arguments, **more)
        self.ctx = type(self.ctx)(snapshot, self.nodes)

    def refused(self, text: str, code: str = "wrong_input", **parameters: Any) -> None:
        """Checks that the opcode is refused before it changes anything."""
        serial = self.ctx.snapshot().header.serial_no
        error = self.assertRaises(OpPrereqError, self.run_unit, OP, **parameters)
        self.assertIn(text, error.args[0])
        self.assertEqual(error.args[1], code)
        self.assertEqual(self.ctx.snapshot().header.serial_no, serial)

    @property
    def cluster(self) -> Any:
        """The cluster as it is now."""
        return self.ctx.snapshot().cluster


class ConsistencyTests(ParamsScene):
    """Parameters that conflict with an object are refused, naming the object."""

    def without(self, *templates: str) -> list[str]:
        """Returns the enabled disk templates without some."""
        return [t for t in self.cluster.enabled_disk_templates if t not in templates]

    def allow(self, *templates: str) -> dict[str, Any]:
        """Returns a policy that allows only these templates."""
        return {"disk-templates": list(templates)}

    def test_template_in_use(self) -> None:
        """A template that a disk has stays enabled."""
        self.with_instance("one", ["node1"], template="file")
        self.refused(
            "Cannot disable disk template 'file', because there is at least one disk using it:\n"
            " * disk d-one (on one)",
            "wrong_state",
            enabled_disk_templates=self.without("file"),
            ipolicy=self.allow("diskless"),
        )

    def test_diskless_in_use(self) -> None:
        """A template of instances without disks stays enabled, too."""
        self.refused(
            "Cannot disable disk template 'diskless'",
            "wrong_state",
            enabled_disk_templates=self.without("diskless"),
            ipolicy=self.allow("plain"),
        )

    def test_template_disabled(self) -> None:
        """An unused template can be disabled if the policy doesn't allow it either."""
        self.run_unit(
            OP,
            enabled_disk_templates=self.without("file"),
            ipolicy=self.allow("diskless", "plain"),
        )
        self.assertNotIn("file", self.cluster.enabled_disk_templates)

    def test_hypervisor_in_use(self) -> None:
        """A hypervisor that an instance has stays enabled."""
        self.with_instance("one", ["node1"], hypervisor="fake")
        self.refused(
            "Cannot disable hypervisor(s) fake, because there is at least one instance using"
            " them: one",
            "wrong_state",
            enabled_hypervisors=["kvm"],
        )

    def test_volume_group(self) -> None:
        """Templates on LVM need a volume group, and disks on it keep it."""
        self.refused("Cannot unset volume group if lvm-based disk templates", vg_name="")
        self.with_instance("one", ["node1", "node2"], template="drbd")
        self.with_cluster(
            enabled_disk_templates=("diskless",),
            ipolicy={**self.cluster.ipolicy, "disk-templates": ["diskless"]},
        )
        self.refused("Cannot disable lvm storage while lvm-based instances exist", vg_name="")
        self.with_cluster(volume_group_name=None)
        self.refused(
            "Please specify a volume group when enabling lvm-based",
            enabled_disk_templates=["diskless", "plain"],
        )

    def test_drbd_helper(self) -> None:
        """DRBD keeps its helper, and needs one to be enabled."""
        self.refused(
            "Cannot disable drbd helper while DRBD is enabled.", "wrong_state", drbd_helper=""
        )
        self.with_instance("one", ["node1", "node2"], template="drbd")
        self.with_cluster(
            enabled_disk_templates=("diskless",),
            ipolicy={**self.cluster.ipolicy, "disk-templates": ["diskless"]},
        )
        self.refused("while drbd-based instances exist", drbd_helper="")
        self.with_cluster(drbd_usermode_helper=None)
        self.refused(
            "Cannot enable DRBD without a DRBD usermode helper set.",
            "wrong_state",
            enabled_disk_templates=["diskless", "drbd"],
        )

    def test_without_helper(self) -> None:
        """If DRBD never had a helper, other parameters can still be set."""
        self.with_cluster(drbd_usermode_helper=None)
        self.run_unit(OP, max_running_jobs=7)
        self.assertEqual(self.cluster.max_running_jobs, 7)

    def test_nics(self) -> None:
        """A routed NIC needs an address, a bridged one a bridge."""
        self.with_instance("one", ["node1"], nics=[Nic(mac="aa:00:00:00:00:01", uuid="n")])
        self.refused(
            "Instance one, nic/0: routed NIC with no ip address", nicparams={"mode": "routed"}
        )
        self.with_instance(
            "two",
            ["node1"],
            nics=[
                Nic(mac="aa:00:00:00:00:02", uuid="m", nicparams={"mode": "bridged", "link": ""})
            ],
        )
        self.refused("Instance two, nic/0: Missing bridged NIC link", nicparams={"link": "br1"})

    def test_disk_access(self) -> None:
        """A hypervisor must be able to open its disks."""
        self.with_instance("one", ["node1"], template="rbd")
        self.refused(
            "Instance one: cannot use 'userspace' access setting with fake hypervisor and rbd",
            diskparams={"rbd": {"access": "userspace"}},
        )

    def test_storage_folders(self) -> None:
        """A folder of enabled storage can't be unset; one of disabled storage gives a warning."""
        self.refused("Unsetting the 'file' storage directory", file_storage_dir="")
        self.run_unit(OP, shared_file_storage_dir="/shared")
        self.assertIn(
            " - WARNING: Specified a sharedfile storage directory, although sharedfile storage is"
            " not enabled.",
            self.ctx.lines,
        )

    def test_policy_breakers(self) -> None:
        """Instances that break the new policy are named, those that broke the old one not."""
        self.with_instance("one", ["node1"], template="file", size=2048)
        self.with_instance("two", ["node2"], template="file", size=9999999)
        bounds = self.cluster.ipolicy["minmax"][0]
        most = {**bounds["max"], "disk-size": 1024}
        self.run_unit(OP, ipolicy={"minmax": [{"min": bounds["min"], "max": most}]})
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: After the ipolicy change the following instances violate them: one",
            ],
        )

    def test_allocator(self) -> None:
        """A default allocator is one that is installed, or the one built in."""
        self.patch(set_params, "ALLOCATOR_FOLDERS", (self.mktemp(),))
        self.refused("Invalid default iallocator script 'nosuch'", default_iallocator="nosuch")
        self.refused("script '../x'", default_iallocator="../x")
        self.run_unit(OP, default_iallocator="builtin")
        self.assertEqual(self.cluster.default_iallocator, "builtin")


class NodeCheckTests(ParamsScene):
    """Parameters that nodes don't support are refused, naming the node."""

    def test_volume_group(self) -> None:
        """A volume group must be on every node, and large enough; silent nodes are let be."""
        self.refused(
            "Error on node 'node1': volume group 'third' missing",
            "environment_error",
            vg_name="third",
        )
        self.nodes.answers["node2", "vg_list"] = {"other": 100.0}
        self.refused(
            "Error on node 'node2': volume group 'other' too small (20480 MiB required, 100 MiB"
            " found)",
            "environment_error",
            vg_name="other",
        )
        self.nodes.answers["node2", "vg_list"] = Failed("dead")
        self.run_unit(OP, vg_name="other")
        self.assertIn(
            " - WARNING: Error while gathering data on node node2 (ignoring node): dead",
            self.ctx.lines,
        )

    def test_drbd_helper(self) -> None:
        """Every node must answer and have the helper."""
        self.refused(
            "Error on node 'node1': drbd helper is /bin/true",
            "environment_error",
            drbd_helper="/bin/false",
        )
        self.nodes.answers["node3", "drbd_helper"] = Failed("dead")
        self.refused(
            "Error checking drbd helper on node 'node3': dead",
            "environment_error",
            drbd_helper="/bin/true",
        )
        node = self.ctx.snapshot().node("node3")
        self.ctx.change(node.uuid, lambda now: replace(now, offline=True, master_candidate=False))
        self.run_unit(OP, drbd_helper="/bin/true")
        self.assertIn(" - INFO: Not checking drbd helper on offline node node3", self.ctx.lines)
        self.assertIn("Cluster DRBD helper already in desired state, not changing", self.ctx.lines)

    def test_hypervisors(self) -> None:
        """Nodes get complete parameter sets; if a node refuses one, the opcode fails."""
        self.run_unit(
            OP, hvparams={"fake": {"migration_mode": "non-live"}}, os_hvp={"os": {"fake": {}}}
        )
        self.assertEqual(
            [a.arguments for a in self.nodes.asked if a.procedure == "hypervisor_validate_params"],
            [["fake", {"migration_mode": "non-live"}]] * 6,
        )
        self.nodes.answers["node2", "hypervisor_validate_params"] = Failed("no")
        error = self.assertRaises(
            OpExecError, self.run_unit, OP, hvparams={"fake": {"migration_mode": "live"}}
        )
        self.assertIn("Hypervisor parameter validation failed on node node2", str(error))

    def test_systems(self) -> None:
        """The master checks parameters of systems, private ones too, if it has the system."""
        self.nodes.answers["os_validate"] = False
        self.run_unit(OP, osparams={"os": {"a": "1"}}, osparams_private_cluster={"os": {"p": "x"}})
        self.assertEqual(
            [(a.node, a.arguments) for a in self.nodes.asked if a.procedure == "os_validate"],
            [("node1", [False, "os", ["parameters"], {"a": "1", "p": "x"}, False])],
        )
        self.assertIn(" - INFO: OS os not found on node node1, validation skipped", self.ctx.lines)
        self.nodes.answers["os_validate"] = Failed("bad parameter")
        self.assertRaises(OpExecError, self.run_unit, OP, osparams={"os": {"a": "2"}})

    def test_nothing_asked(self) -> None:
        """Parameters that don't concern nodes need no calls."""
        self.run_unit(OP, max_running_jobs=7)
        self.assertEqual(self.nodes.asked, [])


class EffectTests(ParamsScene):
    """The changes, log lines and follow-up jobs."""

    def test_locks(self) -> None:
        """Instances are shared only for parameters that may conflict; nothing else is locked."""
        self.assertEqual(list(self.wanted(self.unit(OP, max_running_jobs=7))), [Level.CLUSTER])
        self.assertEqual(
            self.wanted(self.unit(OP, nicparams={"link": "br1"}))[Level.INSTANCE], all_shared
        )

    def test_serials(self) -> None:
        """Only the cluster's serial and time change, even if a value stays the same."""
        before = self.ctx.snapshot()
        self.run_unit(OP, prealloc_wipe_disks=False)
        after = self.ctx.snapshot()
        self.assertEqual(after.cluster.serial_no, before.cluster.serial_no + 1)
        self.assertIs(after.nodes, before.nodes)

    def test_hooks(self) -> None:
        """Hooks run on the master, with the cluster's name and the volume group."""
        unit = self.unit(OP, vg_name="other")
        self.assertEqual(
            unit.hook_environment(self.ctx.snapshot()),
            {"OP_TARGET": "cluster", "NEW_VG_NAME": "other"},
        )
        master = (self.ctx.snapshot().master.uuid,)
        self.assertEqual(unit.hook_nodes(self.ctx.snapshot()).before, master)

    def test_told(self) -> None:
        """Values that are set already are logged."""
        self.run_unit(OP, vg_name="xenvg", file_storage_dir=self.cluster.file_storage_dir + "/")
        self.assertEqual(
            self.ctx.lines,
            [
                "Cluster LVM configuration already in desired state, not changing",
                f"Global file storage dir already set to value '{self.cluster.file_storage_dir}'",
            ],
        )

    def test_drbd_hints(self) -> None:
        """Setting DRBD's parameters logs that they only affect later disks."""
        self.run_unit(OP, diskparams={"drbd": {"resync-rate": 5}}, hidden_os=[["remove", "x"]])
        self.assertEqual(len(self.ctx.lines), 4)
        self.assertIn("Changing DRBD parameters only affects devices created", self.ctx.lines[0])
        self.assertEqual(self.ctx.lines[3], "OS x not found in hidden OS list, ignoring")

    def test_helper_without_drbd(self) -> None:
        """Setting a helper without DRBD gives a warning."""
        self.with_cluster(
            enabled_disk_templates=("diskless",),
            ipolicy={**self.cluster.ipolicy, "disk-templates": ["diskless"]},
        )
        self.run_unit(OP, drbd_helper="/bin/other")
        self.assertIn("but did not enable the drbd disk template", self.ctx.lines[0])
        self.assertEqual(self.cluster.drbd_usermode_helper, "/bin/other")

    def test_netdev(self) -> None:
        """The master's address moves: down at the old device, up at the new one."""
        self.run_unit(OP, master_netdev="eth0")
        self.assertEqual(
            [(a.procedure, a.arguments[0]["netdev"]) for a in self.nodes.asked],
            [("node_deactivate_master_ip", "lo"), ("node_activate_master_ip", "eth0")],
        )
        self.assertEqual(
            self.ctx.lines,
            [
                "Shutting down master ip on the current netdev (lo)",
                "Changing master_netdev from lo to eth0",
                "Starting the master ip on the new master netdev (eth0)",
            ],
        )

    def test_netdev_refused(self) -> None:
        """If the address can't be taken down, the opcode fails, unless forced."""
        self.nodes.answers["node_deactivate_master_ip"] = Failed("busy")
        self.assertRaises(OpExecError, self.run_unit, OP, master_netdev="eth0")
        self.assertEqual(self.cluster.master_netdev, "lo")
        self.run_unit(OP, master_netdev="eth0", force=True)
        self.assertEqual(self.cluster.master_netdev, "eth0")
        self.assertIn("Could not disable the master ip (continuing anyway): busy", self.ctx.lines)

    def test_netdev_not_up(self) -> None:
        """An address that doesn't come up is a warning that says what is left to do."""
        self.nodes.answers["node_activate_master_ip"] = Failed("no such device")
        self.run_unit(OP, master_netdev="eth0")
        self.assertIn("please restart manually: no such device", self.ctx.lines[-1])

    def test_address_comes_back(self) -> None:
        """If the change fails the address comes up where it was."""

        def fail(*_: object) -> None:
            raise OpExecError("no")

        self.patch(self.ctx, "change", fail)
        self.assertRaises(OpExecError, self.run_unit, OP, master_netdev="eth0")
        self.assertEqual(
            [(a.procedure, a.arguments[0]["netdev"]) for a in self.nodes.asked],
            [("node_deactivate_master_ip", "lo"), ("node_activate_master_ip", "lo")],
        )

    def test_netmask(self) -> None:
        """The node changes the netmask; if that fails, a warning is logged."""
        self.nodes.answers["node_change_master_netmask"] = Failed("not up")
        self.run_unit(OP, master_netmask=24)
        (asked,) = self.nodes.asked
        self.assertEqual(asked.arguments, [32, 24, self.cluster.master_ip, "lo"])
        self.assertEqual(
            self.ctx.lines,
            [
                "Changing master IP netmask to 24",
                "Could not change the master IP netmask: not up",
            ],
        )
        self.assertEqual(self.cluster.master_netmask, 24)

    def test_kvm_daemon(self) -> None:
        """The KVM daemon starts where instances may be shut down from within."""
        self.run_unit(OP, enabled_hypervisors=["kvm"], enabled_user_shutdown=True)
        started = [a for a in self.nodes.asked if a.procedure == "node_ensure_daemon"]
        self.assertEqual([a.arguments for a in started], [["ganeti-kvmd", True]] * 3)
        self.nodes.asked.clear()
        self.run_unit(OP, enabled_user_shutdown=False)
        stopped = [a for a in self.nodes.asked if a.procedure == "node_ensure_daemon"]
        self.assertEqual([a.arguments for a in stopped], [["ganeti-kvmd", False]] * 3)

    def test_communication_network(self) -> None:
        """A new communication network is created and connected by a follow-up job."""
        result = self.run_unit(OP, instance_communication_network="talk")
        self.assertEqual(result, {"jobs": [[True, 2]]})
        ((add, connect),) = self.ctx.submitted
        self.assertEqual((add.op_id, add.network), ("OP_NETWORK_ADD", "169.254.0.0/16"))
        self.assertEqual(
            (connect.op_id, connect.network_link), ("OP_NETWORK_CONNECT", "communication_rt")
        )
        self.assertIn("Changing instance communication network to 'talk'", self.ctx.lines[0])
        self.assertIsNone(self.run_unit(OP, instance_communication_network="talk"))
        self.assertIn("already is 'talk', nothing to do", self.ctx.lines[-1])
        self.assertIsNone(self.run_unit(OP, instance_communication_network=""))
        self.assertIn("Disabling instance communication network", self.ctx.lines[-1])

    def test_odd_network(self) -> None:
        """An existing network that isn't set up as needed gives a warning."""
        world = World(3)
        world.run("OP_NETWORK_ADD", network_name="talk", network="192.0.2.0/24")
        result = world.run(OP, instance_communication_network="talk")
        self.assertEqual(len(result["jobs"]), 1)
        self.assertEqual([op.op_id for op in world.submitted[0]], ["OP_NETWORK_CONNECT"])
        self.assertTrue(any("non-standard IPv4 network address" in line for line in world.lines))

    def test_killed(self) -> None:
        """A kill before the change changes nothing."""
        self.ctx.kill_after = 0
        self.assertRaises(GenericError, self.run_unit, OP, max_running_jobs=7)
        self.assertEqual(self.cluster.max_running_jobs, 20)


class EffortTests(UnitScene):
    """A change of one parameter is cheap, however large the cluster."""

    def test_large(self) -> None:
        """On 500 nodes one parameter writes as much as on 10, and leaves all nodes as they were."""
        written = []
        for nodes in (10, 500):
            ctx = SynchronousContext(new_cluster("cluster", nodes, 1000.0), self.nodes)
            before = ctx.snapshot()
            unit = self.unit(OP, max_running_jobs=7)
            unit.check(ctx)
            unit.exec(ctx)
            self.assertIs(ctx.snapshot().nodes, before.nodes)
            rows = [row for row in ctx.journal.rows if isinstance(row, ConfigRow)]
            written.append([(row.section, len(row.body or b"")) for row in rows])
        self.assertEqual([section for section, _ in written[0]], ["cluster", ""])
        self.assertEqual(*written)
