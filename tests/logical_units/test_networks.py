"""Networks: adding, changing, connecting, removing, and refusals."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.objects import Network, Nic
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import (
    OpExecError,
    OpPrereqError,
    ReservationError,
    TagError,
)
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import JobKilled
from tests.logical_units.cluster import with_instance
from tests.logical_units.scene import UnitScene


class NetworkScene(UnitScene):
    """A network "lan" of 256 addresses, connected to nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.add("lan", network="203.0.113.0/24", gateway="203.0.113.1")

    def add(self, name: str, **parameters: Any) -> Any:
        return self.run_unit("OP_NETWORK_ADD", network_name=name, **parameters)

    def connect(self, group: str = "default", **parameters: Any) -> Any:
        asked = {"network_mode": "bridged", "network_link": "br0", **parameters}
        return self.run_unit("OP_NETWORK_CONNECT", group_name=group, network_name="lan", **asked)

    def set(self, **parameters: Any) -> Any:
        return self.run_unit("OP_NETWORK_SET_PARAMS", network_name="lan", **parameters)

    @property
    def lan(self) -> Network:
        return self.ctx.snapshot().network("lan")

    def refused(self, *args: Any, **parameters: Any) -> tuple[Any, ...]:
        """Runs an opcode; returns the arguments of the ``OpPrereqError`` that it must raise."""
        before = self.ctx.snapshot()
        error = self.assertRaises(OpPrereqError, self.run_unit, *args, **parameters)
        self.assertIs(self.ctx.snapshot(), before)
        return error.args

    def put_instance(self, nic: Nic, node: str = "node1") -> None:
        """Gives the cluster an instance with one NIC."""
        snapshot = with_instance(self.ctx.snapshot(), "db", [node], nics=[nic])
        self.renew(snapshot)


