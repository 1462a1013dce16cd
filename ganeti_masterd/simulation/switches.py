"""Events in a simulated cluster on demand: lost volumes, broken links, nodes without power.

Each switch is a command, a list of words, which a test runs with :func:`throw`, and others send to
the socket of :mod:`ganeti_masterd.simulation.control`. :data:`SWITCHES` has all of them; ``help``
shows the list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.simulation import volumes
from ganeti_masterd.simulation.describing import DRBD
from ganeti_masterd.simulation.ends import End, SyncPace
from ganeti_masterd.simulation.node import SimulatedNode
from ganeti_masterd.simulation.state import Device
from ganeti_masterd.simulation.system import restart
from ganeti_masterd.simulation.world import World


class SwitchError(Exception):
    """A command is invalid, or names something that doesn't exist."""


class SwitchedCluster(Protocol):
    """What switches act on."""

    world: World

    def node(self, name: str) -> SimulatedNode:
        """The node of a name."""

    def nodes(self) -> Sequence[SimulatedNode]:
        """All nodes that were ever called."""


class Switch(Struct, frozen=True):
    """A command: its words in order, optional ones in brackets, and what it does."""

    words: tuple[str, ...]
    does: str
    run: Callable[..., str]

    @property
    def least(self) -> int:
        """The number of words that it needs."""
        return sum(not word.startswith("[") for word in self.words)


SWITCHES: dict[str, Switch] = {}


