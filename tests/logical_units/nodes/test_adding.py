"""OP_NODE_ADD: each refusal, adding, adding again, and failures half-way."""

from __future__ import annotations

import socket
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Add
from ganeti_masterd.config.objects import NodeGroup
from ganeti_masterd.errors import OpExecError, OpPrereqError, ReservationError
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.nodes import addresses
from ganeti_masterd.logical_units.nodes.addresses import ResolvedHost
from ganeti_masterd.logical_units.nodes.physical import faults
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene, token

OP = "OP_NODE_ADD"
ADDRESS = "203.0.113.5"


class AddScene(NodeScene):
    """Adds node5, whose address is given, or looked up in ``hosts``."""

    def setUp(self) -> None:
        super().setUp()
        self.hosts = {"node5": ResolvedHost("node5", ADDRESS)}

        def look_up(name: str, family: int) -> ResolvedHost:
            self.assertEqual(family, socket.AF_INET)
            if name not in self.hosts:
                raise OpPrereqError(f"{name} does not resolve", "resolver_error")
            return self.hosts[name]

        self.patch(addresses, "look_up", look_up)

    def add(self, name: str = "node5", **parameters: Any) -> Any:
        return self.run_unit(OP, node_name=name, **parameters)

    def refused(self, name: str = "node5", **parameters: Any) -> tuple[Any, ...]:
        return self.refusal(OP, node_name=name, **parameters)


