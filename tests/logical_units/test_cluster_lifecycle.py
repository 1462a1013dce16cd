"""Tests of the cluster's beginning, name, keys, files and end, and of the master's address."""

from __future__ import annotations

import os
import socket
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.errors import OpExecError, OpPrereqError
from ganeti_masterd.locking.levels import BGL, Level, all_exclusive, all_shared, exclusive
from ganeti_masterd.logical_units.cluster import renaming
from ganeti_masterd.logical_units.cluster.crypto import key_bits
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.scene import UnitScene
from tests.logical_units.world import World


class ClusterScene(UnitScene):
    """Base: changes the cluster, and looks at the calls that were made."""

    @property
    def cluster(self) -> Any:
        """The cluster as it is now."""
        return self.ctx.snapshot().cluster

    def with_cluster(self, **change: Any) -> None:
        """Changes the cluster before the test."""
        self.ctx.change(self.cluster.uuid, lambda now: replace(now, **change))

    def set_offline(self, name: str) -> None:
        """Sets a node offline before the test."""
        uuid = self.ctx.snapshot().node(name).uuid
        self.ctx.change(uuid, lambda node: replace(node, offline=True, master_candidate=False))


class MasterIpTests(ClusterScene):
    """The master brings its address up and takes it down."""

    def test_calls(self) -> None:
        """The master is told all that it needs; no lock is taken but what all share."""
        for op_id, procedure in (
            ("OP_CLUSTER_ACTIVATE_MASTER_IP", "node_activate_master_ip"),
            ("OP_CLUSTER_DEACTIVATE_MASTER_IP", "node_deactivate_master_ip"),
        ):
            self.nodes.asked.clear()
            self.assertIsNone(self.run_unit(op_id))
            (asked,) = self.nodes.asked
            self.assertEqual((asked.node, asked.procedure), ("node1", procedure))
            params, external = asked.arguments
            self.assertEqual((params["ip"], external), (self.cluster.master_ip, False))
            self.assertEqual(list(self.wanted(self.unit(op_id))), [Level.CLUSTER])

    def test_failures(self) -> None:
        """What the node says is passed on."""
        for op_id, procedure, text in (
            ("OP_CLUSTER_ACTIVATE_MASTER_IP", "node_activate_master_ip", "activate"),
            ("OP_CLUSTER_DEACTIVATE_MASTER_IP", "node_deactivate_master_ip", "deactivate"),
        ):
            self.nodes.answers[procedure] = Failed("no such device")
            error = self.assertRaises(OpExecError, self.run_unit, op_id)
            self.assertIn(f"Could not {text} the master IP", str(error))
            self.assertIn("no such device", str(error))


class PostInitTests(ClusterScene):
    """A new cluster's hooks run, and its master gets a switch if it is to have one."""

    def test_plain(self) -> None:
        """Without a switch nothing is asked."""
        self.assertIs(self.run_unit("OP_CLUSTER_POST_INIT"), True)
        self.assertEqual(self.nodes.asked, [])

    def test_hooks(self) -> None:
        """Hooks run afterwards, on the master."""
        unit = self.unit("OP_CLUSTER_POST_INIT")
        nodes = unit.hook_nodes(self.ctx.snapshot())
        self.assertEqual(nodes.before, ())
        self.assertEqual(nodes.after, (self.cluster.master_node,))
        self.assertEqual(unit.hook_environment(self.ctx.snapshot()), {"OP_TARGET": "cluster"})

    def test_switch(self) -> None:
        """A switch is set up; without a link that is remarked."""
        self.with_cluster(ndparams={**self.cluster.ndparams, "ovs": True, "ovs_link": None})
        self.run_unit("OP_CLUSTER_POST_INIT")
        (asked,) = self.nodes.asked
        self.assertEqual(asked.arguments, ["switch1", None])
        self.assertIn("No physical interface for OpenvSwitch was given", self.ctx.lines[0])
        self.nodes.answers["node_configure_ovs"] = Failed("no")
        self.assertRaises(OpExecError, self.run_unit, "OP_CLUSTER_POST_INIT")


