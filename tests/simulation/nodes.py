"""What tests of simulated nodes share: a clock, targets, and calls to one node."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.description import DescribedNode, Description
from ganeti_masterd.simulation.state import Hardware
from ganeti_masterd.timing import Timers

START = 1_700_000_000.0

# The last parts of the addresses of a mirror's two ends.
FIRST, SECOND = 1, 2


def target(name: str, *, offline: bool = False) -> Target:
    """Returns the target of a node, as the configuration would give it."""
    return Target(f"uuid-{name}", name, "192.0.2.1", offline)


def machine(**hardware: Any) -> Description:
    """Returns a cluster whose nodes all have that hardware."""
    return Description(default=DescribedNode(Hardware(**hardware)))


class Disk:
    """A disk thread that runs jobs on request, or at once if ``held`` is False."""

    def __init__(self) -> None:
        self.held = False
        self.jobs: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []
        self.broken: Exception | None = None

    def run(self, function: Any, *args: Any) -> Deferred[Any]:
        if self.broken is not None:
            return defer.fail(self.broken)
        if not self.held:
            return defer.maybeDeferred(function, *args)
        done: Deferred[Any] = Deferred()
        self.jobs.append((done, function, args))
        return done

    def release(self) -> None:
        jobs, self.jobs = self.jobs, []
        for done, function, args in jobs:
            defer.maybeDeferred(function, *args).chainDeferred(done)


class SimulationCase(SynchronousTestCase):
    """Has a clock, and simulated nodes that tests call by name."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.timers = Timers(self.clock)
        self.disk = Disk()
        self.nodes = self.make()

    def make(self, **options: Any) -> SimulatedNodes:
        """Returns started simulated nodes; with ``root`` they use the disk."""
        if "root" in options:
            options["in_disk_thread"] = self.disk.run
            os.makedirs(options["root"], exist_ok=True)
        nodes = SimulatedNodes(self.timers, **options)
        self.successResultOf(nodes.start())
        return nodes

    def result(self, name: str, procedure: str, *arguments: Any) -> NodeResult:
        """Returns the result of a call to one node that ends at once."""
        found = self.successResultOf(self.nodes.call([target(name)], procedure, arguments))
        return found[f"uuid-{name}"]

    def ask(self, name: str, procedure: str, *arguments: Any) -> Any:
        """Returns the payload of a call that succeeds."""
        result = self.result(name, procedure, *arguments)
        self.assertIsNone(result.error, procedure)
        return result.payload

    def fault(self, name: str, procedure: str, *arguments: Any) -> str:
        """Returns the error of a call that fails."""
        result = self.result(name, procedure, *arguments)
        self.assertIsNotNone(result.error, procedure)
        return str(result.error)


def instance(name: str = "web", **changes: Any) -> dict[str, Any]:
    """Returns an instance as it is sent to nodes."""
    return {
        "name": name,
        "uuid": f"uuid-{name}",
        "os": "noop",
        "hypervisor": "fake",
        "hvparams": {},
        "beparams": {"maxmem": 512, "minmem": 256, "vcpus": 2},
        "osparams": {},
        "nics": [],
        "disks_info": [],
        **changes,
    }


def file_disk(path: str, size: int = 16) -> dict[str, Any]:
    """Returns a file disk as it is sent to nodes."""
    return {
        "dev_type": "file",
        "logical_id": ["loop", path],
        "iv_name": "disk/0",
        "size": size,
        "uuid": f"uuid-{path}",
        "children": [],
        "params": {},
        "dynamic_params": {},
    }


def volume(name: str, size: int = 1024, group: str = "xenvg") -> dict[str, Any]:
    """Returns a logical volume as it is sent to nodes."""
    return {**file_disk("/x", size), "dev_type": "plain", "logical_id": [group, name]}


def mirror(minor: int, size: int = 1024, node: str = "a") -> dict[str, Any]:
    """Returns a DRBD disk of the nodes a and b with its children, as it is sent to one of them."""
    return {
        **file_disk("/x", size),
        "dev_type": "drbd",
        "uuid": f"uuid-drbd{minor}",
        "logical_id": ["a", "b", 11000 + minor, minor, minor, "secret"],
        "dynamic_params": {
            "local-ip": f"192.0.2.{FIRST if node == 'a' else SECOND}",
            "remote-ip": f"192.0.2.{SECOND if node == 'a' else FIRST}",
            "local-minor": minor,
            "remote-minor": minor,
        },
        "children": [volume(f"data{minor}", size), volume(f"meta{minor}", 128)],
    }
