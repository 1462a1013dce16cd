"""Instances on simulated nodes start, stop, move and use memory as on noded's fake hypervisor."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.timing import Timers
from tests.examples import examples, run_machine
from tests.simulation.nodes import SimulationCase, file_disk, instance, machine


class InstanceTests(SimulationCase):
    def start(self, name: str = "web", **changes: Any) -> None:
        self.ask("a", "instance_start", instance(name, **changes), False, [])

    def info(self, name: str = "web") -> Any:
        return self.ask("a", "instance_info", name, "fake", {})

    def free(self) -> int:
        found = self.ask("a", "node_info", None, [["fake", {}]])
        return int(found[2][0]["memory_free"])

    def test_life(self) -> None:
        """An instance starts, is listed, and stops; starting and stopping twice is allowed."""
        self.assertEqual(self.info(), {})
        self.start()
        self.start()
        running = {"memory": 512, "vcpus": 2, "state": 0, "time": 0}
        self.assertEqual(self.info(), running)
        self.assertEqual(
            self.ask("a", "all_instances_info", ["fake", "kvm"], {"fake": {}, "kvm": {}}),
            {"web": running},
        )
        self.assertEqual(self.ask("a", "instance_list", ["fake"], {"fake": {}}), ["web"])
        self.ask("a", "instance_shutdown", instance(), 120, [])
        self.ask("a", "instance_shutdown", instance(), 120, [])
        self.assertEqual(self.info(), {})
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), [])

    def test_hypervisors(self) -> None:
        """Hypervisors don't see each other's instances; unknown ones fail."""
        self.start(hypervisor="kvm")
        self.assertEqual(self.info(), {})
        self.assertEqual(self.ask("a", "instance_list", ["kvm"], {"kvm": {}}), ["web"])
        self.assertEqual(
            self.fault("a", "instance_list", ["vax"], {"vax": {}}),
            "Error enumerating instances (hypervisor vax): Unknown hypervisor type 'vax'",
        )
        self.assertEqual(
            self.fault("a", "node_info", None, [["vax", {}]]),
            "Error while executing backend function: Unknown hypervisor type 'vax'",
        )
        self.assertEqual(
            self.fault("a", "instance_start", instance(hypervisor="vax"), False, []),
            "Hypervisor error: Unknown hypervisor type 'vax'",
        )
        self.assertEqual(
            self.fault("a", "hypervisor_validate_params", "vax", {}),
            "Unknown hypervisor type 'vax'",
        )

    def test_parameters_missing(self) -> None:
        """Each requested hypervisor needs its parameters in the call."""
        self.assertEqual(
            self.fault("a", "all_instances_info", ["kvm"], {}),
            "Error while executing backend function: 'kvm'",
        )

    def test_memory(self) -> None:
        """Instances get their maximum memory if available, and at least their minimum."""
        self.nodes = self.make(description=machine(memory=2048, memory_dom0=1024))
        self.start("one")
        self.assertEqual(self.free(), 512)
        self.start("two", beparams={"maxmem": 1024, "minmem": 128, "vcpus": 1})
        self.assertEqual((self.free(), self.info("two")["memory"]), (0, 512))
        error = self.fault("a", "instance_start", instance("three"), False, [])
        self.assertTrue(error.startswith("Hypervisor error: Failed to start instance three"))
        self.ask("a", "instance_balloon_memory", instance("two"), 200)
        self.assertEqual((self.free(), self.info("two")["memory"]), (312, 200))
        self.assertIn("balloon", self.fault("a", "instance_balloon_memory", instance("two"), 600))
        self.ask("a", "instance_balloon_memory", instance("three"), 600)

    def test_disks(self) -> None:
        """An instance doesn't start while a disk is missing, nor without a list of disks."""
        with_disk = instance(disks_info=[file_disk("/srv/web/0")])
        self.assertEqual(
            self.fault("a", "instance_start", with_disk, False, []),
            "Block device error: Block device '<Disk(type=file,"
            " logical_id=('loop', '/srv/web/0'), children=[], visible as /dev/disk/0,"
            " size=16m)>' is not set up.",
        )
        without = {key: val for key, val in instance().items() if key != "disks_info"}
        self.fault("a", "instance_start", without, False, [])
        self.fault("a", "instance_shutdown", without, 120, [])
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.ask("a", "blockdev_create", file_disk("/srv/web/0"), 16, "web", True, "", False)
        self.ask("a", "instance_start", with_disk, False, [])

    def test_reboot(self) -> None:
        """Only running instances are rebooted, and only in the node's two ways."""
        self.assertEqual(
            self.fault("a", "instance_reboot", instance(), "hard", 120, []),
            "Cannot reboot instance 'web' that is not running",
        )
        self.start()
        self.ask("a", "instance_reboot", instance(), "soft", 120, [])
        more = instance(beparams={"maxmem": 768, "minmem": 128, "vcpus": 1})
        self.ask("a", "instance_reboot", more, "hard", 120, [])
        self.assertEqual(self.info()["memory"], 768)
        self.assertEqual(
            self.fault("a", "instance_reboot", instance(), "full", 120, []),
            "Invalid reboot_type received: 'full'",
        )

    def test_migration(self) -> None:
        """A migrated instance runs on the target and no longer on the source."""
        self.assertEqual(
            self.fault("a", "instance_migratable", instance()), "Instance web is not running"
        )
        self.start()
        self.ask("a", "instance_migratable", instance())
        info = self.ask("a", "migration_info", instance())
        self.assertEqual(info, "")
        self.ask("b", "accept_instance", instance(), info, "192.0.2.2")
        self.ask("a", "instance_migrate", "cluster", instance(), "192.0.2.2", True)
        self.assertEqual(
            self.ask("a", "instance_get_migration_status", instance()), {"status": "completed"}
        )
        self.ask("a", "instance_finalize_migration_src", instance(), True, True)
        self.ask("b", "instance_finalize_migration_dst", instance(), info, True)
        self.assertEqual(self.info(), {})
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), ["web"])
        self.assertEqual(
            self.fault("b", "accept_instance", instance(), "", "192.0.2.2"),
            "Failed to accept instance: Can't accept instance, already running",
        )

    def test_failed_migration(self) -> None:
        """After a failed migration the instance runs where it ran before."""
        self.start()
        self.ask("a", "instance_finalize_migration_src", instance(), False, True)
        self.ask("b", "instance_finalize_migration_dst", instance(), "", False)
        self.assertNotEqual(self.info(), {})
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), [])

    def test_consoles(self) -> None:
        """There is no console, and the node says so for each instance."""
        found = self.ask("a", "instance_console_info", {"web": {"instance": instance()}})
        self.assertEqual(
            found["web"],
            {
                "instance": "web",
                "kind": "msg",
                "message": "Console not available for fake hypervisor",
            },
        )

    def test_hotplug(self) -> None:
        """Devices can't be plugged in."""
        self.assertEqual(
            self.fault("a", "hotplug_supported", instance()),
            "Hotplug is not supported: Hotplug is not supported by this hypervisor",
        )

    def test_powercycle(self) -> None:
        """After a power cycle nothing runs and the boot id has changed."""
        self.start()
        before = self.ask("a", "node_info", None, None)
        self.ask("a", "node_powercycle", "fake", {})
        self.assertEqual(self.info(), {})
        self.assertNotEqual(self.ask("a", "node_info", None, None), before)


