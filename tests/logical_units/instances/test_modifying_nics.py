"""OP_INSTANCE_SET_PARAMS changes NICs."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.objects import Cluster, Nic
from ganeti_masterd.simulation.description import DescribedNode, Description
from ganeti_masterd.simulation.state import Hardware
from tests.logical_units.half_way import BreakingNodes
from tests.logical_units.instances.modifying import TEMPLATES, ModifyCase
from tests.logical_units.made import made_instance
from tests.logical_units.test_instance_disks_life import NAME
from tests.logical_units.world import World

DESCRIPTION = Description(
    default=DescribedNode(hardware=Hardware(bridges=("br0", "br1", "xen-br0"))),
)


def two_nics(world: World, **about: Any) -> None:
    """Makes an instance with two NICs, and a network that is connected to its group."""
    nics = (
        Nic(mac="aa:00:00:00:00:01", uuid="n0", name="front", ip="192.168.0.1"),
        Nic(mac="aa:00:00:00:00:02", uuid="n1"),
    )
    params = {"nicparams": {"mode": "routed", "link": "100"}}
    made_instance(
        world,
        "diskless",
        nics=(replace(nics[0], **params), replace(nics[1], nicparams={"link": "br0"})),
        **about,
    )
    for name, network, prefix in (("lan", "10.0.0.0/28", None), ("wan", "10.1.0.0/28", "ab:00:00")):
        world.run("OP_NETWORK_ADD", network_name=name, network=network, mac_prefix=prefix)
        world.run(
            "OP_NETWORK_CONNECT",
            group_name="default",
            network_name=name,
            network_mode="routed",
            network_link="tab9",
        )
    world.lines.clear()


class NicCase(ModifyCase):
    """Base: an instance with two NICs."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World(
            disk_templates=TEMPLATES, description=DESCRIPTION, hypervisors=("fake", "kvm")
        )
        two_nics(self.world)

    @property
    def nics(self) -> tuple[Nic, ...]:
        """The instance's NICs."""
        return self.instance.nics

    def reserved(self, network: str, address: str) -> bool:
        """Whether a network has an address for somebody."""
        return pool_of(self.world.now.network(network)).is_own(address)

    def refused_nic(self, *change: Any, **others: Any) -> tuple[Any, ...]:
        """Returns the arguments of the refusal of one change."""
        before = self.nics
        error = self.refusal(nics=[list(change)], **others)
        self.assertEqual(self.nics, before)
        return error


