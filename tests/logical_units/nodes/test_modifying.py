"""OP_NODE_SET_PARAMS: each refusal, each change, locks, hooks and calls."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene

OP = "OP_NODE_SET_PARAMS"


class RefusalTests(NodeScene):
    """Requests that are refused."""

    def refused(self, name: str, **parameters: Any) -> tuple[Any, ...]:
        return self.refusal(OP, node_name=name, **parameters)

    def test_unknown(self) -> None:
        """An unknown node, or one with another uuid than expected, is refused."""
        self.assertEqual(
            self.refused("nosuch", drained=True), ("Node 'nosuch' not known", "unknown_entity")
        )
        text, code = self.refused("node2", node_uuid="other", drained=True)
        self.assertIn(self.node("node2").uuid, text)
        self.assertEqual(code, "resource_not_unique")

    def test_requests(self) -> None:
        """A request without changes, or for two states at once, is refused."""
        self.assertEqual(
            self.refused("node2"), ("Please pass at least one modification", "wrong_input")
        )
        self.assertEqual(
            self.refused("node2", drained=True, offline=True),
            ("Can't set the node into more than one state at the same time", "wrong_input"),
        )

    def test_master(self) -> None:
        """The master's role isn't changed here."""
        for flag in ("master_candidate", "drained", "offline"):
            self.assertEqual(
                self.refused("node1", **{flag: False}),
                ("The master role can be changed only via master-failover", "wrong_input"),
            )
        self.assertEqual(
            self.refused("node1", master_capable=False, auto_promote=True),
            ("Master must remain master capable", "wrong_state"),
        )

    def test_incapable(self) -> None:
        """A node that isn't eligible isn't made a candidate."""
        self.alter("node4", master_capable=False)
        self.assertEqual(
            self.refused("node4", master_candidate=True),
            ("Node node4 is not master capable, cannot make it a master candidate", "wrong_state"),
        )
        self.assertIn(
            "not master capable",
            self.refused("node3", master_candidate=True, master_capable=False)[0],
        )

    def test_hosts_instances(self) -> None:
        """A node with instances, also as their secondary, must be able to have some."""
        self.add_instance("node2", "node3")
        for name in ("node2", "node3"):
            self.assertEqual(
                self.refused(name, vm_capable=False),
                (
                    f"Node {name} hosts instances, cannot unset the vm_capable flag",
                    "wrong_state",
                ),
            )

    def test_pool_short(self) -> None:
        """A candidate that another could replace goes only if that one is promoted."""
        for request in (
            {"master_candidate": False},
            {"offline": True},
            {"drained": True},
            {"master_capable": False},
        ):
            text, code = self.refused("node3", **request)
            self.assertTrue(text.startswith("Not enough master candidates, please pass auto"))
            self.assertEqual(code, "wrong_state")

    def test_power(self) -> None:
        """Only nodes with power control have a power state; one that is off can't go online."""
        text, code = self.refused("node4", powered=False, ndparams={"spindle_count": 2})
        self.assertIn("node4 as it does not support out-of-band", text)
        self.assertEqual(code, "wrong_state")
        self.alter("node4", offline=True, powered=False, ndparams={"oob_program": "/oob"})
        text, code = self.refused("node4", offline=False)
        self.assertIn("Node node4 needs to be turned on", text)

    def test_dead_node_stays_offline(self) -> None:
        """A node that doesn't answer doesn't go online."""
        self.alter("node4", offline=True)
        self.nodes.answers["version"] = Failed("no route")
        self.assertEqual(
            self.refused("node4", offline=False),
            (
                "Node node4 is being de-offlined but fails to report its version: no route",
                "wrong_state",
            ),
        )

    def test_parameters(self) -> None:
        """Parameters of the wrong type, or in the wrong place, are refused."""
        self.assertEqual(
            self.refused("node4", ndparams={"nosuch": 1}), ("Unknown parameter 'nosuch'",)
        )
        text, code = self.refused("node4", ndparams={"exclusive_storage": True})
        self.assertIn("exclusive_storage", text)
        self.assertEqual(code, "wrong_input")
        self.assertIn("nosuch", self.refused("node4", hv_state={"nosuch": {}})[0])
        self.assertIn("nosuch", self.refused("node4", disk_state={"nosuch": {}})[0])

    def test_no_certificate(self) -> None:
        """A node that doesn't return its digest isn't promoted, and nothing changes."""
        self.alter("node4", drained=True)
        self.alter_cluster(candidate_pool_size=10)
        self.nodes.answers["node_crypto_tokens"] = Failed("no key")
        (text,) = self.refused("node4", drained=False)
        self.assertEqual(text, "Could not retrieve the SSL digest of node node4: no key")

    def test_no_one_to_promote(self) -> None:
        """A candidate isn't demoted if the nodes that could replace it don't answer."""
        self.nodes.answers["node4", "node_crypto_tokens"] = Failed("dead")
        (text,) = self.refused("node3", offline=True, auto_promote=True)
        self.assertIn("1 more would have to be promoted", text)
        self.assertIn("(node4: dead)", text)
        self.assertIn("set them offline first", text)