class DestroyTests(ClusterScene):
    """Only an empty cluster can be destroyed."""

    def alone(self) -> None:
        """Leaves the master only."""
        now = self.ctx.snapshot()
        for node in now.nodes.values():
            if node.uuid != now.cluster.master_node:
                now = now.without("nodes", node.uuid)
        now = now.without("instances", "i-1")
        self.ctx = type(self.ctx)(now, self.nodes)

    def test_nodes_left(self) -> None:
        """A cluster with other nodes is refused."""
        error = self.assertRaises(OpPrereqError, self.run_unit, "OP_CLUSTER_DESTROY")
        self.assertEqual(error.args, ("There are still 2 node(s) in this cluster.", "wrong_input"))

    def test_instances_left(self) -> None:
        """A cluster with instances is refused."""
        now = self.ctx.snapshot()
        for name in ("node2", "node3"):
            now = now.without("nodes", now.node(name).uuid)
        self.ctx = type(self.ctx)(now, self.nodes)
        error = self.assertRaises(OpPrereqError, self.run_unit, "OP_CLUSTER_DESTROY")
        self.assertEqual(error.args[0], "There are still 1 instance(s) in this cluster.")

    def test_destroyed(self) -> None:
        """Hooks run before the address is taken down; the result is the master's uuid."""
        self.alone()
        self.assertEqual(self.run_unit("OP_CLUSTER_DESTROY"), self.cluster.master_node)
        self.assertEqual(self.ctx.hooks_early, ["node1"])
        self.assertEqual(self.nodes.procedures(), [("node1", "node_deactivate_master_ip")])
        unit = self.unit("OP_CLUSTER_DESTROY")
        self.assertEqual(self.wanted(unit), {Level.CLUSTER: exclusive(BGL)})
        self.assertEqual(unit.hook_nodes(self.ctx.snapshot()).after, ())

    def test_address_stays(self) -> None:
        """A failure to take down the address is a warning."""
        self.alone()
        self.nodes.answers["node_deactivate_master_ip"] = Failed("busy")
        self.run_unit("OP_CLUSTER_DESTROY")
        self.assertEqual(
            self.ctx.lines, [" - WARNING: Error disabling the master IP address: busy"]
        )


