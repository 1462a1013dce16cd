"""The shared state of simulated nodes survives a restart of the daemon, even after a kill."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.switches import throw
from tests.simulation.mirrored import MirroredCase
from tests.simulation.nodes import instance, target, volume


class RestartTests(MirroredCase):
    pace = SyncPace(seconds=10.0)

    def setUp(self) -> None:
        super().setUp()
        self.root = self.mktemp()
        self.nodes = self.opened()

    def opened(self) -> SimulatedNodes:
        description = Description(pace=self.pace, transfer_speed=8.0, migration_speed=64.0)
        return self.make(root=self.root, log="synced", description=description)

    def restart(self) -> None:
        """Stops at once, like a kill, and starts again with what was written."""
        self.nodes = self.opened()

    def ask(self, name: str, procedure: str, *arguments: Any) -> Any:
        """Returns the payload of a call, which in this mode is answered once it is on disk."""
        done = self.nodes.call([target(name)], procedure, arguments)
        self.clock.advance(0)
        result = self.successResultOf(done)[f"uuid-{name}"]
        self.assertIsNone(result.error, procedure)
        return result.payload

    def test_mirror(self) -> None:
        """A mirror's sync continues, with the progress computed from the clock."""
        self.create_mirror()
        self.clock.advance(3)
        self.restart()
        self.assertEqual(self.find("b")["sync_percent"], 30.0)
        self.restart()
        self.clock.advance(7)
        self.assertFalse(self.find("b")["is_degraded"])
        self.assertEqual(self.state("a"), "Connected Primary UpToDate")
        self.ask("a", "blockdev_shutdown", self.disks["a"])
        self.restart()
        self.assertIsNone(self.find("a"))
        self.assertEqual(self.state("b"), "WFConnection Secondary UpToDate")

    def test_world(self) -> None:
        """Links stay cut, nodes stay off, and speeds stay as they were set."""
        self.create_mirror()
        for command in ("net a b down", "sync 3", "power c off", "fail-migration web 50"):
            throw(self.nodes, command.split())
        self.nodes.log.changed()
        self.clock.advance(1)
        self.restart()
        self.assertEqual(self.state("a"), "WFConnection Primary UpToDate")
        self.assertFalse(self.nodes.world.powered("c"))
        self.assertEqual(self.nodes.world.pace(), SyncPace(seconds=3.0))

    def test_migration(self) -> None:
        """A migration continues."""
        web = instance()
        self.ask("a", "instance_start", web, False, [])
        self.ask("a", "instance_migrate", "cluster", web, "192.0.2.2", True)
        self.clock.advance(4)
        self.restart()
        status = self.ask("a", "instance_get_migration_status", web)
        self.assertEqual(status["status"], "active")
        self.assertEqual(status["transferred_ram"] * 2, status["total_ram"])
        self.clock.advance(4)
        self.assertEqual(
            self.ask("a", "instance_get_migration_status", web), {"status": "completed"}
        )

    def test_transfer(self) -> None:
        """Daemons that copy a disk continue."""
        for node in ("a", "b"):
            self.create(node, volume("disk", 64), primary=True)
        options = {"magic": "m", "connect_timeout": 60, "compress": "none"}
        raw = ["raw", [volume("disk", 64)]]
        taking = self.ask("b", "import_start", options, instance(), "disk0", raw)
        self.clock.advance(1)
        port = self.ask("b", "impexp_status", [taking])[0]["listen_port"]
        sending = self.ask(
            "a", "export_start", options, "192.0.2.2", port, instance(), "disk0", raw
        )
        self.clock.advance(4.5)
        self.restart()
        (status,) = self.ask("a", "impexp_status", [sending])
        self.assertEqual((status["connected"], status["progress_percent"]), (True, 50))
        self.clock.advance(4)
        for node, name in (("a", sending), ("b", taking)):
            self.assertEqual(self.ask(node, "impexp_status", [name])[0]["exit_status"], 0)