class AddTests(NetworkScene):
    """OP_NETWORK_ADD."""

    def test_new(self) -> None:
        """A network has its pool, its tags sorted, fresh serial and times, and its lock."""
        self.add(
            "wan",
            network="198.51.100.0/28",
            network6="2001:db8::/64",
            gateway6="2001:db8::1",
            mac_prefix="AA:00:0f",
            add_reserved_ips=["198.51.100.9"],
            conflicts_check=False,
            tags=["b", "a"],
        )
        wan = self.ctx.snapshot().network("wan")
        self.assertEqual(
            pool_of(wan).external_addresses, ["198.51.100.0", "198.51.100.9", "198.51.100.15"]
        )
        self.assertEqual((wan.mac_prefix, wan.tags, wan.serial_no), ("aa:00:0f", ("a", "b"), 1))
        self.assertIn(wan.uuid, self.ctx.locks[Level.NETWORK])
        self.assertEqual(verify(self.ctx.snapshot()), [])

    def test_cluster_addresses(self) -> None:
        """Addresses of nodes and the master are reserved; those that can't be are logged."""
        self.add("nodes", network="198.51.100.0/24", gateway="198.51.100.2")
        self.assertEqual(
            sorted(self.ctx.lines),
            [
                " - INFO: Reserved IP address of node 'node1' (198.51.100.1)",
                " - INFO: Reserved IP address of node 'node3' (198.51.100.3)",
                " - WARNING: Cannot reserve IP address '198.51.100.2' of node 'node2':"
                " IP 198.51.100.2 is already externally reserved",
            ],
        )
        self.ctx.lines.clear()
        self.add("master", network="192.0.2.0/24")
        self.assertEqual(
            self.ctx.lines, [" - INFO: Reserved cluster master IP address (192.0.2.1)"]
        )
        self.ctx.lines.clear()
        self.add("taken", network="192.0.2.0/24", gateway="192.0.2.1")
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Cannot reserve cluster master IP address (192.0.2.1):"
                " IP 192.0.2.1 is already externally reserved"
            ],
        )

    def test_name_that_is_none(self) -> None:
        """A name that would be more than a line of ssconf, or a very long one, is refused."""
        for name in ("a\nb", "a\x1b", "a" * 256):
            text, code = self.refused("OP_NETWORK_ADD", network_name=name, network="10.0.0.0/24")
            self.assertEqual(code, "wrong_input")
            self.assertTrue(text.startswith("Network name ") and text.isprintable())

    def test_name_that_is_taken(self) -> None:
        """A name or uuid that a network has is refused with that network's uuid."""
        for name in ("lan", self.lan.uuid):
            self.assertEqual(
                self.refused("OP_NETWORK_ADD", network_name=name, network="10.0.0.0/24"),
                (
                    f"Desired network name '{name}' already exists as a network"
                    f" (UUID: {self.lan.uuid})",
                    "already_exists",
                ),
            )

    def test_name_that_is_reserved(self) -> None:
        """A name that another job is about to use is refused."""
        self.ctx.reservations.reserve(99, "network", "wan", self.ctx.snapshot())
        self.assertRaises(ReservationError, self.add, "wan", network="10.0.0.0/24")

    def test_what_can_not_be(self) -> None:
        """Invalid prefixes, gateways and tags are refused before anything is created."""
        good = {"network_name": "wan", "network": "10.0.0.0/24"}
        self.assertEqual(
            self.refused("OP_NETWORK_ADD", **good, mac_prefix="aa:00"),
            ("Invalid MAC address prefix 'aa:00'", "wrong_input"),
        )
        self.assertEqual(
            self.refused(
                "OP_NETWORK_ADD", **good, network6="2001:db8::/64", gateway6="2001:db9::1"
            ),
            ("IPv6 gateway '2001:db9::1' is not in the network 2001:db8::/64", "wrong_input"),
        )
        self.assertRaises(TagError, self.run_unit, "OP_NETWORK_ADD", **good, tags=["bad tag"])

    def test_pools_that_can_not_be(self) -> None:
        """A subnet of a wrong size, and addresses that can't be reserved, are errors."""
        for parameters, words in (
            ({"network": "10.0.0.0/8"}, "Cannot create IP address pool for network 'wan': A big"),
            ({"network": "10.0.0.0/31"}, "Cannot create IP address pool for network 'wan': A net"),
            (
                {"network": "10.0.0.0/24", "gateway": "10.0.1.1"},
                "Cannot create IP address pool for network 'wan': 10.0.0.0/24 does not contain",
            ),
            (
                {"network": "10.0.0.0/24", "add_reserved_ips": ["10.0.0.255"]},
                "Cannot reserve IP address '10.0.0.255': IP 10.0.0.255 is already externally",
            ),
        ):
            error = self.assertRaises(OpExecError, self.add, "wan", **parameters)
            self.assertTrue(str(error).startswith(words), str(error))
        self.assertIsNone(self.ctx.snapshot().lookup("network", "wan"))

    def test_killed(self) -> None:
        """A kill leaves neither a network nor its lock."""
        self.ctx.locks.clear()
        self.ctx.kill_after = 0
        self.assertRaises(JobKilled, self.add, "wan", network="10.0.0.0/24")
        self.assertIsNone(self.ctx.snapshot().lookup("network", "wan"))
        self.assertEqual(self.ctx.owned(Level.NETWORK), frozenset())

    def test_locks_and_hooks(self) -> None:
        """Only the new network is locked; hooks run on the master and get all its values."""
        unit = self.unit(
            "OP_NETWORK_ADD",
            network_name="wan",
            network="10.0.0.0/24",
            gateway="10.0.0.1",
            mac_prefix="AA:00:01",
            tags=["x", "y"],
        )
        self.assertEqual(
            self.wanted(unit),
            {Level.CLUSTER: shared(BGL), Level.NETWORK: exclusive((), creating=unit.uuid)},
        )
        master = (self.ctx.snapshot().master.uuid,)
        self.assertEqual(unit.hook_nodes(self.ctx.snapshot()), HookNodes(master, master))
        self.assertEqual(
            unit.hook_environment(self.ctx.snapshot()),
            {
                "NETWORK_NAME": "wan",
                "NETWORK_SUBNET": "10.0.0.0/24",
                "NETWORK_GATEWAY": "10.0.0.1",
                "NETWORK_MAC_PREFIX": "aa:00:01",
                "NETWORK_TAGS": "x y",
            },
        )