class RenameTests(ClusterScene):
    """The cluster gets another name and the address that goes with it."""

    def setUp(self) -> None:
        super().setUp()
        self.hosts = {"new": ("new.example.com", "192.0.2.9")}
        self.there: set[str] = set()
        self.patch(renaming, "resolve", lambda name, family: self.hosts[name])
        self.patch(renaming, "answers", lambda address: address in self.there)

    def rename(self) -> Any:
        """Renames the cluster to "new"."""
        return self.run_unit("OP_CLUSTER_RENAME", name="new")

    def test_renamed(self) -> None:
        """The old address goes down, the new one comes up; ssh knows the new name everywhere."""
        self.with_cluster(rsahostkeypub="KEY")
        self.set_offline("node3")
        self.assertEqual(self.rename(), "new.example.com")
        self.assertEqual(self.cluster.cluster_name, "new.example.com")
        self.assertEqual(self.cluster.master_ip, "192.0.2.9")
        down, *uploads, up = self.nodes.asked
        self.assertEqual(
            (down.procedure, down.arguments[0]["ip"]), ("node_deactivate_master_ip", "192.0.2.1")
        )
        self.assertEqual(
            (up.procedure, up.arguments[0]["ip"]), ("node_activate_master_ip", "192.0.2.9")
        )
        self.assertEqual(sorted(a.node for a in uploads), ["node1", "node2"])
        file = uploads[0].arguments[0]
        self.assertEqual(
            file[:2], ["/var/lib/ganeti/known_hosts", [0, "new.example.com ssh-rsa KEY\n"]]
        )

    def test_unchanged(self) -> None:
        """The present name is refused."""
        self.hosts["new"] = ("cluster", "192.0.2.1")
        error = self.assertRaises(OpPrereqError, self.rename)
        self.assertIn("Neither the name nor the IP address", error.args[0])

    def test_address_taken(self) -> None:
        """An address in use is refused."""
        self.there.add("192.0.2.9")
        error = self.assertRaises(OpPrereqError, self.rename)
        self.assertEqual(
            error.args,
            (
                "The given cluster IP address (192.0.2.9) is reachable on the network",
                "resource_not_unique",
            ),
        )

    def test_not_down(self) -> None:
        """If the address doesn't go down nothing changes."""
        self.nodes.answers["node_deactivate_master_ip"] = Failed("busy")
        error = self.assertRaises(OpExecError, self.rename)
        self.assertIn("Could not disable the master role", str(error))
        self.assertEqual(self.cluster.cluster_name, "cluster")

    def test_not_changed(self) -> None:
        """If the change fails the old address comes up again."""

        def fail(*_: object) -> None:
            raise OpExecError("no")

        self.patch(self.ctx, "change", fail)
        self.assertRaises(OpExecError, self.rename)
        self.assertEqual(self.nodes.asked[-1].arguments[0]["ip"], "192.0.2.1")

    def test_warnings(self) -> None:
        """Later failures are warnings that say what is left to do."""
        self.nodes.answers.update(
            {"node_activate_master_ip": Failed("busy"), "upload_file": Failed("full")}
        )
        self.rename()
        self.assertEqual(len(self.ctx.lines), 4)
        self.assertIn("to node node", self.ctx.lines[0])
        self.assertIn("please restart manually: busy", self.ctx.lines[-1])

    def test_hooks(self) -> None:
        """Hooks run on the master before, everywhere afterwards."""
        unit = self.unit("OP_CLUSTER_RENAME", name="new")
        nodes = unit.hook_nodes(self.ctx.snapshot())
        self.assertEqual((len(nodes.before), len(nodes.after)), (1, 3))
        self.assertEqual(
            unit.hook_environment(self.ctx.snapshot()),
            {"OP_TARGET": "cluster", "NEW_NAME": "new"},
        )


class NetworkTests(UnitScene):
    """How names and addresses are looked up."""

    def test_resolve(self) -> None:
        """A numeric address is its own name; nonsense does not resolve."""
        self.assertEqual(renaming.resolve("127.0.0.1", 2)[1], "127.0.0.1")
        error = self.assertRaises(OpPrereqError, renaming.resolve, "no..name", 2)
        self.assertEqual(error.args[1], "resolver_error")

    def test_answers(self) -> None:
        """A machine is there whether or not a node daemon runs on it."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.patch(renaming, "DEFAULT_NODED_PORT", server.getsockname()[1])
            self.assertTrue(renaming.answers("127.0.0.1"))
        self.assertTrue(renaming.answers("127.0.0.1"))

    def test_nobody(self) -> None:
        """An address that can't be reached is free."""

        def unreachable(*_: object) -> None:
            raise TimeoutError

        self.patch(socket, "create_connection", unreachable)
        self.assertFalse(renaming.answers("192.0.2.1"))


class RedistributeTests(ClusterScene):
    """Redistributing the configuration."""

    def test_redistributed(self) -> None:
        """The cluster's serial moves, so all is replicated; files go to the other nodes."""
        root = self.mktemp()
        os.makedirs(root + "/var/lib/ganeti")
        with open(root + "/var/lib/ganeti/hmac.key", "w") as file:
            file.write("secret\n")
        self.ctx.root = os.path.abspath(root)
        serial = self.cluster.serial_no
        self.assertIsNone(self.run_unit("OP_CLUSTER_REDIST_CONF"))
        self.assertEqual(self.cluster.serial_no, serial + 1)
        self.assertEqual(sorted(a.node for a in self.nodes.asked), ["node2", "node3"])
        self.assertEqual(self.nodes.asked[0].arguments[0][1], [0, "secret\n"])

    def test_locks(self) -> None:
        """Nodes are shared."""
        self.assertEqual(self.wanted(self.unit("OP_CLUSTER_REDIST_CONF"))[Level.NODE], all_shared)


