"""Guests that boot from an image of the description, do its work, and shut themselves down.

Their end is looked at before each call to their node; what they write is on their disks then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.simulation.blocks import DeviceError
from ganeti_masterd.simulation.describing import DescribedDisk
from ganeti_masterd.simulation.devices import find
from ganeti_masterd.simulation.node import BootImage, SimulatedNode
from ganeti_masterd.simulation.state import SimulatedInstance, StoredFile

#: The public OS parameter with the path of what a guest installs.
PACKAGE = "os-install-package"

#: Among a node's facts: the paths of packages that its metadata daemon serves, by instance; and
#: the disks of guests that write on them at their end.
PACKAGES = "packages"
DISKS = "guests"

#: The state of an instance that its hypervisor knows and that has shut itself down.
SHUT_DOWN = 1

#: What a guest leaves on a disk whose free space it has zeroed.
ZEROED = "free space is zeroed"


def image_on(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> BootImage | None:
    """Returns the image of the description that is on the first disk; None for any other."""
    if not disks or not node.world.images:
        return None
    content = _content(node, disks[0])
    place = content[0].removeprefix("image ") if len(content) == 1 else ""
    return node.world.images.get(place)


def booted(node: SimulatedNode, instance: Mapping[str, Any], image: BootImage) -> None:
    """A machine that runs here has booted from an image."""
    name = instance["name"]
    running = node.state.instances[name]
    ends_at = None if image.seconds is None else node.world.now() + image.seconds
    lingers = instance["hypervisor"] == "kvm" and bool(instance["hvparams"].get("user_shutdown"))
    node.state.instances[name] = replace(
        running, image=image.place, ends_at=ends_at, lingers=lingers
    )
    held = dict(node.state.facts.get(DISKS) or {})
    held[name] = [dict(disk) for disk in instance["disks_info"][1:]]
    node.state.facts[DISKS] = held
    if ends_at is not None:
        _ending(node).add(name)


def settle(node: SimulatedNode) -> None:
    """Ends the guests whose time has come."""
    ending = _ending(node)
    now = node.world.now()
    for name in list(ending):
        running = node.state.instances.get(name)
        if running is None or running.ends_at is None:
            ending.discard(name)
        elif running.ends_at <= now:
            ending.discard(name)
            _end(node, name, running)


def _ending(node: SimulatedNode) -> set[str]:
    if node.ending is None:
        held = node.state.instances.items()
        node.ending = {name for name, each in held if each.ends_at is not None}
    return node.ending


def _end(node: SimulatedNode, name: str, running: SimulatedInstance) -> None:
    image = node.world.images.get(running.image)
    held = dict(node.state.facts.get(DISKS) or {})
    disks: Sequence[DescribedDisk] = held.pop(name, ())
    node.state.facts[DISKS] = held
    if image is not None and image.zeroes:
        for disk in disks:
            _write(node, disk, (*_content(node, disk), ZEROED))
    if image is not None and image.installs:
        _install(node, name, disks)
    if running.lingers:
        node.state.instances[name] = replace(
            running, disks=(), state=SHUT_DOWN, ends_at=None, memory=0
        )
    else:
        node.state.instances.pop(name)


def _install(node: SimulatedNode, name: str, disks: Sequence[DescribedDisk]) -> None:
    """Writes what the operating system of the package writes, to each disk that it names."""
    path = (node.state.facts.get(PACKAGES) or {}).get(name)
    package: StoredFile | None = None if path is None else node.state.files.get(path)
    if package is None:
        return
    told = dict(line.split("=", 1) for line in package.data.splitlines() if "=" in line)
    for index, disk in enumerate(disks):
        if f"DISK_{index}_PATH" in told:
            system, place = told.get("OS_NAME", "?"), told[f"DISK_{index}_PATH"]
            _write(node, disk, (f"{system} installed on {place}",))


def _content(node: SimulatedNode, disk: DescribedDisk) -> tuple[str, ...]:
    try:
        block = find(node, disk)
    except DeviceError:
        return ()
    return () if block is None else block.read()


def _write(node: SimulatedNode, disk: DescribedDisk, content: tuple[str, ...]) -> None:
    try:
        block = find(node, disk)
    except DeviceError:
        return
    if block is not None:
        block.write(content)
