"""A small cluster with an instance that is exported and imported; its disks have data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.state import Device, StoredExport
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.moving import MovingScene

EXPORT = "OP_BACKUP_EXPORT"


class BackupScene(MovingScene):
    """Base: the instance has its disks on node2; exports go to node3."""

    sizes: Sequence[int] = (64, 32)

    def prepare(
        self, template: str = "plain", *, up: bool = True, speed: float = 16.0, **about: Any
    ) -> None:
        """Makes the cluster anew."""
        self.renew(description=Description(transfer_speed=speed))
        nodes = ("node2", "node4") if template == "drbd" else ("node2",)
        self.make(template, nodes, sizes=self.sizes, up=up, **about)
        self.fill()

    def fill(self, text: str = "data") -> None:
        """Writes on each disk of the instance."""
        for disk, path in self.paths().items():
            self.write("node2", path, f"{text} of {disk}")

    def paths(self, name: str = NAME) -> dict[int, str]:
        """Returns the paths of the instance's disks, of mirrors those of the data, by index."""
        found = {}
        for index, disk in enumerate(self.world.now.disks_of(self.now(name))):
            base = disk.children[0] if disk.children else disk
            first, second = (base.logical_id or ("", ""))[:2]
            found[index] = f"/dev/{first}/{second}" if base.dev_type == "plain" else str(second)
        return found

    def write(self, node: str, path: str, text: str) -> None:
        """Writes on a device."""
        devices = self.world.nodes.node(node).state.devices
        devices[path] = replace(devices[path], content=(text,))

    def devices(self, node: str) -> dict[str, Device]:
        """Returns the volumes and files of a node, by path."""
        state = self.world.nodes.node(node).state
        return {path: device for path, device in state.devices.items() if "disk" in path}

    def exports(self, node: str = "node3") -> dict[str, StoredExport]:
        """Returns the exports of a node, by name."""
        return dict(self.world.nodes.node(node).state.exports.items())

    def contents(self, name: str = NAME, node: str = "node3") -> list[tuple[str, ...]]:
        """Returns what an export holds of each disk, in order of size, the largest first."""
        dumps = self.exports(node)[name].dumps.values()
        return [dump.content for dump in sorted(dumps, key=lambda dump: -dump.size)]

    def export(self, **parameters: Any) -> Any:
        """Exports the instance to node3."""
        return self.world.run(EXPORT, **{**self.arguments_of(), **parameters})

    def arguments_of(self) -> dict[str, Any]:
        """Returns the parameters of the export."""
        return {"instance_name": NAME, "target_node": "node3"}

    def assertNothingLeft(self) -> None:
        """Expects no snapshot, no daemon, no key, and no export that isn't complete."""
        for each in ("node1", "node2", "node3", "node4"):
            state = self.world.nodes.node(each).state
            self.assertEqual([path for path in state.devices if path.endswith(".snap")], [], each)
            self.assertEqual([name for name in state.exports if name.endswith(".new")], [], each)
            self.assertFalse(state.facts.get("keys"), each)
        self.assertEqual(len(self.world.nodes.world.cluster.transfers), 0)
        self.assertEqual(self.world.faults(), [])