class NicTests(NicCase):
    """NICs come, change and go."""

    def test_add(self) -> None:
        """All parameters are stored; MAC addresses and VLANs have their normal form."""
        result = self.modify(
            nics=[["add", 0, {"mac": "AA:00:00:00:00:0F", "mode": "bridged", "vlan": "7"}]],
        )
        self.assertEqual(
            result,
            [("nic.0", "add:mac=aa:00:00:00:00:0f,ip=None,mode=bridged,link=xen-br0,network=None")],
        )
        nic = self.nics[0]
        self.assertEqual(nic.mac, "aa:00:00:00:00:0f")
        self.assertEqual(nic.nicparams, {"mode": "bridged", "link": "xen-br0", "vlan": ".7"})
        self.assertEqual([each.uuid for each in self.nics[1:]], ["n0", "n1"])

    def test_modify(self) -> None:
        """The result has what was given, then always link, mode and VLAN."""
        self.assertEqual(
            self.modify(nics=[["modify", "front", {"ip": "192.168.0.9", "name": "back"}]]),
            [
                ("nic.ip/0", "192.168.0.9"),
                ("nic.name/0", "back"),
                ("nic.link/0", "100"),
                ("nic.mode/0", "routed"),
                ("nic.vlan/0", ""),
            ],
        )
        self.assertEqual(
            self.modify(nics=[["modify", 1, {"link": "br1", "mac": "generate"}]])[1:],
            [("nic.link/1", "br1"), ("nic.mode/1", "bridged"), ("nic.vlan/1", "")],
        )
        self.assertNotEqual(self.nics[1].mac, "aa:00:00:00:00:02")
        self.assertEqual([nic.uuid for nic in self.nics], ["n0", "n1"])

    def test_remove(self) -> None:
        """By name, by uuid, the last one; the old form too."""
        for change in (["remove", "front", {}], ["remove", "n0", {}], ["remove", 0, {}]):
            self.assertEqual(self.modify(nics=[change]), [("NIC/0", "remove")])
            self.assertEqual([nic.uuid for nic in self.nics], ["n1"])
            self.setUp()
        self.assertEqual(self.modify(nics=[["remove", {}]]), [("NIC/1", "remove")])

    def test_one_after_the_other(self) -> None:
        """Each change is applied to what the one before left."""
        self.modify(
            nics=[
                ["remove", 0, {}],
                ["add", 0, {"name": "new"}],
                ["modify", "new", {"link": "br1"}],
                ["remove", 1, {}],
            ]
        )
        (nic,) = self.nics
        self.assertEqual((nic.name, nic.nicparams["link"]), ("new", "br1"))

    def test_refused(self) -> None:
        """Everything is refused before anything changes."""
        taken = {"mac": "aa:00:00:00:00:01"}
        for change, error in (
            (["modify", 0, {"mac": "auto"}], "'auto' is not a valid MAC address when modifying"),
            (["modify", 5, {}], "There is no NIC with the index 5: the instance has 2 of them"),
            (["modify", "x", {}], "Cannot find NIC with identifier x"),
            (["attach", 0, {}], "Attach operation is not supported for NICs"),
            (["detach", 0, {}], "Detach operation is not supported for NICs"),
            (["add", -1, {"network": "nosuch"}], "Network 'nosuch' not found"),
            (
                ["add", -1, {"network": "lan", "mode": "routed"}],
                "If network is given, no mode or link is allowed to be passed",
            ),
            (["modify", 1, taken], "MAC address aa:00:00:00:00:01 already in use in cluster"),
            (["add", -1, {"mac": "zz"}], "Invalid MAC address 'zz'"),
            (["add", -1, {"ip": "x"}], "Invalid IP address 'x'"),
            (["add", -1, {"ip": "pool"}], "if ip=pool, parameter network must be passed too"),
            (["add", -1, {"vlan": "x"}], "Specified VLAN parameter is invalid : x"),
            (["add", -1, {"mode": "mixed"}], "Invalid NIC mode 'mixed'"),
            (["add", -1, {"name": "front"}], "NIC name 'front' already used"),
            (["add", -1, {"name": "5"}], "Invalid name '5'. Purely numeric NIC names"),
            (
                ["modify", 0, {"ip": "none"}],
                "Cannot set the NIC IP address to None on a routed NIC if not attached to a ",
            ),
            (
                ["add", -1, {"ip": "10.0.0.5"}],
                "The requested IP address (10.0.0.5) belongs to network lan",
            ),
        ):
            self.assertIn(error, str(self.refused_nic(*change)[0]), change)

    def test_too_many(self) -> None:
        """Eight at most."""
        self.modify(nics=[["add", -1, {}]] * 6, ignore_ipolicy=True)
        self.assertEqual(
            self.refused_nic("add", -1, {}, ignore_ipolicy=True),
            ("Instance has too many network interfaces (8), cannot add more", "wrong_state"),
        )

    def test_policy(self) -> None:
        """The number of NICs counts, as it is at the end."""

        def narrowed(cluster: Cluster) -> Cluster:
            (bounds,) = cluster.ipolicy["minmax"]
            most = {**bounds, "max": {**bounds["max"], "nic-count": 2}}
            return replace(cluster, ipolicy={**cluster.ipolicy, "minmax": [most]})

        self.world.store.change(self.world.now.cluster.uuid, narrowed)
        text, code = self.refused_nic("add", -1, {})
        self.assertIn("nic-count value 3 is not in range", text)
        self.assertEqual(code, "wrong_input")
        self.modify(nics=[["add", -1, {}], ["remove", 0, {}]])
        self.modify(nics=[["add", -1, {}]], ignore_ipolicy=True)
        self.modify(beparams={"vcpus": 2})

    def test_bridges(self) -> None:
        """Only where they change; a missing one refuses, or with force only warns."""
        self.assertEqual(
            self.refused_nic("add", -1, {"mode": "bridged", "link": "br9"}),
            ("Error checking bridges on node 'node2': Missing bridges br9", "environment_error"),
        )
        self.modify(nics=[["add", -1, {"mode": "bridged", "link": "br9"}]], force=True)
        self.assertEqual(
            self.world.lines,
            [" - WARNING: Error checking bridges on node 'node2': Missing bridges br9"],
        )
        calls = self.calls(nics=[["modify", 1, {"name": "x"}], ["modify", 1, {"link": "br1"}]])
        self.assertEqual([call for _, call in calls], ["bridges_exist", "instance_metadata_modify"])
        self.modify(nics=[["modify", 0, {"mode": "openvswitch"}]])
        self.assertIn(
            " - INFO: OVS links are currently not checked for correctness", self.world.lines
        )