def _switch(name: str, *words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a command by its name and its words; the docstring says what it does."""

    def declared(function: Callable[..., Any]) -> Callable[..., Any]:
        does = (function.__doc__ or "").strip().splitlines()[0]
        SWITCHES[name] = Switch(words, does, function)
        return function

    return declared


def throw(cluster: SwitchedCluster, command: Sequence[str]) -> str:
    """Runs a command; returns its output, which is mostly empty.

    Raises :class:`SwitchError`.
    """
    if not command:
        raise SwitchError("no command")
    name, *words = command
    switch = SWITCHES.get(name)
    if switch is None:
        raise SwitchError(f"there is no command {name!r}; there are: {', '.join(SWITCHES)}")
    if not switch.least <= len(words) <= len(switch.words):
        raise SwitchError(f"usage: {name} {' '.join(switch.words)}")
    return switch.run(cluster, *words) or ""


@_switch("help")
def show_help(cluster: SwitchedCluster) -> str:
    """Show all commands."""
    rows = [
        f"{' '.join((name, *switch.words))}\n    {switch.does}" for name, switch in SWITCHES.items()
    ]
    return "\n".join(rows)


# Volumes


@_switch("lose-lv", "NODE", "INSTANCE", "[INDEX]")
def lose_volumes(
    cluster: SwitchedCluster, name: str, instance: str, index: str | None = None
) -> None:
    """Volumes of an instance vanish from a node; mirrors on them lose their disk."""
    node = cluster.node(name)
    cluster.world.settle()
    for path, _ in _volumes(node, instance, index):
        volumes.remove(node, path)
    cluster.world.mirrors.settle()


@_switch("break-lv", "NODE", "INSTANCE", "[INDEX]")
def break_volumes(
    cluster: SwitchedCluster, name: str, instance: str, index: str | None = None
) -> None:
    """Volumes of an instance are there, but what was on them is lost."""
    node = cluster.node(name)
    for path, device in _volumes(node, instance, index):
        node.state.devices[path] = replace(device, lost=True, content=())


@_switch("make-lv", "NODE", "GROUP/NAME", "MIB")
def make_volume(cluster: SwitchedCluster, name: str, path: str, size: str) -> None:
    """A volume is there that no instance has."""
    group, _, volume = path.partition("/")
    _make(cluster.node(name), group, volume, _number(size))


@_switch("remove-lv", "NODE", "GROUP/NAME")
def remove_volume(cluster: SwitchedCluster, name: str, path: str) -> None:
    """A volume is removed, whatever uses it; one that is missing is fine."""
    node = cluster.node(name)
    cluster.world.settle()
    if f"/dev/{path}" in node.state.devices:
        volumes.remove(node, f"/dev/{path}")
    cluster.world.mirrors.settle()


@_switch("fill", "NODE", "GROUP", "MIB")
def fill_group(cluster: SwitchedCluster, name: str, group: str, left: str) -> None:
    """A volume "filler" takes a volume group except for that many MiB."""
    node = cluster.node(name)
    remove_volume(cluster, name, f"{group}/filler")
    size = volumes.free(node, group) - _number(left)
    if size > 0:
        _make(node, group, "filler", size)


# Mirrors


@_switch("detach", "NODE", "INSTANCE", "[INDEX]")
def detach(cluster: SwitchedCluster, name: str, instance: str, index: str | None = None) -> None:
    """Mirrors lose their disk on a node; the volumes stay."""
    for minor, _ in _minors(cluster, name, instance, index):
        cluster.world.mirrors.lose_disk(name, minor)


@_switch("disconnect", "NODE", "INSTANCE", "[INDEX]")
def disconnect(
    cluster: SwitchedCluster, name: str, instance: str, index: str | None = None
) -> None:
    """Mirrors lose their network on a node and stand alone."""
    for minor, _ in _minors(cluster, name, instance, index):
        cluster.world.mirrors.lose_link(name, minor)


@_switch("down", "NODE", "INSTANCE", "[INDEX]")
def take_down(cluster: SwitchedCluster, name: str, instance: str, index: str | None = None) -> None:
    """Mirrors are unconfigured on a node, as after a restart."""
    for minor, _ in _minors(cluster, name, instance, index):
        cluster.world.mirrors.lose(name, minor)


@_switch("sync", "SECONDS")
def set_sync(cluster: SwitchedCluster, seconds: str) -> None:
    """A whole sync takes so long from now on, whatever its size; 0: no time."""
    before = cluster.world.pace()
    quick = before.quick_seconds if before.seconds is not None else 0.0
    cluster.world.set_pace(SyncPace(seconds=_decimal(seconds), quick_seconds=quick))


@_switch("sync-speed", "MIB_PER_SECOND")
def set_sync_speed(cluster: SwitchedCluster, speed: str) -> None:
    """Mirrors are filled at that speed from now on; 0: at once."""
    cluster.world.set_pace(SyncPace(speed=_decimal(speed) or None))


# Nodes and links


@_switch("net", "NODE", "NODE", "down|up")
def set_link(cluster: SwitchedCluster, one: str, other: str, state: str) -> None:
    """No packets pass between two nodes, or they do again."""
    if state not in ("down", "up"):
        raise SwitchError(f"a link is down or up, not {state!r}")
    cluster.world.cut(one, other, state == "down")


@_switch("power", "NODE", "off|on")
def set_power(cluster: SwitchedCluster, name: str, state: str) -> None:
    """A node loses its power, with all that runs there, or has it again."""
    if state not in ("off", "on"):
        raise SwitchError(f"power is off or on, not {state!r}")
    if state == "off" and cluster.world.powered(name):
        cluster.world.settle()
        restart(cluster.node(name))
    cluster.world.set_power(name, state == "on")


@_switch("reboot", "NODE")
def reboot(cluster: SwitchedCluster, name: str) -> None:
    """A node starts anew: nothing runs there, no mirror is up."""
    cluster.world.settle()
    restart(cluster.node(name))


# Instances


@_switch("crash", "NODE", "INSTANCE")
def crash(cluster: SwitchedCluster, name: str, instance: str) -> None:
    """An instance stops running; its disks stay as they are."""
    if cluster.node(name).state.instances.pop(instance) is None:
        raise SwitchError(f"{instance} doesn't run on {name}")


@_switch("kill-all", "NODE")
def kill_all(cluster: SwitchedCluster, name: str) -> None:
    """Every instance of a node stops running; disks stay as they are."""
    node = cluster.node(name)
    for instance in node.state.instances:
        node.state.instances.pop(instance)


@_switch("fail-migration", "INSTANCE", "PERCENT")
def fail_migration(cluster: SwitchedCluster, instance: str, percent: str) -> None:
    """Migrations of an instance fail when so much of its memory has gone; "never": not any more."""
    facts = cluster.world.cluster.facts
    failing = dict(facts.get("failing_migrations") or {})
    failing.pop(instance, None)
    if percent != "never":
        failing[instance] = _decimal(percent)
    facts["failing_migrations"] = failing
    under_way = cluster.world.cluster.migrations.get(instance)
    if under_way is not None:
        cluster.world.cluster.migrations[instance] = replace(
            under_way, fails_at=failing.get(instance)
        )


# A look


@_switch("data", "NODE", "INSTANCE", "[INDEX]")
def show_data(cluster: SwitchedCluster, name: str, instance: str, index: str | None = None) -> str:
    """Show what is written on volumes of an instance."""
    found = sorted(_volumes(cluster.node(name), instance, index))
    return "\n".join(
        line
        for path, device in found
        if not path.endswith("_meta")
        for line in device.content
        if line
    )


@_switch("proc", "NODE")
def show_mirrors(cluster: SwitchedCluster, name: str) -> str:
    """Show the mirrors of a node as /proc/drbd does."""
    rows: list[str] = []
    mirrors = cluster.world.mirrors
    for minor in mirrors.of_node(name):
        seen = mirrors.status(name, minor)
        rows.append(
            f"{minor:2}: cs:{seen.connection} ro:{seen.role}/{seen.peer_role}"
            f" ds:{seen.data}/{seen.peer_data} C r-----"
        )
    return "\n".join(rows)


@_switch("lvs", "NODE")
def show_volumes(cluster: SwitchedCluster, name: str) -> str:
    """Show the volumes of a node: group, name, size, what they carry."""
    return "\n".join(
        f"{path.removeprefix('/dev/')}|{device.size}.00m|{'lost' if device.lost else 'ok'}"
        f"|{device.info}"
        for path, device in sorted(volumes.of_node(cluster.node(name)))
    )


@_switch("export-ini", "NODE", "EXPORT")
def show_export(cluster: SwitchedCluster, name: str, export: str) -> str:
    """Show the config.ini of an export."""
    held = cluster.node(name).state.exports.get(export)
    if held is None or held.config is None:
        raise SwitchError(f"there is no export {export!r} on {name}")
    return held.config.rstrip("\n")


@_switch("wipe")
def wipe(cluster: SwitchedCluster) -> None:
    """Every mirror and volume but files is gone, links and nodes are up, speeds as described."""
    world = cluster.world
    for node in cluster.nodes():
        for minor in world.mirrors.of_node(node.name):
            world.mirrors.lose(node.name, minor)
        for path, _ in volumes.of_node(node):
            volumes.remove(node, path)
    for path, device in world.cluster.volumes.items():
        if device.kind in ("ext", "rbd"):
            world.cluster.volumes.pop(path)
    for fact in ("cut", "off", "pace", "failing_migrations"):
        world.cluster.facts.pop(fact)


def _volumes(node: SimulatedNode, instance: str, index: str | None) -> list[tuple[str, Device]]:
    """Returns an instance's volumes on a node, found by the text stored with them."""
    mark = f"originstname+{instance}"
    return [
        (path, device)
        for path, device in volumes.of_node(node)
        if device.info == mark and (index is None or f".disk{index}" in path)
    ]


def _minors(
    cluster: SwitchedCluster, name: str, instance: str, index: str | None
) -> list[tuple[int, End]]:
    """Returns an instance's mirrors on a node: those that use its volumes."""
    paths = {path for path, _ in _volumes(cluster.node(name), instance, index)}
    found = [
        (minor, end)
        for minor, end in cluster.world.mirrors.of_node(name).items()
        if end.backing is not None and end.backing.data in paths
    ]
    if not found:
        raise SwitchError(f"{instance} has no {DRBD} disk with a volume on {name}")
    return found


def _make(node: SimulatedNode, group: str, name: str, size: int) -> None:
    try:
        volumes.make(node, group, name, size)
    except volumes.LvmError as error:
        raise SwitchError(str(error).strip())


def _number(text: str) -> int:
    if not text.isdecimal():
        raise SwitchError(f"{text!r} is no whole number")
    return int(text)


def _decimal(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise SwitchError(f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise SwitchError(f"{text!r} is no number")
    if value < 0:
        raise SwitchError(f"{text!r} must not be below zero")
    return value