class RenewCryptoTests(ClusterScene):
    """Digests of certificates are learnt, and SSH keys renewed."""

    def test_digests(self) -> None:
        """The candidates' digests are those that they return; other nodes have none."""
        self.set_offline("node3")
        self.nodes.answers["node_crypto_tokens"] = lambda target, _: [["ssl", target.name]]
        self.run_unit("OP_CLUSTER_RENEW_CRYPTO", node_certificates=True)
        self.assertEqual(sorted(self.cluster.candidate_certs.values()), ["node1", "node2"])
        self.assertEqual(self.ctx.lines, ["Renewing Node SSL certificates"])

    def test_silent_node(self) -> None:
        """A node is asked three times; then it keeps its digest, and is named."""
        old = self.cluster.candidate_certs[self.ctx.snapshot().node("node2").uuid]
        self.nodes.answers["node_crypto_tokens"] = lambda target, _: [["ssl", target.name]]
        self.nodes.answers["node2", "node_crypto_tokens"] = Failed("dead")
        self.run_unit("OP_CLUSTER_RENEW_CRYPTO", node_certificates=True)
        self.assertEqual(sum(a.node == "node2" for a in self.nodes.asked), 3)
        self.assertEqual(sum(a.node == "node1" for a in self.nodes.asked), 1)
        self.assertIn("Node node2: dead", self.ctx.lines[-1])
        self.assertEqual(
            sorted(self.cluster.candidate_certs.values()), sorted([old, "node1", "node3"])
        )

    def test_keys(self) -> None:
        """The master renews the keys of all nodes; only then the new kind is set."""
        self.with_cluster(modify_ssh_setup=True)
        parameters: dict[str, Any] = {"renew_ssh_keys": True, "ssh_key_type": "ecdsa"}
        self.nodes.answers["node_ssh_keys_renew"] = Failed("no")
        self.assertRaises(OpExecError, self.run_unit, "OP_CLUSTER_RENEW_CRYPTO", **parameters)
        self.assertEqual(self.cluster.ssh_key_type, "rsa")
        self.nodes.answers["node_ssh_keys_renew"] = None
        self.run_unit("OP_CLUSTER_RENEW_CRYPTO", **parameters)
        self.assertEqual((self.cluster.ssh_key_type, self.cluster.ssh_key_bits), ("ecdsa", 384))
        self.assertEqual(self.nodes.asked[-1].arguments[4:], ["rsa", "ecdsa", 384])

    def test_keys_not_ours(self) -> None:
        """On a cluster that doesn't manage keys none are renewed."""
        self.run_unit("OP_CLUSTER_RENEW_CRYPTO", renew_ssh_keys=True)
        self.assertIn("Cannot renew SSH keys", self.ctx.lines[-1])
        self.assertEqual(self.nodes.asked, [])

    def test_bits(self) -> None:
        """A kind of keys has its sizes; by default that of the present keys."""
        self.assertEqual(key_bits("rsa", None, replace(self.cluster, ssh_key_bits=4096)), 4096)
        self.assertEqual(key_bits("dsa", None, self.cluster), 1024)
        self.assertEqual(key_bits("ecdsa", 521, self.cluster), 521)
        for kind, bits in (("dsa", 2048), ("ecdsa", 1024), ("rsa", 512)):
            error = self.assertRaises(
                OpPrereqError,
                self.run_unit,
                "OP_CLUSTER_RENEW_CRYPTO",
                ssh_key_type=kind,
                ssh_key_bits=bits,
            )
            self.assertIn(f"combination: {kind} with {bits} bits", error.args[0])

    def test_locks(self) -> None:
        """No node changes its role meanwhile."""
        unit = self.unit("OP_CLUSTER_RENEW_CRYPTO")
        self.assertEqual(self.wanted(unit)[Level.NODE], all_exclusive)

    def test_simulated(self) -> None:
        """On simulated nodes all of it leaves a sound cluster."""
        world = World(3)
        world.run("OP_CLUSTER_RENEW_CRYPTO", node_certificates=True, renew_ssh_keys=True)
        self.assertEqual(world.faults(), [])
