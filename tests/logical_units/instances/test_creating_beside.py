"""Creations with opportunistic locking hold the same nodes at both levels of nodes."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.locking.levels import Level
from tests.logical_units.instances.creation import CreationCase


class SameNodesTests(CreationCase):
    """Locks of nodes and of their resources never differ while nodes are chosen and disks made."""

    def held_at_calls(self, **parameters: Any) -> list[tuple[str, frozenset[str], frozenset[str]]]:
        """Makes an instance; returns what the newest job holds at each call, at both levels."""
        found = []
        inner = self.world.nodes.call

        def calling(targets: Any, procedure: str, *rest: Any, **options: Any) -> Any:
            job = max(int(owner) for row in self.world.locks.rows() for owner in row.owner)
            levels = [self.world.locks.owned(job, each) for each in (Level.NODE, Level.NODE_RES)]
            found.append((procedure, *levels))
            return inner(targets, procedure, *rest, **options)

        self.world.nodes.call = calling  # type: ignore[method-assign]
        self.world.run("OP_INSTANCE_CREATE", **parameters)
        self.world.nodes.call = inner  # type: ignore[method-assign]
        return found

    def beside(self, template: str) -> list[tuple[str, frozenset[str], frozenset[str]]]:
        """Makes an instance opportunistically while another one is made on node1."""
        second = self.parameters(
            template,
            instance_name="second",
            pnode=...,
            snode=...,
            opportunistic_locking=True,
        )
        found: list[Any] = []
        inner = self.world.nodes.call

        def calling(targets: Any, procedure: str, *rest: Any, **options: Any) -> Any:
            if procedure == "blockdev_create" and not found:
                self.world.nodes.call = inner  # type: ignore[method-assign]
                found.extend(self.held_at_calls(**second))
            return inner(targets, procedure, *rest, **options)

        self.world.nodes.call = calling  # type: ignore[method-assign]
        self.create(pnode="node1")
        return found

    def test_same(self) -> None:
        """Until the disks are configured; then only resources are held."""
        for template in ("plain", "drbd"):
            with self.subTest(template):
                self.renew()
                node1 = self.world.now.node("node1").uuid
                held = self.beside(template)
                until = max(at for at, each in enumerate(held) if each[0] == "blockdev_create")
                for procedure, nodes, resources in held[: until + 1]:
                    self.assertEqual(nodes, resources, procedure)
                    self.assertTrue(nodes, procedure)
                    self.assertNotIn(node1, nodes)
                self.assertEqual(self.world.faults(), [])