class RefusalTests(AddScene):
    """Nodes that can't be added."""

    def test_name(self) -> None:
        """A name that doesn't resolve, or is invalid, is refused."""
        self.assertEqual(self.refused("nosuch")[1], "resolver_error")
        for name in ("no such", ".a", "a..b", "x" * 256):
            self.assertEqual(
                self.refused(name, primary_ip=ADDRESS)[0], f"Invalid hostname '{name}'"
            )

    def test_known(self) -> None:
        """A node that exists already is refused by its full name."""
        self.hosts["n2"] = ResolvedHost("node2", "203.0.113.9")
        for name in ("node2", "n2"):
            self.hosts["node2"] = ResolvedHost("node2", "203.0.113.9")
            self.assertEqual(
                self.refused(name), ("Node node2 is already in the configuration", "already_exists")
            )

    def test_readd(self) -> None:
        """To be added again a node must be known, and not the master; its group stays."""
        self.assertEqual(
            self.refused(readd=True), ("Node node5 is not in the configuration", "unknown_entity")
        )
        self.assertEqual(
            self.refused("node1", readd=True), ("Cannot readd the master node", "wrong_state")
        )
        self.assertEqual(
            self.refused("node2", readd=True, group="default"),
            ("Cannot pass a node group when a node is being readded", "wrong_input"),
        )

    def test_readd_as_another(self) -> None:
        """An address given with a re-add has to be that of a host of the node's name."""
        self.assertEqual(
            self.refused("node5", readd=True, primary_ip=ADDRESS),
            ("Node node5 is not in the configuration", "unknown_entity"),
        )

    def test_group(self) -> None:
        """The group must exist, and must be named if there are several."""
        self.assertEqual(self.refused(group="nosuch")[1], "unknown_entity")
        self.ctx.change_all([Add("nodegroups", NodeGroup(name="other", uuid="g-2"))])
        self.assertEqual(
            self.refused(),
            ("More than one node group exists. Target group must be specified explicitly.",),
        )

    def test_addresses(self) -> None:
        """Invalid addresses, and those of another node or the cluster, are refused."""
        self.assertIn("valid IPv4", self.refused(primary_ip="2001:db8::1")[0])
        self.assertIn("valid IPv4", self.refused(secondary_ip="2001:db8::1")[0])
        taken = self.node("node2").primary_ip
        conflict = (
            "New node ip address(es) conflict with existing node node2",
            "resource_not_unique",
        )
        self.assertEqual(self.refused(primary_ip=taken), conflict)
        self.assertEqual(self.refused(secondary_ip=taken), conflict)
        master_ip = self.ctx.snapshot().cluster.master_ip
        self.assertEqual(self.refused(primary_ip=master_ip)[1], "resource_not_unique")

    def test_ipv6(self) -> None:
        """In an IPv6 cluster a secondary IPv4 address must be given."""
        self.alter_cluster(primary_ip_family=socket.AF_INET6)
        self.assertIn("valid IPv6", self.refused(primary_ip=ADDRESS)[0])
        text, code = self.refused(primary_ip="2001:db8::5")
        self.assertIn("When using a IPv6 primary address", text)
        self.assertEqual(code, "wrong_input")

    def test_homing(self) -> None:
        """A node has two addresses if the master has, and only then."""
        self.assertEqual(
            self.refused(secondary_ip="203.0.113.105"),
            ("The master has no secondary ip but the new node has one", "wrong_input"),
        )
        self.alter("node1", secondary_ip="203.0.113.101")
        self.assertEqual(
            self.refused(),
            ("The master has a secondary ip but the new node doesn't have one", "wrong_input"),
        )

    def test_secondary_unreachable(self) -> None:
        """The second address must answer from the master's."""
        self.alter("node1", secondary_ip="203.0.113.101")
        self.nodes.answers["node_verify"] = {"node-net-test": {"node5": "failure"}}
        text, code = self.refused(secondary_ip="203.0.113.105")
        self.assertIn("Node secondary ip not reachable", text)
        self.assertEqual(code, "environment_error")

    def test_version(self) -> None:
        """The node must answer, and speak the same protocol."""
        self.nodes.answers["version"] = Failed("no route")
        text, code = self.refused()
        self.assertIn("Can't get version information from node node5", text)
        self.assertEqual(code, "environment_error")
        self.nodes.answers["version"] = 2
        self.assertEqual(
            self.refused(),
            ("Version mismatch master version 3000000, node version 2", "environment_error"),
        )
        self.nodes.answers["version"] = "nonsense"
        self.assertEqual(self.refused()[1], "environment_error")

    def test_physical_volumes(self) -> None:
        """A node with unusable physical volumes is refused."""
        self.nodes.answers["node_verify_light"] = {
            "pvlist": [{"name": "/dev/a:b", "vg_name": "xenvg", "size": 1.0}]
        }
        self.assertEqual(
            self.refused(),
            (
                "Checks on node PVs failed: Invalid character ':' in PV '/dev/a:b' of VG 'xenvg'",
                "environment_error",
            ),
        )
        self.nodes.answers["node_verify_light"] = {}
        self.assertIn("Can't get PV list", self.refused()[0])
        self.nodes.answers["node_verify_light"] = Failed("no lvm")
        self.assertEqual(self.refused()[1], "environment_error")

    def test_parameters(self) -> None:
        """Parameters of the wrong type, or in the wrong place, are refused."""
        self.assertEqual(
            self.refused(ndparams={"ssh_port": "x"}),
            ("'ssh_port' (value x) is not a valid integer",),
        )
        self.assertIn("exclusive_storage", self.refused(ndparams={"exclusive_storage": True})[0])
        self.assertIn("nosuch", self.refused(hv_state={"nosuch": {}})[0])
        self.assertIn("nosuch", self.refused(disk_state={"nosuch": {}})[0])

    def test_reserved(self) -> None:
        """A name or address that another job is about to use is refused."""
        for kind, value in (("node", "node5"), ("address", ADDRESS)):
            self.ctx.reservations.reserve(99, kind, value, self.ctx.snapshot())
            self.assertRaises(ReservationError, self.add)
            self.ctx.reservations.drop(99)

    def test_readd_without_instances(self) -> None:
        """A node with instances can't be made unable to have instances."""
        self.add_instance("node3", "node4")
        self.hosts["node4"] = ResolvedHost("node4", self.node("node4").primary_ip)
        text, code = self.refused("node4", readd=True, vm_capable=False)
        self.assertIn("already holds instances", text)
        self.assertEqual(code, "wrong_state")

    def test_readd_addresses(self) -> None:
        """The secondary address has to be the one that it had."""
        self.hosts["node4"] = ResolvedHost("node4", self.node("node4").primary_ip)
        text, code = self.refused("node4", readd=True, secondary_ip="203.0.113.99")
        self.assertIn("Readded node doesn't have the same IP", text)
        self.assertEqual(code, "wrong_input")


