"""Calls about the network of mirrors: disconnecting, connecting, syncing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from ganeti_masterd.simulation.blocks import DeviceError
from ganeti_masterd.simulation.describing import DescribedDisk
from ganeti_masterd.simulation.devices import looked_up, need
from ganeti_masterd.simulation.drbd import Mirror
from ganeti_masterd.simulation.ends import DISKLESS, STANDALONE, UP_TO_DATE, EndStatus
from ganeti_masterd.simulation.node import Implementations, NodeFailure, SimulatedNode, Unexpected

calls = Implementations()

HELPER = "/bin/true"

#: Seconds that noded waits for both ends to connect, and for a sync to appear.
ATTACH_FOR = 120.0
SYNC_FOR = 15.0

#: Its polling intervals in seconds: the first, the factor by which they grow, the longest.
LOOKS = (0.1, 1.5, 5.0)
SYNC_LOOK = 1.0


@calls("drbd_helper")
def drbd_helper(node: SimulatedNode) -> str:
    """Returns the usermode helper of the DRBD module."""
    return HELPER


@calls("drbd_disconnect_net")
def drbd_disconnect_net(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> None:
    """Makes mirrors StandAlone."""
    for mirror in _mirrors(node, disks):
        try:
            mirror.disconnect_net()
        except DeviceError as error:
            raise NodeFailure(f"Can't change network configuration to standalone mode: {error}")


@calls("drbd_attach_net")
def drbd_attach_net(
    node: SimulatedNode, disks: Sequence[DescribedDisk], dual: bool
) -> Deferred[None] | None:
    """Connects mirrors with their other ends, and waits until they are connected.

    With ``dual`` both ends may be Primary, which requires both to be up to date.
    """
    mirrors = _mirrors(node, disks)
    for mirror in mirrors:
        _attach(mirror, dual)
    return None if _together(mirrors, dual) else _attach_in_time(node, mirrors, dual)


@inlineCallbacks
def _attach_in_time(node: SimulatedNode, mirrors: Sequence[Mirror], dual: bool) -> Any:
    delay, factor, longest = LOOKS
    waited = 0.0
    while not _together(mirrors, dual):
        if waited > ATTACH_FOR:
            raise NodeFailure("Timeout in disk reconnecting")
        yield node.world.wait(delay)
        waited += delay
        delay = min(longest, delay * factor)
        for mirror in mirrors:
            end = mirror.end
            if end is None:
                raise Unexpected(f"drbd{mirror.minor}: can't find myself in /proc")
            if end.link is None:
                _attach(mirror, dual)


def _attach(mirror: Mirror, dual: bool) -> None:
    try:
        mirror.attach_net(dual=dual)
    except DeviceError as error:
        raise NodeFailure(f"Can't change network configuration: {error}")


def _together(mirrors: Sequence[Mirror], dual: bool) -> bool:
    seen = [mirror.seen for mirror in mirrors]
    if dual:
        return all(each.connected and each.data == each.peer_data == UP_TO_DATE for each in seen)
    return all(_settled(each) for each in seen)


def _settled(seen: EndStatus) -> bool:
    return seen.connected or seen.syncing


@calls("drbd_wait_sync")
def drbd_wait_sync(
    node: SimulatedNode, disks: Sequence[DescribedDisk]
) -> list[Any] | Deferred[list[Any]]:
    """Returns whether no mirror is syncing, and the lowest percentage."""
    mirrors = _mirrors(node, disks)
    if all(_settled(mirror.seen) for mirror in mirrors):
        return _progress(mirrors)
    return _wait_sync(node, mirrors)


@inlineCallbacks
def _wait_sync(node: SimulatedNode, mirrors: Sequence[Mirror]) -> Any:
    for mirror in mirrors:
        waited = 0.0
        while not _settled(mirror.seen):
            if waited > SYNC_FOR:
                raise NodeFailure(
                    f"DRBD device {mirror.shown()} is not in sync: stats={mirror.seen}"
                )
            yield node.world.wait(SYNC_LOOK)
            waited += SYNC_LOOK
    return _progress(mirrors)


def _progress(mirrors: Sequence[Mirror]) -> list[Any]:
    least: float = 100
    done = True
    for mirror in mirrors:
        seen = mirror.seen
        done = done and not seen.syncing
        if seen.percent is not None:
            least = min(least, seen.percent)
    return [done, least]


@calls("drbd_needs_activation")
def drbd_needs_activation(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> list[str]:
    """Returns the uuids of mirrors that are missing, StandAlone or without a disk."""
    faulty: list[str] = []
    for disk in disks:
        block = looked_up(node, disk)
        if isinstance(block, Mirror):
            seen = block.seen
            if seen.connection != STANDALONE and seen.data != DISKLESS:
                continue
        faulty.append(str(disk["uuid"]))
    return faulty


def _mirrors(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> list[Mirror]:
    found: list[Mirror] = []
    for disk in disks:
        block = need(node, disk)
        if not isinstance(block, Mirror):
            raise Unexpected(f"{type(block).__name__} is no mirror")
        found.append(block)
    return found
