"""Live migrations between simulated nodes, under fake and under kvm."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.switches import throw
from tests.simulation.nodes import SimulationCase, instance

#: What a node says of a migration whose memory it has counted.
COMPLETED = {"status": "completed", "transferred_ram": 512 << 20, "total_ram": 512 << 20}


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
        """Copying memory takes time, during which both nodes list the instance."""
        self.accept()
        self.assertEqual(self.listed("b"), ["web"])
        self.migrate()
        self.clock.advance(2)
        self.assertEqual(
            self.status(),
            {"status": "active", "transferred_ram": 128 << 20, "total_ram": 512 << 20},
        )
        self.clock.advance(6)
        self.assertEqual(self.status(), COMPLETED)
        self.finish(success=True)
        self.assertEqual((self.listed("a"), self.listed("b")), ([], ["web"]))

    def test_postcopy(self) -> None:
        """Where the instance's parameters allow it, a question in time switches."""
        self.web["hvparams"] = {"migration_caps": "xbzrle:postcopy-ram"}
        self.accept()
        self.migrate()
        self.clock.advance(3)
        self.assertNotIn("postcopy_status", self.status())
        self.clock.advance(2)
        status = self.status()
        self.assertEqual(
            (status["status"], status["postcopy_status"]), ("active", "postcopy-active")
        )
        self.assertEqual(self.status()["status"], "postcopy-active")
        self.clock.advance(3)
        self.assertEqual(self.status(), COMPLETED)

    def test_memory(self) -> None:
        """A node that accepts an instance reserves its memory at once, or refuses."""
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
        """A node doesn't accept an instance that it runs already."""
        self.accept()
        self.assertEqual(
            self.fault("b", "accept_instance", self.web, "", "192.0.2.2"),
            "Failed to accept instance: Can't accept instance, already running",
        )

    def test_not_running(self) -> None:
        """An instance that doesn't run, or waits for its memory, can't be migrated."""
        mail = instance("mail", hypervisor="kvm")
        refused = "Failed to migrate instance: Instance not running, cannot migrate"
        arguments = ("cluster", mail, "192.0.2.2", True)
        self.assertEqual(self.fault("a", "instance_migrate", *arguments), refused)
        self.accept()
        arguments = ("cluster", self.web, "192.0.2.1", True)
        self.assertEqual(self.fault("b", "instance_migrate", *arguments), refused)

    def test_not_accepted(self) -> None:
        """A migration to a node that hasn't accepted the instance fails."""
        self.migrate()
        self.assertEqual(self.status(), {"status": "failed"})

    def test_fails_on_the_way(self) -> None:
        """A migration fails at the set percentage, and is undone."""
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
        self.assertEqual(self.status(), COMPLETED)

    def test_link_cut(self) -> None:
        """A migration fails if the link is cut, even if it is mended later."""
        self.accept()
        self.migrate()
        throw(self.nodes, ["net", "a", "b", "down"])
        self.assertEqual(self.status(), {"status": "failed"})
        throw(self.nodes, ["net", "a", "b", "up"])
        self.assertEqual(self.status(), {"status": "failed"})

    def test_fake(self) -> None:
        """Under fake the target doesn't list the instance until the end."""
        self.web = instance("other")
        self.ask("a", "instance_start", self.web, False, [])
        self.accept()
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), [])
        self.migrate()
        self.clock.advance(8)
        self.assertEqual(self.status(), {"status": "completed"})
        self.finish(success=True)
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), ["other"])