class AddTests(AddScene):
    """A new node."""

    def test_locks(self) -> None:
        """Its group is shared; no other node is touched."""
        unit = self.unit(OP, node_name="node5")
        group = self.node("node1").group
        self.assertEqual(
            self.wanted(unit), {Level.CLUSTER: shared(BGL), Level.NODEGROUP: shared(group)}
        )

    def test_regular(self) -> None:
        """With enough candidates it becomes a regular node."""
        self.add(ndparams={"spindle_count": "3"}, hv_state={"fake": {"mem_total": 7}})
        node = self.node("node5")
        self.assertFalse(node.master_candidate or node.offline or node.drained)
        self.assertEqual((node.primary_ip, node.secondary_ip), (ADDRESS, ADDRESS))
        self.assertEqual(node.ndparams, {"spindle_count": 3})
        self.assertEqual(node.hv_state_static["fake"]["mem_total"], 7)
        self.assertEqual(node.serial_no, 1)
        self.assertEqual(
            self.calls(),
            [
                ("node5", "version"),
                ("node5", "node_verify_light"),
                ("node1", "node_verify"),
                ("node5", "node_ensure_daemon"),
            ],
        )
        for level in (Level.NODE, Level.NODE_RES):
            self.assertIn(node.uuid, self.ctx.locks[level])
        self.assertEqual(self.ctx.lines, [])
        self.assertSound()

    def test_candidate(self) -> None:
        """While the pool has room, it is added as a candidate."""
        self.alter_cluster(candidate_pool_size=10)
        before = self.ctx.snapshot().cluster.serial_no
        self.add()
        self.assertEqual(self.ctx.lines, [" - INFO: Node will be a master candidate"])
        self.assertEqual(self.ctx.snapshot().cluster.serial_no, before + 1)
        certs = self.ctx.snapshot().cluster.candidate_certs
        self.assertEqual(certs[self.node("node5").uuid], "digest of node5")
        self.assertSound(missing=1)  # node4

    def test_incapable(self) -> None:
        """A node that isn't master capable isn't made a candidate; capabilities are as given."""
        self.alter_cluster(candidate_pool_size=10)
        self.add(master_capable=False, vm_capable=False)
        node = self.node("node5")
        self.assertFalse(node.master_candidate or node.master_capable or node.vm_capable)
        self.assertNotIn(("node5", "node_crypto_tokens"), self.calls())

    def test_group(self) -> None:
        """It is added to the named group."""
        self.ctx.change_all([Add("nodegroups", NodeGroup(name="other", uuid="g-2"))])
        self.add(group="other")
        self.assertEqual(self.node("node5").group, "g-2")

    def test_full_name(self) -> None:
        """The name is the full one that the resolver knows, or the one given with an address."""
        self.hosts["node5"] = ResolvedHost("node5.example.com", ADDRESS)
        self.add()
        self.assertEqual(self.node("node5").name, "node5.example.com")
        self.add("NODE6.", primary_ip="203.0.113.6")
        self.assertEqual(self.node("node6").primary_ip, "203.0.113.6")

    def test_two_addresses(self) -> None:
        """The node is asked whether it has the secondary address, just before it is added."""
        self.alter("node1", secondary_ip="203.0.113.101")
        self.add(secondary_ip="203.0.113.105")
        self.assertIn(("node5", "node_has_ip_address"), self.calls())
        self.nodes.answers["node_has_ip_address"] = False
        error = self.assertRaises(
            OpExecError, self.add, "node6", primary_ip="203.0.113.6", secondary_ip="203.0.113.106"
        )
        self.assertIn("doesn't have the secondary ip", error.args[0])

    def test_hosts_file(self) -> None:
        """It is added to the master's hosts file, if the cluster manages that."""
        self.alter_cluster(modify_etc_hosts=True)
        self.add()
        change = next(one for one in self.nodes.asked if one.procedure == "etc_hosts_modify")
        self.assertEqual((change.node, change.arguments), ("node1", ["add", "node5", ADDRESS]))

    def test_switch(self) -> None:
        """A virtual switch is set up if the parameters ask for it."""
        self.alter_cluster(ndparams={"ovs": True, "ovs_name": "switch1", "ovs_link": ""})
        self.add()
        self.assertIn("No physical interface for OpenvSwitch", self.ctx.lines[0])
        call = next(one for one in self.nodes.asked if one.procedure == "node_configure_ovs")
        self.assertEqual((call.node, call.arguments), ("node5", ["switch1", ""]))

    def test_ssh_keys(self) -> None:
        """With node_setup its key is distributed to all nodes."""
        self.add(node_setup=True)
        call = self.nodes.asked[-1]
        self.assertEqual((call.node, call.procedure), ("node1", "node_ssh_key_add"))
        self.assertEqual(call.arguments[1], "node5")
        self.assertIn("node5", call.arguments[2])
        self.assertEqual(call.arguments[3:], [False, True, True])

    def test_ssh_keys_fail(self) -> None:
        """If its key can't be distributed, the opcode fails, but the node stays added."""
        self.nodes.answers["node_ssh_key_add"] = Failed("no key")
        error = self.assertRaises(OpExecError, self.add, node_setup=True)
        self.assertIn("Could not update the node's SSH setup.", error.args[0])
        self.assertIsNotNone(self.node("node5"))
        self.assertSound()

    def test_login_fails(self) -> None:
        """A node that the master can't log in to isn't added."""
        self.nodes.answers["node_verify"] = {"nodelist": {"node5": "no key"}}
        error = self.assertRaises(OpExecError, self.add)
        self.assertEqual(error.args, ("ssh/hostname verification failed",))
        self.assertIn("(checking from node1): no key", self.ctx.lines[0])
        self.assertEqual(len(self.ctx.snapshot().nodes), 4)

    def test_no_certificate(self) -> None:
        """A future candidate without a certificate isn't added, and no locks are created."""
        self.alter_cluster(candidate_pool_size=10)
        self.nodes.answers["node_crypto_tokens"] = []
        error = self.assertRaises(OpExecError, self.add)
        self.assertIn("it has no certificate", error.args[0])
        self.assertEqual(len(self.ctx.snapshot().nodes), 4)
        self.assertEqual(len(self.ctx.locks[Level.NODE] | self.ctx.locks[Level.NODE_RES]), 0)

    def test_group_gone(self) -> None:
        """A group that was removed meanwhile makes the change fail."""
        unit = self.unit(OP, node_name="node5")
        unit.check(self.ctx)
        unit.node = replace(unit.node, group="gone")
        error = self.assertRaises(OpPrereqError, unit.exec, self.ctx)
        self.assertEqual(error.args[1], "unknown_entity")

    def test_killed(self) -> None:
        """A kill takes effect before the node is added, or after everything is done."""
        outcomes = set()
        for checkpoints in range(12):
            self.ctx = SynchronousContext(self.ctx.snapshot(), self.nodes)
            unit = self.unit(OP, node_name="node5")
            self.ctx.kill_after = checkpoints
            try:
                unit.check(self.ctx)
                unit.exec(self.ctx)
            except JobKilled:
                self.assertEqual(len(self.ctx.snapshot().nodes), 4)
                outcomes.add("killed")
            else:
                self.assertIn(("node5", "node_ensure_daemon"), self.calls())
                outcomes.add("added")
                break
        self.assertEqual(outcomes, {"killed", "added"})

    def test_hooks(self) -> None:
        """Pre hooks run on the other nodes, post hooks also on the new one."""
        unit = self.unit(OP, node_name="node5")
        unit.check(self.ctx)
        snapshot = self.ctx.snapshot()
        nodes = unit.hook_nodes(snapshot)
        self.assertEqual(set(nodes.before), set(snapshot.nodes))
        unit.exec(self.ctx)
        self.assertEqual(set(nodes.after), set(self.ctx.snapshot().nodes))
        self.assertEqual(
            unit.hook_environment(snapshot),
            {
                "OP_TARGET": "node5",
                "NODE_NAME": "node5",
                "NODE_PIP": ADDRESS,
                "NODE_SIP": ADDRESS,
                "MASTER_CAPABLE": True,
                "VM_CAPABLE": True,
            },
        )


