"""Which kind of nodes a door leads to, and its use before and while the reactor runs."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ganeti_masterd.rpc.https import HTTPSNodes
from ganeti_masterd.rpc.interfaces import INodeRPC, Target
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.startup.doors import Door, open_door
from ganeti_masterd.timing import Timers
from tests.startup.scene import RootTestCase

NODE = Target("uuid", "node2", "198.51.100.2")


class DoorTests(RootTestCase):
    """Both doors."""

    def open(self, simulate_log: Any) -> Door:
        """Opens a door on a clock."""
        clock = Clock()
        timers = Timers(clock, time.time)
        return open_door(clock, timers, self.paths, "node1", simulate_log=simulate_log)

    def test_choice(self) -> None:
        """Simulated nodes are chosen if the mode of their log is given, else node daemons."""
        for mode, kind in (
            ("off", SimulatedNodes),
            ("buffered", SimulatedNodes),
            (None, HTTPSNodes),
        ):
            door = self.open(mode)
            self.assertIsInstance(door.nodes, kind)
            verifyObject(INodeRPC, door.nodes)
            self.successResultOf(door.start())
            self.successResultOf(door.close())

    def test_before_the_reactor(self) -> None:
        """Simulated nodes can be called and keep their state without any thread."""
        door = self.open("buffered")
        self.successResultOf(door.start())
        called: Deferred[Any] = door.nodes.call([NODE], "master_node_name")
        self.assertEqual(self.successResultOf(called)["uuid"].payload, "node1")
        self.successResultOf(door.close())
        with open(self.root + "/simulation/calls.log") as log:
            self.assertIn("master_node_name", log.read())

    def test_broken_store(self) -> None:
        """A store that can't be opened fails the start."""
        with open(self.root + "/simulation", "w"):
            pass
        self.failureResultOf(self.open("off").start())
