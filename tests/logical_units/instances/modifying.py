"""What tests of OP_INSTANCE_SET_PARAMS have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.half_way import BreakingNodes, Mode
from tests.logical_units.made import made_instance
from tests.logical_units.test_instance_disks_life import NAME, LifeCase
from tests.logical_units.world import Refused, World

#: Every template that the simulated nodes of these tests make.
TEMPLATES = ("diskless", "drbd", "ext", "file", "plain", "sharedfile")

#: The operation.
MODIFY = "OP_INSTANCE_SET_PARAMS"


#: Calls whose failure is told without naming the node.
QUIET = frozenset(
    {"blockdev_getmirrorstatus", "hooks_runner", "instance_info", "instance_metadata_modify"}
)


#: Calls that change something on nodes; a kill must not break them off (Call.whole).
CHANGING = frozenset(
    {
        "blockdev_assemble",
        "blockdev_convert",
        "blockdev_create",
        "blockdev_pause_resume_sync",
        "blockdev_remove",
        "blockdev_rename",
        "blockdev_shutdown",
        "blockdev_wipe",
        "file_storage_dir_create",
        "file_storage_dir_remove",
        "hotplug_device",
        "instance_balloon_memory",
    }
)


def modified(world: World, **changes: Any) -> Any:
    """Changes the instance; returns the result."""
    return world.run(MODIFY, instance_name=NAME, **changes)


def simulated(world: World) -> SimulatedNodes:
    """Returns the nodes of a world, also where calls to them are broken off."""
    nodes = world.nodes
    return nodes.nodes if isinstance(nodes, BreakingNodes) else nodes  # type: ignore[unreachable]


def strays(world: World) -> list[str]:
    """Returns what nodes hold and no disk is made of, and what disks are made of and isn't there.

    The instance that every world has has no devices.
    """
    now, nodes = world.now, simulated(world)
    wanted: dict[str, set[str]] = {node.name: set() for node in now.nodes.values()}
    for disk in now.disks.values():
        if disk.uuid == "d-web.example.com":
            continue
        for uuid in disk.all_nodes():
            wanted[now.nodes[uuid].name].update(_paths(disk))
    found = []
    for name, paths in wanted.items():
        held = set(nodes.node(name).state.devices)
        found += [f"{name} has {path}" for path in sorted(held - paths)]
        found += [f"{name} lacks {path}" for path in sorted(paths - held)]
    return found


def _paths(disk: Disk) -> list[str]:
    if disk.children:
        return [path for child in disk.children for path in _paths(child)]
    first, second = (disk.logical_id or ("", ""))[:2]
    return [f"/dev/{first}/{second}" if disk.dev_type == "plain" else str(second)]


class ModifyCase(LifeCase):
    """Base: an instance whose devices are always those that its disks are made of.

    No call that changes something on nodes can be broken off by a kill.
    """

    def setUp(self) -> None:
        self.world = World(disk_templates=TEMPLATES)
        self.open_to_kills: list[str] = []
        send = SynchronousContext._send

        def noting(ctx: SynchronousContext, nodes: Any, call: Any, *more: Any) -> Any:
            if call.name in CHANGING and not ctx._shields and ctx.job_id:
                self.open_to_kills.append(call.name)
            return send(ctx, nodes, call, *more)

        self.patch(SynchronousContext, "_send", noting)

    def tearDown(self) -> None:
        super().tearDown()
        self.assertEqual(self.open_to_kills, [])
        self.assertEqual(strays(self.world), [])

    def modify(self, **changes: Any) -> Any:
        """Changes the instance; returns the result."""
        return modified(self.world, **changes)

    def refusal(self, **changes: Any) -> tuple[Any, ...]:
        """Returns the arguments of the error of a change that fails."""
        return self.refused(MODIFY, **changes).args

    def start(self) -> None:
        """Starts the instance."""
        self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        self.world.lines.clear()

    def fill(self) -> None:
        """Writes on each disk which one it is."""
        for index, disk in enumerate(self.disks):
            devices, path = self._data(disk)
            devices[path] = replace(devices[path], content=(f"disk {index}",))

    def contents(self) -> list[str]:
        """Returns what was written on each disk, as its primary node has it."""
        found = []
        for disk in self.disks:
            devices, path = self._data(disk)
            found.append("".join(devices[path].content))
        return found

    def _data(self, disk: Disk) -> tuple[Any, str]:
        primary = self.world.now.nodes[self.instance.primary_node].name
        return simulated(self.world).node(primary).state.devices, _paths(disk)[0]

    @property
    def disks(self) -> tuple[Disk, ...]:
        """The disks of the instance."""
        return self.world.now.disks_of(self.instance)

    def shapes(self) -> list[tuple[Any, ...]]:
        """Returns what the disks look like, in order."""
        return [(disk.dev_type, disk.name, disk.size, disk.mode) for disk in self.disks]

    def calls(self, **changes: Any) -> list[tuple[str, str]]:
        """Changes the instance; returns (node, call) of all calls but those of hooks."""
        nodes = BreakingNodes(self.world.nodes)
        self.world.nodes = nodes  # type: ignore[assignment]
        try:
            self.modify(**changes)
        finally:
            self.world.nodes = nodes.nodes  # type: ignore[assignment]
        return [(node, call) for node, call in nodes.calls if call != "hooks_runner"]

    def broken_everywhere(
        self, make: Callable[[World], object], check: Callable[[str], object], **changes: Any
    ) -> None:
        """Has each call of the change fail, in two ways, each time in a new world.

        The error or the log names the node that failed. Devices that are left over are in
        the log. ``check`` is called with what to say of the moment.
        """
        modes: tuple[Mode, ...] = ("refused", "lost")
        for mode in modes:
            for at in range(500):
                self.world = World(disk_templates=TEMPLATES)
                make(self.world)
                self.fill()
                nodes = BreakingNodes(self.world.nodes, at, mode)
                self.world.nodes = nodes  # type: ignore[assignment]
                said: list[Any] = []
                try:
                    self.modify(**changes)
                except Refused as refused:
                    said += refused.error.args
                if nodes.broken is None:
                    break
                node, call = nodes.broken
                said += self.world.lines
                where = f"{mode} at {at}, {nodes.broken}, {said}"
                self.assertEqual(self.world.faults(), [], where)
                named = any(node in str(text) for text in said)
                self.assertTrue(named or call in QUIET, where)
                if not any("Could not" in str(text) for text in said):
                    self.assertEqual(strays(self.world), [], where)
                check(where)
            self.world.nodes = nodes.nodes  # type: ignore[assignment]

    def killed_everywhere(
        self, make: Callable[[World], object], check: Callable[[str], object], **changes: Any
    ) -> None:
        """Kills the change at each of its checkpoints, each time in a new world.

        ``check`` gets what to call the moment in a failure.
        """
        for moment in range(500):
            self.world = World(disk_templates=TEMPLATES)
            make(self.world)
            self.fill()
            self.world.kill_after = moment
            try:
                self.modify(**changes)
            except Refused as refused:
                self.assertIsInstance(refused.error, JobKilled)
                self.assertEqual(self.world.faults(), [], moment)
                self.assertEqual(strays(self.world), [], f"killed at {moment}")
                self.assertEqual([line for line in self.world.lines if "Could not" in line], [])
                if not self.instance.disks_active:
                    ends = list(self.world.nodes.cluster.ends)
                    self.assertEqual(ends, [], f"killed at {moment}")
                check(f"killed at {moment}")
            else:
                break
        self.assertGreater(moment, 1)


def plain(world: World, **about: Any) -> None:
    """Makes an instance with two plain disks."""
    made_instance(world, "plain", sizes=(64, 32), **about)