class ReaddTests(AddScene):
    """A node that was there before."""

    def setUp(self) -> None:
        super().setUp()
        self.hosts["node4"] = ResolvedHost("node4", self.node("node4").primary_ip)

    def readd(self, **parameters: Any) -> Any:
        return self.add("node4", readd=True, **parameters)

    def test_locks(self) -> None:
        """The node is held exclusively."""
        unit = self.unit(OP, node_name="node4", readd=True)
        node = self.node("node4")
        self.assertEqual(
            self.wanted(unit),
            {
                Level.CLUSTER: shared(BGL),
                Level.NODEGROUP: shared(node.group),
                Level.NODE: exclusive(node.uuid),
                Level.NODE_RES: exclusive(node.uuid),
            },
        )

    def test_comes_back(self) -> None:
        """It is no longer offline or drained, and keeps everything except its parameters."""
        self.alter("node4", offline=True, powered=False, tags=("x",), ndparams={"spindle_count": 3})
        before = self.node("node4")
        self.readd()
        node = self.node("node4")
        self.assertEqual((node.uuid, node.tags, node.ndparams), (before.uuid, ("x",), {}))
        self.assertTrue(node.powered and not node.offline)
        self.assertEqual(
            self.ctx.lines, [" - INFO: Readding a node, the offline/drained flags were reset"]
        )
        self.assertEqual(
            self.calls()[2:],
            [
                ("node1", "node_verify"),
                ("node4", "node_demote_from_mc"),
                ("node4", "node_ensure_daemon"),
            ],
        )
        self.assertSound()

    def test_candidate(self) -> None:
        """It becomes a candidate if the pool has room, with its new certificate."""
        self.alter_cluster(candidate_pool_size=4)
        self.readd()
        self.assertIn(" - INFO: Node will be a master candidate", self.ctx.lines)
        self.assertNotIn(("node4", "node_demote_from_mc"), self.calls())
        self.assertSound()

    def test_stays_candidate(self) -> None:
        """A present candidate isn't counted in the pool, and so stays a candidate."""
        self.hosts["node3"] = ResolvedHost("node3", self.node("node3").primary_ip)
        self.add("node3", readd=True)
        certs = self.ctx.snapshot().cluster.candidate_certs
        self.assertEqual(certs[self.node("node3").uuid], "digest of node3")
        self.assertSound()

    def test_demoted(self) -> None:
        """A candidate that is no longer master capable loses its certificate."""
        self.hosts["node3"] = ResolvedHost("node3", self.node("node3").primary_ip)
        self.nodes.answers["node_demote_from_mc"] = Failed("busy")
        self.add("node3", readd=True, master_capable=False)
        self.assertFalse(self.node("node3").master_candidate)
        self.assertIn("Node node3 failed to demote itself: busy", self.ctx.lines[-1])
        self.assertSound(missing=1)

    def test_new_address(self) -> None:
        """Another primary address is taken if it is given and free; else the one configured."""
        self.alter("node1", secondary_ip="203.0.113.101")
        self.alter("node4", secondary_ip="203.0.113.104")
        self.hosts["node4"] = ResolvedHost("node4", "203.0.113.77")
        before = self.node("node4").primary_ip
        self.readd()
        self.assertEqual(self.node("node4").primary_ip, before)
        self.assertEqual(self.node("node4").secondary_ip, "203.0.113.104")
        self.readd(primary_ip="203.0.113.44", secondary_ip="203.0.113.104")
        self.assertEqual(self.node("node4").primary_ip, "203.0.113.44")
        taken = self.node("node2").primary_ip
        self.assertEqual(
            self.refused("node4", readd=True, primary_ip=taken, secondary_ip="203.0.113.104")[1],
            "resource_not_unique",
        )

    def test_ssh_keys(self) -> None:
        """Its old key is removed before the new one is distributed."""
        self.readd(node_setup=True)
        removed, added = self.nodes.asked[-2:]
        self.assertEqual(removed.procedure, "node_ssh_key_remove")
        self.assertEqual(removed.arguments[4:], [True, True, False, True, True])
        self.assertEqual(added.procedure, "node_ssh_key_add")

    def test_no_certificate(self) -> None:
        """Without a certificate the node and its lock stay unchanged."""
        self.alter_cluster(candidate_pool_size=4)
        self.alter("node4", offline=True)
        self.nodes.answers["node_crypto_tokens"] = Failed("no")
        before = self.ctx.snapshot()
        self.assertRaises(OpExecError, self.readd)
        self.assertIs(self.ctx.snapshot(), before)
        self.assertIn(self.node("node4").uuid, self.ctx.locks[Level.NODE])

    def test_offline_node_is_called(self) -> None:
        """It is called even though the configuration still has it as offline."""
        self.alter_cluster(candidate_pool_size=4)
        self.alter("node4", offline=True)
        self.nodes.answers["node_crypto_tokens"] = token
        self.readd()
        self.assertIn(("node4", "node_crypto_tokens"), self.calls())
        self.assertSound()