class SecondaryTests(NodeScene):
    """Changes of the secondary address."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(1, 5):
            self.alter(f"node{number}", secondary_ip=f"203.0.113.{number}")

    def refused(self, name: str, address: str, **parameters: Any) -> tuple[Any, ...]:
        return self.refusal(OP, node_name=name, secondary_ip=address, **parameters)

    def test_no_address(self) -> None:
        """Only an IPv4 address is accepted."""
        self.assertEqual(
            self.refused("node2", "2001:db8::1"),
            ("Secondary IP (2001:db8::1) needs to be a valid IPv4 address", "wrong_input"),
        )

    def test_in_use(self) -> None:
        """Another node's address is refused."""
        self.assertEqual(
            self.refused("node2", "203.0.113.3"),
            ("IP address 203.0.113.3 is in use by node node3", "resource_not_unique"),
        )

    def test_homing(self) -> None:
        """Only the master can give up its secondary address, by force."""
        primary = self.node("node2").primary_ip
        self.assertIn("multi-homed cluster", self.refused("node2", primary)[0])
        self.assertIn("multi-homed cluster", self.refused("node2", primary, force=True)[0])
        primary = self.node("node1").primary_ip
        self.run_unit(OP, node_name="node1", secondary_ip=primary, force=True)
        self.assertIn("multi-homed to single-homed", self.ctx.lines[0])

    def test_single_homed(self) -> None:
        """With one address per node, the master must get a second one first, by force."""
        self.alter("node1", secondary_ip=self.node("node1").primary_ip)
        self.assertIn("single-homed cluster", self.refused("node2", "203.0.113.9")[0])
        self.assertIn("single-homed cluster", self.refused("node1", "203.0.113.9")[0])
        self.run_unit(OP, node_name="node1", secondary_ip="203.0.113.9", force=True)
        self.assertIn("single-homed to multi-homed", self.ctx.lines[0])
        self.assertEqual(self.node("node1").secondary_ip, "203.0.113.9")

    def test_not_there(self) -> None:
        """The node must have the address, and be reached at it from the master's."""
        self.nodes.answers["node_has_ip_address"] = False
        text, code = self.refused("node2", "203.0.113.9")
        self.assertIn("doesn't have the secondary ip you gave (203.0.113.9)", text)
        self.assertEqual(code, "environment_error")
        self.nodes.answers["node_has_ip_address"] = Failed("no")
        self.assertEqual(self.refused("node2", "203.0.113.9")[1], "environment_error")
        self.nodes.answers["node_has_ip_address"] = True
        self.nodes.answers["node_verify"] = {"node-net-test": {"node2": "no answer"}}
        text, code = self.refused("node2", "203.0.113.9")
        self.assertIn("not reachable", text)
        self.assertEqual(code, "environment_error")

    def test_instances(self) -> None:
        """Instances whose mirrors run over it must be down, and on an offline node there's none."""
        self.add_instance("node2", "node3", admin_state="up")
        self.assertEqual(
            self.refused("node3", "203.0.113.9"),
            (
                "Instance 'web.example.com' is marked to be up, cannot change secondary ip",
                "wrong_state",
            ),
        )
        self.alter("node3", master_candidate=False, offline=True)
        self.assertIn("offline node has instances", self.refused("node3", "203.0.113.9")[0])

    def test_running_instance(self) -> None:
        """An instance marked down that runs is found; a dead primary node is a refusal."""
        self.add_instance("node2", "node3", admin_state="down")
        self.nodes.answers["instance_info"] = {"state": 0, "memory": 1, "vcpus": 1, "time": 1}
        self.assertEqual(
            self.refused("node3", "203.0.113.9"),
            ("Instance web.example.com is running, cannot change secondary ip", "wrong_state"),
        )
        self.nodes.answers["instance_info"] = {}
        self.alter("node2", master_candidate=False, offline=True)
        self.run_unit(OP, node_name="node3", secondary_ip="203.0.113.9")
        self.assertIn("Primary node offline", self.ctx.lines[0])

    def test_success(self) -> None:
        """The address is there, and the instances are shared meanwhile."""
        self.add_instance("node2", "node3", admin_state="down")
        self.nodes.answers["instance_info"] = {}
        unit = self.unit(OP, node_name="node3", secondary_ip="203.0.113.9")
        self.assertEqual(self.wanted(unit)[Level.INSTANCE], shared("web.example.com"))
        result = self.run_unit(OP, node_name="node3", secondary_ip="203.0.113.9")
        self.assertEqual(result, [("secondary_ip", "203.0.113.9")])
        self.assertEqual(self.node("node3").secondary_ip, "203.0.113.9")
        test = next(asked for asked in self.nodes.asked if asked.procedure == "node_verify")
        self.assertEqual(
            test.arguments[0]["node-net-test"],
            [
                [
                    ["node1", self.node("node1").primary_ip, "203.0.113.1"],
                    ["node3", self.node("node3").primary_ip, "203.0.113.9"],
                ],
                ["node1"],
            ],
        )
        self.assertSound()


