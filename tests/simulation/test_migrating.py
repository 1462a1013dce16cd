"""Instances that go from one simulated node to another: as under fake, and as under kvm."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.switches import throw
from tests.simulation.nodes import SimulationCase, instance


class MigrationTests(SimulationCase):
    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.make(description=Description(migration_speed=64.0))
        self.web = instance(hypervisor="kvm")
        self.ask("a", "instance_start", self.web, False, [])

    def accept(self) -> None:
        self.ask("b", "accept_instance", self.web, "", "192.0.2.2")

    def migrate(self) -> None:
        self.ask("a", "instance_migrate", "cluster", self.web, "192.0.2.2", True)

    def status(self) -> Any:
        return self.ask("a", "instance_get_migration_status", self.web)

    def listed(self, node: str) -> Any:
        return self.ask(node, "instance_list", ["kvm"], {"kvm": {}})

    def finish(self, *, success: bool) -> None:
        self.ask("a", "instance_finalize_migration_src", self.web, success, True)
        self.ask("b", "instance_finalize_migration_dst", self.web, "", success)

    def test_live(self) -> None:
        """The memory goes in time; meanwhile both nodes have the instance."""
        self.accept()
        self.assertEqual(self.listed("b"), ["web"])
        self.migrate()
        self.clock.advance(2)
        self.assertEqual(
            self.status(),
            {"status": "active", "transferred_ram": 128 << 20, "total_ram": 512 << 20},
        )
        self.clock.advance(6)
        self.assertEqual(self.status(), {"status": "completed"})
        self.finish(success=True)
        self.assertEqual((self.listed("a"), self.listed("b")), ([], ["web"]))

    def test_memory(self) -> None:
        """A node that accepts an instance gives it memory at once, or refuses."""
        space = self.ask("b", "node_info", None, [["kvm", {}]])[2][0]["memory_free"]
        self.accept()
        left = self.ask("b", "node_info", None, [["kvm", {}]])[2][0]["memory_free"]
        self.assertEqual(space - left, 512)
        self.finish(success=False)
        huge = instance("huge", hypervisor="kvm", beparams={"maxmem": 1 << 20, "minmem": 1 << 20})
        self.assertIn(
            "Failed to accept instance: Failed to start instance huge: not enough memory",
            self.fault("b", "accept_instance", huge, "", "192.0.2.2"),
        )

    def test_twice(self) -> None:
        """An instance that runs there already isn't accepted."""
        self.accept()
        self.assertEqual(
            self.fault("b", "accept_instance", self.web, "", "192.0.2.2"),
            "Failed to accept instance: Can't accept instance, already running",
        )

    def test_not_running(self) -> None:
        """What doesn't run here can't be sent away, nor what only waits here."""
        mail = instance("mail", hypervisor="kvm")
        refused = "Failed to migrate instance: Instance not running, cannot migrate"
        arguments = ("cluster", mail, "192.0.2.2", True)
        self.assertEqual(self.fault("a", "instance_migrate", *arguments), refused)
        self.accept()
        arguments = ("cluster", self.web, "192.0.2.1", True)
        self.assertEqual(self.fault("b", "instance_migrate", *arguments), refused)

    def test_not_accepted(self) -> None:
        """A node that doesn't wait for the instance gets nothing: the migration fails."""
        self.migrate()
        self.assertEqual(self.status(), {"status": "failed"})

    def test_fails_on_the_way(self) -> None:
        """A migration fails at the per cent that was asked for, and is undone."""
        throw(self.nodes, ["fail-migration", "web", "50"])
        self.accept()
        self.migrate()
        self.clock.advance(3)
        self.assertEqual(self.status()["status"], "active")
        self.clock.advance(2)
        self.assertEqual(self.status(), {"status": "failed"})
        self.finish(success=False)
        self.assertEqual((self.listed("a"), self.listed("b")), (["web"], []))
        throw(self.nodes, ["fail-migration", "web", "never"])
        self.accept()
        self.migrate()
        self.clock.advance(8)
        self.assertEqual(self.status(), {"status": "completed"})

    def test_link_cut(self) -> None:
        """A migration over a link that is cut fails, also when the link is mended."""
        self.accept()
        self.migrate()
        throw(self.nodes, ["net", "a", "b", "down"])
        self.assertEqual(self.status(), {"status": "failed"})
        throw(self.nodes, ["net", "a", "b", "up"])
        self.assertEqual(self.status(), {"status": "failed"})

    def test_fake(self) -> None:
        """Under fake nothing is on the target until the end."""
        self.web = instance("other")
        self.ask("a", "instance_start", self.web, False, [])
        self.accept()
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), [])
        self.migrate()
        self.clock.advance(8)
        self.assertEqual(self.status(), {"status": "completed"})
        self.finish(success=True)
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), ["other"])