class RemoveTests(NetworkScene):
    """OP_NETWORK_REMOVE."""

    def test_removed(self) -> None:
        """A network is removed with its lock, and the cluster's serial increases."""
        uuid, serial = self.lan.uuid, self.ctx.snapshot().cluster.serial_no
        unit = self.unit("OP_NETWORK_REMOVE", network_name="lan")
        self.assertEqual(
            self.wanted(unit), {Level.CLUSTER: shared(BGL), Level.NETWORK: exclusive(uuid)}
        )
        self.assertEqual(unit.hook_environment(self.ctx.snapshot()), {"NETWORK_NAME": "lan"})
        self.run_unit("OP_NETWORK_REMOVE", network_name="lan")
        self.assertEqual(len(self.ctx.snapshot().networks), 0)
        self.assertNotIn(uuid, self.ctx.locks[Level.NETWORK])
        self.assertEqual(self.ctx.snapshot().cluster.serial_no, serial + 1)

    def test_connected(self) -> None:
        """A network that groups are connected to is refused; the log names them."""
        self.connect()
        self.assertEqual(
            self.refused("OP_NETWORK_REMOVE", network_name="lan"),
            ("Network still connected", "wrong_state"),
        )
        self.assertEqual(
            self.ctx.lines[-1:],
            [
                " - WARNING: Network 'lan' is connected to the following node groups: default",
            ],
        )

    def test_used(self) -> None:
        """A network that an instance is in is refused, though no group is connected."""
        self.put_instance(Nic(mac="aa:00:00:00:00:01", uuid="nic-1", network=self.lan.uuid))
        self.assertEqual(
            self.refused("OP_NETWORK_REMOVE", network_name="lan"),
            ("Network 'lan' is still used by the instances db", "wrong_state"),
        )

    def test_unknown(self) -> None:
        """An unknown network is refused by name, by every opcode."""
        for op_id, parameters in (
            ("OP_NETWORK_REMOVE", {}),
            ("OP_NETWORK_SET_PARAMS", {}),
            ("OP_NETWORK_DISCONNECT", {"group_name": "default"}),
            (
                "OP_NETWORK_CONNECT",
                {"group_name": "default", "network_mode": "routed", "network_link": "x"},
            ),
        ):
            self.assertEqual(
                self.refused(op_id, network_name="nosuch", **parameters),
                ("Network 'nosuch' not found", "unknown_entity"),
            )


