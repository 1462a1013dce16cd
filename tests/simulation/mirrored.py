"""A mirror of two nodes, for tests that use and break it at both ends."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.ends import SyncPace
from tests.simulation.nodes import SimulationCase, instance, mirror, target, volume

NODES = ("a", "b")


class MirroredCase(SimulationCase):
    """Has a mirror of the nodes a (the primary) and b; with ``pace`` None it syncs at once."""

    pace: SyncPace = SyncPace()

    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.make(description=Description(pace=self.pace))
        self.disks = {node: mirror(1, node=node) for node in NODES}

    def create(self, node: str, disk: dict[str, Any], *, primary: bool) -> Any:
        arguments = (disk, disk["size"], "web", primary, "originstname+web", False)
        return self.ask(node, "blockdev_create", *arguments)

    def create_mirror(self) -> None:
        """Creates the mirror as for an instance: the primary first, children before the mirror."""
        for node in NODES:
            for child in self.disks[node]["children"]:
                self.create(node, child, primary=node == "a")
            self.create(node, self.disks[node], primary=node == "a")

    def find(self, node: str) -> Any:
        return self.ask(node, "blockdev_find", self.disks[node])

    def assemble(self, node: str, *, primary: bool) -> Any:
        return self.ask(node, "blockdev_assemble", self.disks[node], instance(), primary, 0)

    def both(self, call: str, *arguments: Any) -> list[str | None]:
        """Makes a call with the mirror to both nodes at once; returns their errors."""
        targets = [target(node) for node in NODES]
        found = self.nodes.call(targets, call, lambda one: [[self.disks[one.name]], *arguments])
        self.clock.advance(0)
        while not found.called:
            self.clock.advance(1.0)
        results = self.successResultOf(found)
        return [results[f"uuid-{node}"].error for node in NODES]

    def state(self, node: str) -> str:
        """Returns the connection, role and data of one end."""
        seen = self.nodes.mirrors.status(node, 1)
        return f"{seen.connection} {seen.role} {seen.data}"

    def replace_volumes(self, node: str) -> list[dict[str, Any]]:
        """Makes two new volumes on a node, for addchildren."""
        made = [volume("newdata", 1024), volume("newmeta", 128)]
        for child in made:
            self.create(node, child, primary=False)
        return made
