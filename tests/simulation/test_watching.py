"""The simulation notices what must never happen to instances and mirrors."""

from __future__ import annotations

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.logical_units.world import World
from tests.simulation.mirrored import NODES, MirroredCase
from tests.simulation.nodes import SimulationCase, instance


class RunningTests(SimulationCase):
    """An instance runs on one node only."""

    def start(self, node: str, **changes: object) -> None:
        self.ask(node, "instance_start", instance(**changes), False, [])

    def test_twice(self) -> None:
        """A second start is recorded and logged, but succeeds as on a real node."""
        told: list[str] = []

        def observe(event: dict[str, object]) -> None:
            told.append(f"{event.get('log_level')} {event.get('what')} {event.get('log_format')}")

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for node in NODES:
            self.start(node)
        self.assertEqual(self.nodes.watch.seen, ["web runs on a and on b"])
        self.assertTrue(
            any("Must never be:" in line and "web runs on a" in line for line in told), told
        )
        self.assertEqual(self.ask("b", "instance_list", ["fake"], {"fake": {}}), ["web"])

    def test_fine(self) -> None:
        """Other instances, a second start on the same node, and one after a stop are fine."""
        self.start("a")
        self.start("a")
        self.start("b", name="db")
        self.ask("a", "instance_shutdown", instance(), 120, [])
        self.start("b")
        self.assertEqual(self.nodes.watch.seen, [])

    def test_migration(self) -> None:
        """The target runs it once all memory is there; earlier, the source does, too."""
        for speed, seen in ((None, []), (1.0, ["web runs on a and on b"])):
            self.nodes = self.make()
            self.nodes.migration_speed = lambda speed=speed: speed  # type: ignore[method-assign]
            moved = instance(hypervisor="kvm")
            self.start("a", hypervisor="kvm")
            self.ask("b", "accept_instance", moved, "", "192.0.2.2")
            self.ask("a", "instance_migrate", "cluster", moved, "192.0.2.2", True)
            self.assertEqual(self.nodes.watch.seen, [])
            self.ask("b", "instance_finalize_migration_dst", moved, "", True)
            self.assertEqual(self.nodes.watch.seen, seen)


class WritingTests(MirroredCase):
    """A mirror is written at one end only, unless both allow it."""

    def setUp(self) -> None:
        super().setUp()
        self.create_mirror()
        for node in NODES:
            self.assemble(node, primary=False)
        self.assemble("a", primary=True)

    def test_apart(self) -> None:
        """While the ends don't see each other DRBD can't refuse a second primary."""
        self.assertEqual(self.both("drbd_disconnect_net"), [None, None])
        self.assertEqual(self.nodes.watch.seen, [])
        self.assemble("b", primary=True)
        (seen,) = set(self.nodes.watch.seen)
        self.assertRegex(seen, r"^/dev/xenvg/\S+ is primary on a and on b$")

    def test_dual(self) -> None:
        """In a migration both ends may be primary."""
        self.assertEqual(self.both("drbd_disconnect_net"), [None, None])
        self.assertEqual(self.both("drbd_attach_net", True), [None, None])
        self.assemble("b", primary=True)
        self.assertEqual({self.state(node).split()[1] for node in NODES}, {"Primary"})
        self.assertEqual(self.nodes.watch.seen, [])

    def test_one_after_the_other(self) -> None:
        """A failover is fine."""
        self.ask("a", "blockdev_close", "web", [self.disks["a"]])
        self.assemble("b", primary=True)
        self.assertEqual(self.nodes.watch.seen, [])


class WatchedWorldTests(SynchronousTestCase):
    """What opcodes do in tests is watched."""

    def test_raises(self) -> None:
        """A job after which an instance runs twice fails its test."""
        world = World()
        world.nodes.watch.seen.append("web runs on a and on b")
        with self.assertRaisesRegex(AssertionError, "web runs on a"):
            world.run("OP_TAGS_SET", kind="cluster", tags=["one"], name=None)
