"""A cluster of four nodes, three of them candidates, for tests of the units of nodes."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.candidates import pool
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.reservations import with_ports
from ganeti_masterd.config.verify import verify
from ganeti_masterd.constants import PROTOCOL_VERSION
from ganeti_masterd.errors import GenericError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import ScriptedNodes
from tests.logical_units.cluster import with_instance
from tests.logical_units.scene import UnitScene


def token(target: Target, arguments: list[Any]) -> list[list[str]]:
    """Returns a node's answer to ``node_crypto_tokens``."""
    return [["ssl", f"digest of {target.name}"]]


class NodeScene(UnitScene):
    """node1 (the master), node2 and node3 are candidates, node4 could be one."""

    def setUp(self) -> None:
        self.nodes = ScriptedNodes(
            {
                "node_crypto_tokens": token,
                "node_ensure_daemon": True,
                "node_verify": {},
                "node_verify_light": {"pvlist": []},
                "version": PROTOCOL_VERSION,
                "node_has_ip_address": True,
            }
        )
        snapshot = new_cluster("cluster", 4, 1000.0, candidate_pool_size=3)
        self.ctx = SynchronousContext(snapshot, self.nodes)

    def node(self, name: str) -> Node:
        """Returns the current node."""
        return self.ctx.snapshot().node(name)

    def alter(self, name: str, **values: Any) -> None:
        """Changes a node of the configuration, before the test's opcode."""
        self.ctx.change(self.node(name).uuid, lambda node: replace(node, **values))

    def alter_cluster(self, **values: Any) -> None:
        """Changes the cluster, before the test's opcode."""
        cluster = self.ctx.snapshot().cluster
        self.ctx.change(cluster.uuid, lambda now: replace(now, **values))

    def add_instance(self, *nodes: str, **about: Any) -> None:
        """Adds an instance "web.example.com" on nodes, with mirrors if there are two."""
        template = "drbd" if len(nodes) > 1 else "diskless"
        snapshot = with_instance(
            self.ctx.snapshot(), "web.example.com", nodes, template=template, **about
        )
        used = with_ports(snapshot.cluster, [11000])
        snapshot = snapshot.with_object("cluster", used)
        self.ctx = SynchronousContext(snapshot, self.nodes, root=self.ctx.root)

    def run_unit(self, op_id: str, **parameters: Any) -> Any:
        """Expands, checks and runs an opcode; forgets earlier calls first."""
        self.nodes.asked.clear()
        self.ctx.lines.clear()
        unit = self.unit(op_id, **parameters)
        for level in Level:
            names = unit.locks(level, self.ctx.snapshot()).names
            members = {Level.NODE: self.ctx.snapshot().nodes}.get(level, ())
            self.ctx.locks[level] = set(members if names is None else names)
        unit.check(self.ctx)
        return unit.exec(self.ctx)

    def refusal(self, op_id: str, **parameters: Any) -> tuple[Any, ...]:
        """Runs an opcode that must be refused and change nothing; returns the error's arguments."""
        before = self.ctx.snapshot()
        error = self.assertRaises(GenericError, self.run_unit, op_id, **parameters)
        self.assertIs(self.ctx.snapshot(), before)
        return error.args

    def calls(self) -> list[tuple[str, str]]:
        """Returns node and procedure of each call, in order."""
        return self.nodes.procedures()

    def assertSound(self, *, missing: int = 0) -> None:
        """Checks that the configuration has no faults except this many missing candidates."""
        snapshot = self.ctx.snapshot()
        faults = [text for text in verify(snapshot) if not text.startswith("Not enough master")]
        self.assertEqual(faults, [])
        self.assertEqual(pool(snapshot).missing, missing)
        candidates = {node.uuid for node in snapshot.candidates()}
        self.assertEqual(candidates, set(snapshot.cluster.candidate_certs))
