"""A mirror as one node sees it: the device on top of :mod:`ganeti_masterd.simulation.mirrors`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ganeti_masterd.constants import (
    CLASSIC_DRBD_SYNC_SPEED,
    DRBD_META_SIZE,
    LDS_FAULTY,
    LDS_OKAY,
    LDS_SYNC,
    LDS_UNKNOWN,
)
from ganeti_masterd.simulation.blocks import DRBD_MAJOR, Block, DeviceError, SimulatedVolume
from ganeti_masterd.simulation.describing import DescribedDisk
from ganeti_masterd.simulation.ends import (
    DISKLESS,
    UP_TO_DATE,
    Backing,
    End,
    EndStatus,
    Link,
    MeetingRefused,
)
from ganeti_masterd.simulation.node import SimulatedNode, Unexpected

#: The size of a meta volume in MiB: at least, and at most.
META_SIZES = (DRBD_META_SIZE, 1024)

DYNAMIC = ("local-ip", "remote-ip", "local-minor", "remote-minor")


class Mirror(Block):
    """One end of a DRBD mirror; ``children`` are those of its volumes that exist."""

    on_secondaries = True

    def __init__(
        self, node: SimulatedNode, disk: DescribedDisk, children: Sequence[Block | None] = ()
    ) -> None:
        dynamic = disk.get("dynamic_params") or {}
        if any(key not in dynamic for key in DYNAMIC):
            raise Unexpected(f"Invalid dynamic parameters {dynamic}")
        self.minor = int(dynamic["local-minor"])
        super().__init__(node, disk, f"/dev/drbd{self.minor}")
        port = disk["logical_id"][2]
        local, remote = dynamic["local-ip"], dynamic["remote-ip"]
        if local == remote:
            raise Unexpected(f"Invalid configuration data, same local/remote {local}, {port}")
        node.world.watch.homes[local] = node.name
        self._peer = remote, int(dynamic["remote-minor"])
        self.children: list[Block] = []
        whole = [child for child in children if child is not None and _readable(child)]
        if len(whole) == len(children) == 2:
            self.children = whole
        self._link = None
        if port is not None:
            secret = disk["logical_id"][5]
            self._link = Link(f"{local}:{port}", f"{remote}:{port}", secret)

    @property
    def end(self) -> End | None:
        """The end, or None if the minor isn't configured."""
        return self.node.world.mirrors.get(self.node.name, self.minor)

    @property
    def seen(self) -> EndStatus:
        """The end's status."""
        return self.node.world.mirrors.status(self.node.name, self.minor)

    @property
    def size(self) -> int:
        """See :attr:`Block.size`; the size of the peer's disk if this end has none."""
        mirrors = self.node.world.mirrors
        end, peer = self.end, mirrors.peer(self.node.name, self.minor)
        if end is not None and end.backing is None and peer is not None:
            end = mirrors.get(*peer)
        return 0 if end is None or end.backing is None else end.backing.size

    def shown(self) -> str:
        """See :meth:`Block.shown`."""
        unique = tuple(self.disk["logical_id"][:5])
        children = [child.shown() for child in self.children]
        return (
            f"<DRBD8Dev: unique_id: {unique}, children: {children},"
            f" {DRBD_MAJOR}:{self.minor}, {self.path}>"
        )

    def status(self) -> dict[str, Any]:
        """See :meth:`Block.status`; degraded unless connected with data that is up to date."""
        seen = self.seen
        if seen.data == UP_TO_DATE:
            local = LDS_OKAY
        elif seen.data == DISKLESS:
            local = LDS_FAULTY
        else:
            local = LDS_SYNC if seen.syncing else LDS_UNKNOWN
        shown: dict[str, Any] = {
            "dev_path": self.path,
            "major": DRBD_MAJOR,
            "minor": self.minor,
            "is_degraded": not seen.connected or seen.data != UP_TO_DATE,
            "ldisk_status": local,
        }
        if seen.percent is not None:
            shown["sync_percent"] = seen.percent
        if seen.left is not None:
            shown["estimated_time"] = seen.left
        return shown

    def combined_status(self) -> dict[str, Any]:
        """See :meth:`Block.combined_status`."""
        shown = self.status()
        for child in self.children:
            theirs = child.combined_status()
            shown["is_degraded"] = shown["is_degraded"] or theirs["is_degraded"]
            shown["ldisk_status"] = max(shown["ldisk_status"], theirs["ldisk_status"])
        return shown

    def create(self) -> None:
        """Writes metadata; the minor must be free."""
        if self.end is not None:
            raise DeviceError(f"drbd{self.minor}: minor is already in use at Create() time")
        meta = self.children[1]
        self.write_metadata(meta)

    def write_metadata(self, meta: Block) -> None:
        """Writes new metadata on a volume, whose size is checked."""
        least, most = META_SIZES
        if meta.size < least:
            raise DeviceError(f"Meta device too small ({meta.size:.2f}Mib)")
        if meta.size > most:
            raise DeviceError(f"Meta device too big ({meta.size:.2f}MiB)")
        try:
            self.node.world.mirrors.create_metadata(self.node.name, meta.path)
        except MeetingRefused as refused:
            raise DeviceError(f"Can't initialize meta device: {refused.output}")

    def assemble(self) -> None:
        """Brings it up; if it is up, corrects its settings as far as that is safe."""
        end = self.end
        if end is None:
            rate = (self.disk.get("params") or {}).get("resync-rate") or CLASSIC_DRBD_SYNC_SPEED
            self.node.world.mirrors.allocate(self.node.name, self.minor, int(rate))
            if self.children:
                self.attach(self.children)
            if self._link is not None:
                self.connect()
            return
        local, remote = self._fits_disk(end), self._fits_link(end)
        if local and remote:
            return
        if local and end.link is None:
            self._connect_and_check()
        elif remote and end.backing is None:
            self.attach(self.children)
        elif local and end.backing is not None and end.link is not None:
            try:
                self._disconnect()
            except MeetingRefused as refused:
                raise DeviceError(
                    f"drbd{self.minor}: device has correct local storage, wrong remote peer"
                    " and is unable to disconnect in order to attach to the correct peer:"
                    f" drbd{self.minor}: can't shutdown network: {refused.output}"
                )
            self._connect_and_check()
        else:
            raise DeviceError(f"drbd{self.minor}: cannot activate, unknown or unhandled reason")

    def attach(self, children: Sequence[Block]) -> None:
        """Attaches its disk."""
        data, meta = children
        backing = Backing(data.path, meta.path, int(self.disk.get("size") or 0))
        with self._refusing("can't attach local disk"):
            self.node.world.mirrors.attach(self.node.name, self.minor, backing)

    def connect(self, *, dual: bool = False) -> None:
        """Sets its network; with ``dual`` both ends may be Primary."""
        assert self._link is not None
        link = Link(self._link.local, self._link.remote, self._link.secret, dual)
        try:
            self.node.world.mirrors.connect(self.node.name, self.minor, link)
        except MeetingRefused as refused:
            raise DeviceError(
                f"drbd{self.minor}: can't setup network: exited with exit code"
                f" {refused.code} - {refused.output}"
            )

    def attach_net(self, *, dual: bool) -> None:
        """Connects it again; it must be StandAlone."""
        if self._link is None:
            raise DeviceError(f"drbd{self.minor}: missing network info in AttachNet()")
        end = self.end
        if end is not None and end.link is not None:
            raise DeviceError(f"drbd{self.minor}: device is not standalone in AttachNet")
        self.connect(dual=dual)

    def disconnect_net(self) -> None:
        """Makes it StandAlone; does nothing if it already is."""
        if self._link is None:
            raise DeviceError(
                f"drbd{self.minor}: DRBD disk missing network info in DisconnectNet()"
            )
        end = self.end
        if end is not None and end.link is not None:
            self._disconnect()

    def open(self, *, force: bool = False, exclusive: bool = True) -> None:
        """Makes it Primary."""
        with self._refusing("can't make drbd device primary"):
            self.node.world.mirrors.promote(self.node.name, self.minor, force=force)
        world = self.node.world
        if (end := self.end) is not None:
            world.watch.promoted(self.node.name, end, *self._peer, world.mirrors)

    def close(self) -> None:
        """Makes it Secondary."""
        with self._refusing("can't switch drbd device to secondary"):
            self.node.world.mirrors.demote(self.node.name, self.minor, held=self._held())

    def shutdown(self) -> None:
        """Unconfigures it."""
        with self._refusing("can't shutdown drbd device"):
            self.node.world.mirrors.down(self.node.name, self.minor, held=self._held())

    def remove(self) -> None:
        """Unconfigures it; its volumes are removed separately."""
        self.shutdown()

    def add_children(self, children: Sequence[Block]) -> None:
        """Gives a mirror without a disk two volumes, which are synced from the peer."""
        if len(children) != 2:
            raise DeviceError(f"drbd{self.minor}: need two devices for AddChildren")
        end = self.end
        if end is not None and end.backing is not None:
            raise DeviceError(f"drbd{self.minor}: already attached to a local disk")
        self.write_metadata(children[1])
        self.attach(children)

    def remove_children(self, paths: Sequence[str]) -> None:
        """Detaches its two volumes; does nothing if it has none."""
        end = self.end
        if end is None or end.backing is None:
            return
        if len(self.children) != 2:
            return
        if len(paths) != 2:
            raise DeviceError(f"drbd{self.minor}: we need two children in RemoveChildren")
        for child, path in zip(self.children, paths, strict=True):
            if child.path != path:
                raise DeviceError(
                    f"drbd{self.minor}: mismatch in local storage ({path} != {child.path})"
                    " in RemoveChildren"
                )
        with self._refusing("can't detach local disk"):
            self.node.world.mirrors.detach(self.node.name, self.minor)

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Makes its data volume larger, or the mirror as large as its volume."""
        if not self.children:
            raise DeviceError(f"drbd{self.minor}: cannot grow diskless device")
        self.children[0].grow(amount, dry_run=dry_run, backing=backing, exclusive=exclusive)
        if dry_run or backing:
            return
        size = int(self.disk["size"]) + amount
        with self._refusing("resize failed"):
            self.node.world.mirrors.resize(self.node.name, self.minor, size)

    def rename(self, unique: Sequence[Any]) -> None:
        """See :meth:`Block.rename`."""
        raise Unexpected("Can't rename a drbd device")

    def set_info(self, info: str) -> None:
        """Changes the text stored with its volumes."""
        for child in self.children:
            child.set_info(info)

    def pause(self, paused: bool) -> bool:
        """See :meth:`Block.pause`."""
        self.node.world.mirrors.pause(self.node.name, self.minor, paused)
        return True

    def read(self) -> tuple[str, ...]:
        """Returns the content of an end that is up to date."""
        for volume in self._current():
            return volume.read()
        return ()

    def write(self, content: tuple[str, ...]) -> None:
        """Writes to each end that is up to date and connected."""
        for volume in self._current():
            volume.write(content)
        self.node.world.mirrors.written(self.node.name, self.minor)

    def _current(self) -> list[SimulatedVolume]:
        """Returns the data volumes that are up to date, this node's first."""
        mirrors = self.node.world.mirrors
        found: list[SimulatedVolume] = []
        for key in ((self.node.name, self.minor), mirrors.peer(self.node.name, self.minor)):
            end = None if key is None else mirrors.get(*key)
            if key is None or end is None or end.backing is None:
                continue
            if mirrors.status(*key).data == UP_TO_DATE:
                node = self.node.world.node(key[0])
                if end.backing.data in node.state.devices:
                    found.append(SimulatedVolume(node, self.disk, end.backing.data))
        return found

    def _held(self) -> bool:
        return any(self.path in inst.disks for _, inst in self.node.state.instances.items())

    def _fits_disk(self, end: End) -> bool:
        paths = tuple(child.path for child in self.children)
        there = () if end.backing is None else (end.backing.data, end.backing.meta)
        return paths == there

    def _fits_link(self, end: End) -> bool:
        return (
            self._link is not None
            and end.link is not None
            and (end.link.local, end.link.remote) == (self._link.local, self._link.remote)
        )

    def _connect_and_check(self) -> None:
        if self._link is None:
            raise DeviceError(
                f"drbd{self.minor}: network attach successful, but 'drbdsetup show' disagrees"
            )
        self.connect()

    @contextlib.contextmanager
    def _refusing(self, fault: str) -> Iterator[None]:
        """Turns DRBD's refusals within the body into errors with noded's message."""
        try:
            yield
        except MeetingRefused as refused:
            raise DeviceError(f"drbd{self.minor}: {fault}: {refused.output}")

    def _disconnect(self) -> None:
        with self._refusing("can't shutdown network"):
            self.node.world.mirrors.disconnect(self.node.name, self.minor)


def _readable(child: Block) -> bool:
    """Returns whether a volume can be read."""
    return not (isinstance(child, SimulatedVolume) and child.device.lost)