class SetParametersTests(NetworkScene):
    """OP_NETWORK_SET_PARAMS."""

    def test_gateway(self) -> None:
        """A new gateway is reserved instead of the old one."""
        self.set(gateway="203.0.113.254")
        self.assertEqual(self.lan.gateway, "203.0.113.254")
        self.assertEqual(
            pool_of(self.lan).external_addresses, ["203.0.113.0", "203.0.113.254", "203.0.113.255"]
        )
        self.assertEqual(self.lan.serial_no, 2)

    def test_first_gateway(self) -> None:
        """A network without a gateway gets its first."""
        self.add("wan", network="10.0.0.0/24")
        self.run_unit("OP_NETWORK_SET_PARAMS", network_name="wan", gateway="10.0.0.9")
        wan = self.ctx.snapshot().network("wan")
        self.assertEqual((wan.gateway, pool_of(wan).is_external("10.0.0.9")), ("10.0.0.9", True))

    def test_same_gateway(self) -> None:
        """The present gateway is only logged."""
        self.set(gateway="203.0.113.1")
        self.assertEqual(self.ctx.lines, [" - WARNING: Gateway is already 203.0.113.1"])
        self.assertTrue(pool_of(self.lan).is_external("203.0.113.1"))

    def test_gateways_that_can_not_be(self) -> None:
        """A gateway that is in use or in another subnet is refused, naming the address."""
        used = pool_of(self.lan).reserve("203.0.113.7")
        self.ctx.change(self.lan.uuid, used.applied_to)
        for gateway in ("203.0.113.7", "203.0.113.255"):
            self.assertEqual(
                self.refused("OP_NETWORK_SET_PARAMS", network_name="lan", gateway=gateway),
                (f"Gateway IP address '{gateway}' is already reserved", "wrong_state"),
            )
        self.assertEqual(
            self.refused("OP_NETWORK_SET_PARAMS", network_name="lan", gateway="10.0.0.1"),
            (
                "Gateway IP address '10.0.0.1' is not in the network 203.0.113.0/24",
                "wrong_input",
            ),
        )
        self.assertEqual(
            self.refused(
                "OP_NETWORK_SET_PARAMS",
                network_name="lan",
                gateway="203.0.113.9",
                add_reserved_ips=["203.0.113.10"],
            ),
            ("Cannot modify gateway and reserved ips at once", "wrong_input"),
        )

    def test_reserved_addresses(self) -> None:
        """Possible changes are made, others are logged, and the gateway stays reserved."""
        self.set(add_reserved_ips=["203.0.113.10", "203.0.113.10", "10.0.0.1"])
        self.set(remove_reserved_ips=["203.0.113.1", "203.0.113.10", "203.0.113.11"])
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Cannot reserve IP address 203.0.113.10: IP 203.0.113.10 is already"
                " externally reserved",
                " - WARNING: Cannot reserve IP address 10.0.0.1: 203.0.113.0/24 does not contain"
                " 10.0.0.1",
                " - WARNING: Cannot unreserve Gateway's IP",
                " - WARNING: Cannot release IP address 203.0.113.11: IP 203.0.113.11 is not"
                " externally reserved",
            ],
        )
        self.assertEqual(
            pool_of(self.lan).external_addresses, ["203.0.113.0", "203.0.113.1", "203.0.113.255"]
        )

    def test_the_others(self) -> None:
        """IPv6 values and the MAC prefix change, and "none" removes the prefix."""
        self.set(network6="2001:db8::/64", gateway6="2001:db8::1", mac_prefix="AA:bb:0c")
        lan = self.lan
        self.assertEqual(
            (lan.network6, lan.gateway6, lan.mac_prefix),
            ("2001:db8::/64", "2001:db8::1", "aa:bb:0c"),
        )
        self.set(mac_prefix="none")
        self.assertIsNone(self.lan.mac_prefix)
        self.assertEqual(
            self.refused("OP_NETWORK_SET_PARAMS", network_name="lan", network6="2001:db9::/64"),
            ("IPv6 gateway '2001:db8::1' is not in the network 2001:db9::/64", "wrong_input"),
        )
        self.assertEqual(
            self.refused("OP_NETWORK_SET_PARAMS", network_name="lan", mac_prefix="aa:bb:cc:dd"),
            ("Invalid MAC address prefix 'aa:bb:cc:dd'", "wrong_input"),
        )

    def test_locks_and_hooks(self) -> None:
        """The network is held exclusively; hooks get its new values."""
        unit = self.unit("OP_NETWORK_SET_PARAMS", network_name="lan", gateway="203.0.113.9")
        self.assertEqual(
            self.wanted(unit),
            {Level.CLUSTER: shared(BGL), Level.NETWORK: exclusive(self.lan.uuid)},
        )
        unit.check(self.ctx)
        self.assertEqual(
            unit.hook_environment(self.ctx.snapshot()),
            {
                "NETWORK_NAME": "lan",
                "NETWORK_SUBNET": "203.0.113.0/24",
                "NETWORK_GATEWAY": "203.0.113.9",
            },
        )