class NetworkTests(NicCase):
    """NICs on networks: their addresses, MAC prefixes and parameters."""

    def test_pool(self) -> None:
        """An address comes from the pool with the write, and returns to it."""
        result = self.modify(nics=[["add", -1, {"ip": "pool", "network": "lan"}]])
        (nic,) = self.nics[2:]
        self.assertEqual(
            result,
            [("nic.2", f"add:mac={nic.mac},ip=10.0.0.1,mode=routed,link=tab9,network=lan")],
        )
        self.assertTrue(self.reserved("lan", "10.0.0.1"))
        self.assertIn(" - INFO: Chose IP 10.0.0.1 from network lan", self.world.lines)
        self.modify(nics=[["modify", -1, {"ip": "10.0.0.7"}]])
        self.assertIn(" - INFO: Reserving IP 10.0.0.7 in network lan", self.world.lines)
        self.assertEqual([self.reserved("lan", f"10.0.0.{n}") for n in (1, 7)], [False, True])
        self.modify(nics=[["remove", -1, {}]])
        self.assertFalse(self.reserved("lan", "10.0.0.7"))

    def test_one_transaction(self) -> None:
        """Addresses, NICs and parameters are one write."""
        serial = self.world.now.header.serial_no
        self.modify(nics=[["add", -1, {"ip": "pool", "network": "lan"}]] * 2, beparams={"vcpus": 2})
        self.assertEqual(self.world.now.header.serial_no, serial + 1)
        self.assertEqual([nic.ip for nic in self.nics[2:]], ["10.0.0.1", "10.0.0.2"])

    def test_prefixes(self) -> None:
        """A NIC gets another MAC address where the prefixes differ, and none is given."""
        mac = self.nics[0].mac
        self.modify(nics=[["modify", 0, {"network": "lan", "ip": "pool"}]])
        self.assertEqual(self.nics[0].mac, mac)
        entries = self.modify(nics=[["modify", 0, {"network": "wan", "ip": "pool"}]])
        self.assertEqual(
            [what for what, _ in entries[:3]], ["nic.mac/0", "nic.ip/0", "nic.network/0"]
        )
        self.assertEqual(entries[2][1], "wan")
        self.assertTrue(self.nics[0].mac.startswith("ab:00:00"))
        self.assertFalse(self.reserved("lan", "10.0.0.1"))
        self.modify(nics=[["modify", 0, {"network": "none", "ip": "172.16.0.1", "mac": mac}]])
        self.assertEqual((self.nics[0].network, self.nics[0].mac), (None, mac))

    def test_refused(self) -> None:
        """Link and mode are the network's; an address is only given once."""
        self.modify(nics=[["modify", 0, {"network": "lan", "ip": "10.0.0.3"}]])
        self.assertEqual(
            self.refused_nic("modify", 0, {"link": "x"}),
            (
                "Not allowed to change link or mode of a NIC that is connected to a network",
                "wrong_input",
            ),
        )
        self.assertEqual(
            self.refused_nic("add", -1, {"network": "lan", "ip": "10.0.0.3"}),
            (
                "IP address 10.0.0.3 already in use or does not belong to network lan",
                "resource_not_unique",
            ),
        )
        self.modify(nics=[["modify", 0, {"network": "lan", "name": "x"}]])
        self.assertTrue(self.reserved("lan", "10.0.0.3"))

    def test_communication(self) -> None:
        """The NIC to the metadata daemon comes and goes by its name, once."""
        text, code = self.refusal(instance_communication=True)
        self.assertIn("the cluster has no instance communication network", text)
        self.assertEqual(code, "wrong_state")
        self.world.store.change(
            self.world.now.cluster.uuid,
            lambda cluster: replace(cluster, instance_communication_network="lan"),
        )
        for _ in range(2):
            self.modify(instance_communication=True)
            names = [nic.name for nic in self.nics]
            self.assertEqual(names, ["front", None, f"ganeti:communication:{NAME}"])
        self.modify(nics=[["add", -1, {}]])
        for _ in range(2):
            self.modify(instance_communication=False)
            self.assertEqual([nic.name for nic in self.nics], ["front", None, None])

    def test_killed(self) -> None:
        """A kill leaves NICs and addresses as they were, or all of it is done."""

        def check(where: str) -> None:
            has = len(self.nics) == 3
            self.assertEqual(self.reserved("lan", "10.0.0.1"), has, where)

        self.killed_everywhere(
            two_nics, check, nics=[["add", -1, {"ip": "pool", "network": "lan"}]]
        )