class ChangeTests(NodeScene):
    """Changes that are made."""

    def modify(self, name: str, **parameters: Any) -> Any:
        return self.run_unit(OP, node_name=name, **parameters)

    def test_locks(self) -> None:
        """The node alone is held, whoever is promoted."""
        unit = self.unit(OP, node_name="node3", offline=True, auto_promote=True)
        uuid = self.node("node3").uuid
        self.assertEqual(
            self.wanted(unit),
            {
                Level.CLUSTER: shared(BGL),
                Level.NODE: exclusive(uuid),
                Level.NODE_RES: exclusive(uuid),
            },
        )

    def test_parameters(self) -> None:
        """Parameters update the node's own; "default" removes one."""
        self.modify("node4", ndparams={"spindle_count": "4", "ssh_port": 23})
        self.assertEqual(self.node("node4").ndparams, {"spindle_count": 4, "ssh_port": 23})
        before = self.ctx.snapshot()
        result = self.modify("node4", ndparams={"ssh_port": "default"})
        self.assertEqual(result, [])
        self.assertEqual(self.node("node4").ndparams, {"spindle_count": 4})
        serials = (self.node("node4").serial_no, self.ctx.snapshot().cluster.serial_no)
        self.assertEqual(
            serials, (before.node("node4").serial_no + 1, before.cluster.serial_no + 1)
        )

    def test_states(self) -> None:
        """What is told of hypervisors and storage, and whether the node is switched on."""
        self.alter("node4", ndparams={"oob_program": "/oob"})
        self.modify(
            "node4",
            hv_state={"fake": {"mem_total": 100}},
            disk_state={"plain": {"xenvg": {"disk_total": 5}}},
            powered=False,
        )
        node = self.node("node4")
        self.assertEqual(node.hv_state_static["fake"]["mem_total"], 100)
        self.assertEqual(node.disk_state_static["plain"]["xenvg"]["disk_total"], 5)
        self.assertFalse(node.powered)

    def test_capabilities(self) -> None:
        """Capabilities are listed in the result as they were asked for."""
        self.assertEqual(
            self.modify("node4", vm_capable=False, master_capable=False),
            [("master_capable", "False"), ("vm_capable", "False")],
        )
        self.assertFalse(self.node("node4").master_capable or self.node("node4").vm_capable)

    def test_promote(self) -> None:
        """A node becomes a candidate with its certificate, in one transaction."""
        rows = len(self.ctx.journal.rows)
        result = self.modify("node4", master_candidate=True)
        self.assertEqual(result, [("master_candidate", "True")])
        self.assertEqual(
            self.calls(), [("node4", "node_crypto_tokens"), ("node4", "node_ensure_daemon")]
        )
        certs = self.ctx.snapshot().cluster.candidate_certs
        self.assertEqual(certs[self.node("node4").uuid], "digest of node4")
        # The node, the cluster, the document.
        self.assertEqual(len(self.ctx.journal.rows) - rows, 3)
        self.assertSound()

    def test_demote_and_replace(self) -> None:
        """The demoted node is notified, and the one promoted instead is logged."""
        result = self.modify("node3", master_candidate=False, auto_promote=True)
        self.assertEqual(result, [("master_candidate", "False")])
        self.assertEqual(
            self.calls(),
            [
                ("node4", "node_crypto_tokens"),
                ("node3", "node_demote_from_mc"),
                ("node3", "node_ensure_daemon"),
            ],
        )
        self.assertEqual(
            self.ctx.lines, [" - INFO: Promoted nodes to master candidate role: node4"]
        )
        self.assertTrue(self.node("node4").master_candidate)
        self.assertSound()

    def test_next_one_is_promoted(self) -> None:
        """A node that could be promoted but doesn't answer is skipped."""
        self.alter("node2", master_candidate=False)
        self.alter_cluster(
            candidate_pool_size=2,
            candidate_certs={self.node(name).uuid: "digest" for name in ("node1", "node3")},
        )
        self.nodes.answers["node2", "node_crypto_tokens"] = Failed("dead")
        self.modify("node3", drained=True, auto_promote=True)
        self.assertTrue(self.node("node4").master_candidate)
        self.assertSound()

    def test_role_moves(self) -> None:
        """If the role changes between decision and transaction, it is decided again."""
        change_all = self.ctx.change_all

        def late(changes: Any) -> Any:
            self.ctx.change_all = change_all  # type: ignore[method-assign]
            self.alter("node4", drained=True)
            return change_all(changes)

        self.ctx.change_all = late  # type: ignore[method-assign]
        result = self.modify("node4", offline=True)
        self.assertEqual(result, [("drained", "False"), ("offline", "True")])
        self.assertFalse(self.node("node4").drained)
        self.assertSound()

    def test_promoted_key(self) -> None:
        """A promoted node may log in everywhere; a failure to set that up is logged."""
        self.alter_cluster(modify_ssh_setup=True)
        self.modify("node4", master_candidate=True)
        (added,) = (asked for asked in self.nodes.asked if asked.procedure == "node_ssh_key_add")
        self.assertEqual((added.node, added.arguments[1]), ("node1", "node4"))
        self.modify("node4", master_candidate=False)
        self.nodes.answers["node_ssh_key_add"] = Failed("no such file")
        error = self.assertRaises(OpExecError, self.modify, "node4", master_candidate=True)
        self.assertIn("SSH setup of node 'node4' after promotion", error.args[0])
        self.assertIn("WARNING: Node node4 has its new role, but", self.ctx.lines[-2])
        self.assertEqual(self.ctx.lines[-1], "      Hint: gnt-cluster renew-crypto --new-ssh-keys")
        self.assertSound()

    def test_offline(self) -> None:
        """A node marked offline isn't notified, and loses its certificate."""
        self.modify("node3", offline=True, auto_promote=True)
        self.assertEqual(self.calls(), [("node4", "node_crypto_tokens")])
        self.assertNotIn(self.node("node3").uuid, self.ctx.snapshot().cluster.candidate_certs)
        self.assertSound()

    def test_online(self) -> None:
        """A node that comes back is called first, and then promoted if the pool has room."""
        self.modify("node3", offline=True, auto_promote=True)
        self.alter_cluster(candidate_pool_size=4)
        result = self.modify("node3", offline=False)
        self.assertEqual(result, [("master_candidate", "True"), ("offline", "False")])
        self.assertEqual(
            self.calls(),
            [
                ("node3", "version"),
                ("node3", "node_crypto_tokens"),
                ("node3", "node_ensure_daemon"),
            ],
        )
        self.assertEqual(self.ctx.lines[0], " - INFO: Auto-promoting node to master candidate")
        self.assertIn("Transitioning node from offline to online", self.ctx.lines[1])
        self.assertSound()

    def test_back_as_regular(self) -> None:
        """A former candidate that comes back as a regular node sets its files aside."""
        for flag in ("offline", "drained"):
            self.modify("node3", **{flag: True}, auto_promote=True)
            self.assertFalse(self.node("node3").master_candidate)
            result = self.modify("node3", **{flag: False})
            self.assertEqual(result, [(flag, "False")])
            self.assertIn(("node3", "node_demote_from_mc"), self.calls())
            self.assertSound()
            self.modify("node3", master_candidate=True)

    def test_back_as_drained(self) -> None:
        """So does one that comes back drained."""
        self.modify("node3", offline=True, auto_promote=True)
        self.modify("node3", drained=True)
        self.assertIn(("node3", "node_demote_from_mc"), self.calls())
        self.assertSound()

    def test_back_again(self) -> None:
        """So does one that is back already: an earlier job may have ended before it was told."""
        self.modify("node4", offline=False)
        self.assertIn(("node4", "node_demote_from_mc"), self.calls())
        self.modify("node4", vm_capable=False)
        self.assertNotIn(("node4", "node_demote_from_mc"), self.calls())
        self.modify("node3", offline=False)
        self.assertNotIn(("node3", "node_demote_from_mc"), self.calls())

    def test_back_and_not_told(self) -> None:
        """A node that comes back and can't be told is back; the log has a warning."""
        self.modify("node3", offline=True, auto_promote=True)
        self.nodes.answers["node_demote_from_mc"] = Failed("busy")
        self.assertEqual(self.modify("node3", offline=False), [("offline", "False")])
        self.assertIn(" - WARNING: Node node3 failed to demote itself: busy", self.ctx.lines)
        self.assertSound()

    def test_short_pool_is_said(self) -> None:
        """Too few candidates are logged before and after, as by the real daemon."""
        self.alter_cluster(candidate_pool_size=4)
        text = "Configuration data is not consistent: Not enough master candidates: actual {}, "
        self.modify("node4", master_candidate=True)
        self.assertEqual(self.ctx.lines, [text.format(3) + "target 4"])
        self.modify("node4", master_candidate=False)
        self.assertEqual(self.ctx.lines, [text.format(3) + "target 4"])
        self.assertSound(missing=1)

    def test_demotion_fails_on_the_node(self) -> None:
        """A node that can't be notified is named, but still demoted."""
        self.nodes.answers["node_demote_from_mc"] = Failed("busy")
        self.modify("node3", drained=True, auto_promote=True)
        self.assertIn(" - WARNING: Node node3 failed to demote itself: busy", self.ctx.lines)
        self.assertSound()

    def test_ssh_keys(self) -> None:
        """Keys follow the role if the cluster manages them."""
        self.alter_cluster(modify_ssh_setup=True)
        self.nodes.answers["node_ssh_key_remove"] = [["node2", "disk full"]]
        self.modify("node3", drained=True, auto_promote=True)
        added, removed = (
            next(asked for asked in self.nodes.asked if asked.procedure == name)
            for name in ("node_ssh_key_add", "node_ssh_key_remove")
        )
        self.assertEqual((added.node, added.arguments[1]), ("node1", "node4"))
        self.assertEqual((removed.node, removed.arguments[1]), ("node1", "node3"))
        self.assertEqual(removed.arguments[4:], [True, False, False, False, False])
        self.assertEqual(self.ctx.lines[-1], "node2: disk full")

    def test_kvm_daemon(self) -> None:
        """The KVM daemon runs where instances may be shut down from within."""
        self.alter_cluster(enabled_hypervisors=("kvm",), enabled_user_shutdown=True)
        self.nodes.answers["node_ensure_daemon"] = Failed("no such daemon")
        self.modify("node4", vm_capable=True)
        self.assertEqual(self.nodes.asked[-1].arguments, ["ganeti-kvmd", True])
        self.modify("node4", vm_capable=False)
        self.assertEqual(self.nodes.asked[-1].arguments, ["ganeti-kvmd", False])
        self.assertEqual(
            self.ctx.lines, ["Failed to stop KVM daemon on node 'node4': no such daemon"]
        )

    def test_hooks(self) -> None:
        """Hooks run on the master and the node, with the resulting request."""
        self.modify("node3", offline=True, auto_promote=True)
        self.alter_cluster(candidate_pool_size=4)
        unit = self.unit(OP, node_name="node3", offline=False, drained=False)
        unit.check(self.ctx)
        snapshot = self.ctx.snapshot()
        nodes = (snapshot.master.uuid, self.node("node3").uuid)
        self.assertEqual(unit.hook_nodes(snapshot).before, nodes)
        self.assertEqual(unit.hook_nodes(snapshot).after, nodes)
        self.assertEqual(
            unit.hook_environment(snapshot),
            {
                "OP_TARGET": "node3",
                "MASTER_CANDIDATE": True,
                "OFFLINE": False,
                "DRAINED": None,
                "MASTER_CAPABLE": None,
                "VM_CAPABLE": None,
            },
        )