class ConnectionTests(NetworkScene):
    """OP_NETWORK_CONNECT and OP_NETWORK_DISCONNECT."""

    def networks(self) -> Any:
        return self.ctx.snapshot().group("default").networks

    def disconnect(self) -> Any:
        return self.run_unit("OP_NETWORK_DISCONNECT", group_name="default", network_name="lan")

    def test_there_and_back(self) -> None:
        """A connection is stored in the group, whose serial increases both times."""
        serial = self.ctx.snapshot().group("default").serial_no
        self.connect(network_vlan=".100")
        self.assertEqual(
            self.networks(), {self.lan.uuid: {"mode": "bridged", "link": "br0", "vlan": ".100"}}
        )
        self.disconnect()
        self.assertEqual(self.networks(), {})
        self.assertEqual(self.ctx.snapshot().group("default").serial_no, serial + 2)
        self.assertEqual(verify(self.ctx.snapshot()), [])

    def test_already_there(self) -> None:
        """Connecting or disconnecting twice is a warning, and nothing changes."""
        self.connect()
        before = self.ctx.snapshot()
        self.connect(network_link="br1")
        self.assertIs(self.ctx.snapshot(), before)
        self.disconnect()
        before = self.ctx.snapshot()
        self.disconnect()
        self.assertIs(self.ctx.snapshot(), before)
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Network 'lan' is already mapped to group 'default'",
                " - WARNING: Network 'lan' is not mapped to group 'default'",
            ],
        )

    def test_conflicts(self) -> None:
        """An address of the network in the group is a conflict, unless that is ignored."""
        self.put_instance(Nic(mac="aa:00:00:00:00:01", uuid="nic-1", ip="203.0.113.77"))
        self.assertEqual(
            self.refused(
                "OP_NETWORK_CONNECT",
                group_name="default",
                network_name="lan",
                network_mode="routed",
                network_link="r",
            ),
            (
                "Conflicting IP addresses found;  remove/modify the corresponding network"
                " interfaces",
                "wrong_state",
            ),
        )
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: IP addresses from network 'lan', which is about to connect to node"
                " group 'default', are in use: db: nic0/203.0.113.77",
            ],
        )
        self.connect(conflicts_check=False)
        self.assertIn(self.lan.uuid, self.networks())

    def test_conflict_elsewhere(self) -> None:
        """Instances of other groups and other addresses don't conflict."""
        self.run_unit("OP_GROUP_ADD", group_name="other")
        self.run_unit("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node3"])
        self.put_instance(Nic(mac="aa:00:00:00:00:01", uuid="n", ip="203.0.113.77"), "node3")
        self.connect()
        self.assertEqual(self.ctx.lines, [])

    def test_disconnect_in_use(self) -> None:
        """A network in which the group has an instance can't be disconnected."""
        self.connect()
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n", ip="203.0.113.77", network=self.lan.uuid)
        self.put_instance(nic)
        error = self.refused("OP_NETWORK_DISCONNECT", group_name="default", network_name="lan")
        self.assertEqual(error[1], "wrong_state")
        self.assertIn("disconnect from node group 'default'", self.ctx.lines[0])

    def test_parameters_that_make_no_sense(self) -> None:
        """Groups that aren't there are refused by name."""
        self.assertEqual(
            self.refused("OP_NETWORK_DISCONNECT", group_name="nosuch", network_name="lan"),
            ("Node group 'nosuch' not found", "unknown_entity"),
        )

    def test_locks_and_hooks(self) -> None:
        """The group is held exclusively, the network shared; hooks run on the group's nodes."""
        snapshot = self.ctx.snapshot()
        self.renew(
            snapshot.with_object(
                "nodes", replace(snapshot.node("node1"), group="elsewhere")
            ).with_object("nodegroups", replace(snapshot.group("default"), networks={}))
        )
        group = snapshot.group("default").uuid
        asked = {"group_name": "default", "network_name": "lan"}
        unit = self.unit("OP_NETWORK_DISCONNECT", **asked)
        self.assertEqual(
            self.wanted(unit),
            {
                Level.CLUSTER: shared(BGL),
                Level.NODEGROUP: exclusive(group),
                Level.NETWORK: shared(self.lan.uuid),
            },
        )
        nodes = unit.hook_nodes(self.ctx.snapshot()).before
        names = [self.ctx.snapshot().nodes[uuid].name for uuid in nodes]
        self.assertEqual((names[0], sorted(names[1:])), ("node1", ["node2", "node3"]))
        unit.check(self.ctx)
        self.assertEqual(unit.hook_environment(snapshot), {"GROUP_NAME": "default"})
        connect = self.unit("OP_NETWORK_CONNECT", **asked, network_mode="routed", network_link="r")
        self.assertEqual(self.wanted(connect), self.wanted(unit))
        self.assertEqual(
            connect.hook_environment(snapshot),
            {
                "GROUP_NAME": "default",
                "GROUP_NETWORK_MODE": "routed",
                "GROUP_NETWORK_LINK": "r",
                "GROUP_NETWORK_VLAN": "",
            },
        )