class PluggingTests(NicCase):
    """NICs of an instance that runs under KVM."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World(
            disk_templates=TEMPLATES, description=DESCRIPTION, hypervisors=("fake", "kvm")
        )
        two_nics(self.world, hypervisor="kvm")
        self.start()

    def test_plugged(self) -> None:
        """Each change is done at once, and the result says so."""
        changes = [
            ["add", -1, {"mode": "bridged", "link": "br1"}],
            ["modify", 0, {"ip": "192.168.0.3"}],
            ["remove", 1, {}],
        ]
        result = self.modify(nics=changes, hotplug=True)
        self.assertEqual(
            [entry for entry in result if entry[1] == "hotplug:done"],
            [("nic.2", "hotplug:done"), ("nic/0", "hotplug:done"), ("NIC/1", "hotplug:done")],
        )
        self.assertEqual(
            self.world.lines, [" - INFO: Trying to hotplug device...", " - INFO: Hotplug done."] * 3
        )

    def test_after_hooks(self) -> None:
        """What is plugged in was checked, and hooks have run."""
        nodes = BreakingNodes(self.world.nodes)
        self.world.nodes = nodes  # type: ignore[assignment]
        self.modify(nics=[["remove", 0, {}]], hotplug=True)
        done = list(dict.fromkeys(call for _, call in nodes.calls))
        wanted = ["hotplug_supported", "hooks_runner", "hotplug_device", "instance_metadata_modify"]
        self.assertEqual(done, wanted)
        nodes.calls.clear()
        self.refusal(nics=[["remove", 0, {}], ["remove", 9, {}]], hotplug=True)
        self.assertEqual([call for _, call in nodes.calls], ["hotplug_supported"])
        self.world.nodes = nodes.nodes  # type: ignore[assignment]

    def test_fails(self) -> None:
        """It is written all the same, and holds from the next start."""
        self.break_call("hotplug_device")
        self.assertEqual(
            self.modify(nics=[["remove", 0, {}]], hotplug=True),
            [("NIC/0", "remove"), ("NIC/0", "hotplug:failed")],
        )
        self.assertEqual(len(self.nics), 1)
        self.assertEqual(
            self.world.lines[1:],
            [
                " - WARNING: Could not hotplug device: broken",
                f" - INFO: Continuing execution: NIC 0 of instance {NAME} changes with its next "
                "start",
            ],
        )

    def test_impossible(self) -> None:
        """It is refused, or done without, as the opcode says."""
        self.world.run("OP_INSTANCE_SHUTDOWN", instance_name=NAME)
        self.world.lines.clear()
        down = "Hotplug is not supported: Instance is probably down"
        self.assertEqual(
            self.refused_nic("remove", 0, {}, hotplug=True),
            (f"Hotplug is not possible: {down}", "wrong_state"),
        )
        self.assertEqual(
            self.modify(nics=[["remove", 0, {}]], hotplug_if_possible=True), [("NIC/0", "remove")]
        )
        self.assertEqual(
            self.world.lines,
            [
                f" - WARNING: {down}",
                " - INFO: Modification will take place without hotplugging.",
            ],
        )