class MemoryMachine(RuleBasedStateMachine):
    """Starts and stops instances in any order; checks that memory adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = SimulatedNodes(Timers(Clock()), description=machine(memory=4096))
        self.target = Target("u", "a", "192.0.2.1")

    def ask(self, procedure: str, *arguments: Any) -> Any:
        results: list[Any] = []
        self.nodes.call([self.target], procedure, arguments).addCallback(results.append)
        return results[0]["u"]

    names = st.sampled_from(["one", "two", "three"])

    @rule(name=names, least=st.integers(0, 4096), more=st.integers(0, 4096))
    def start(self, name: str, least: int, more: int) -> None:
        parameters = {"minmem": least, "maxmem": least + more, "vcpus": 1}
        self.ask("instance_start", instance(name, beparams=parameters), False, [])

    @rule(name=names)
    def stop(self, name: str) -> None:
        assert self.ask("instance_shutdown", instance(name), 1, []).error is None

    @rule(name=names, memory=st.integers(0, 5000))
    def balloon(self, name: str, memory: int) -> None:
        self.ask("instance_balloon_memory", instance(name), memory)

    @rule(name=names)
    def arrive(self, name: str) -> None:
        self.ask("instance_finalize_migration_dst", instance(name), "", True)

    @invariant()
    def adds_up(self) -> None:
        space = self.ask("node_info", None, [["fake", {}]]).payload[2][0]
        running = self.ask("all_instances_info", ["fake"], {"fake": {}}).payload
        used = sum(info["memory"] for info in running.values())
        assert space["memory_total"] - space["memory_dom0"] - used == space["memory_free"]
        assert space["memory_free"] >= 0


class MachineTests(SynchronousTestCase):
    def test_memory(self) -> None:
        """Memory adds up after every step of any life."""
        run_machine(MemoryMachine, examples(25, 500), 20)