class ResolverTests(NodeScene):
    """Looking up a name."""

    def test_found(self) -> None:
        """The full name and the first address are returned."""
        self.patch(socket, "getfqdn", lambda name: f"{name}.Example.com")
        self.patch(socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", ("203.0.113.5", 0))])
        self.assertEqual(addresses.look_up("n5", 2), ResolvedHost("n5.example.com", "203.0.113.5"))

    def test_missing(self) -> None:
        """The resolver's error is passed on."""

        def fail(*_: object) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.patch(socket, "getfqdn", lambda name: name)
        self.patch(socket, "getaddrinfo", fail)
        error = self.assertRaises(OpPrereqError, addresses.look_up, "n5", 2)
        self.assertEqual(
            error.args,
            (
                "The given name (n5) does not resolve: Name or service not known",
                "resolver_error",
            ),
        )


class PhysicalVolumeTests(NodeScene):
    """Checks of physical volumes."""

    def test_exclusive(self) -> None:
        """Exclusive storage needs volumes of one size, each of one disk."""
        pair = [
            {"name": "/dev/a", "vg_name": "vg", "size": 1000.0},
            {"name": "/dev/b", "vg_name": "vg", "size": 900.0},
        ]
        self.assertEqual(faults({"pvlist": pair}, exclusive=False), [])
        self.assertEqual(
            faults({"pvlist": pair, "exclusive-pvs": [["/dev/a", ["x", "y"]]]}, exclusive=True),
            [
                "Sizes of PVs are too different: min=900 max=1000",
                "PV /dev/a is shared among unrelated LVs (x, y)",
            ],
        )
        self.assertEqual(faults({"pvlist": []}, exclusive=True), [])
