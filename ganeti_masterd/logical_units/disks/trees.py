"""From what an opcode says of its disks to the disks themselves. Pure.

Names and ids are as real daemon 3.0.2 gives them (protocol/disks.rst, Disk templates). Whatever is
random or reserved comes in through :class:`DiskNaming`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Disk
from ganeti_masterd.config.templates import TEMPLATES
from ganeti_masterd.constants import DRBD_META_SIZE
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, prereq

#: Where a disk that isn't made by Ganeti has its driver's name.
MANUAL = "manual"


class DiskSpecification(Struct, frozen=True, kw_only=True):
    """One disk as an opcode wants it, checked and with its defaults. Sizes are in MiB.

    ``group`` and ``meta_group`` are the volume groups of its data and of DRBD's metadata;
    ``adopt`` is the volume or device that becomes the disk; ``params`` are those that the
    configuration keeps (of ext: the provider and its own; ``access``).
    """

    size: int
    mode: str = "rw"
    name: str | None = None
    group: str = ""
    meta_group: str = ""
    adopt: str | None = None
    spindles: int | None = None
    params: Params = {}


class MirrorIds(Struct, frozen=True):
    """What makes the two ends of a DRBD disk find each other."""

    port: int
    minors: tuple[int, int]
    secret: str


class DiskNaming(Protocol):
    """Where new names and ids come from."""

    def uuid(self) -> str:
        """Returns a new uuid."""

    def mirror(self, nodes: tuple[str, str]) -> MirrorIds:
        """Returns new ids of a mirror between two nodes, reserved."""


class DiskLocation(Struct, frozen=True, kw_only=True):
    """Where the disks of one instance are.

    ``nodes`` are uuids, the primary first. ``directory`` holds disks that are files,
    whose driver is ``driver``.
    """

    instance_uuid: str
    nodes: tuple[str, ...]
    directory: str = ""
    driver: str = "loop"


def build_disks(
    template: str,
    wanted: Sequence[DiskSpecification],
    where: DiskLocation,
    naming: DiskNaming,
    *,
    first: int = 0,
) -> list[Disk]:
    """Returns new disks of a template; ``first`` is the index of the first of them."""
    make = _MAKERS[template]
    return [
        make(index, specification, where, naming)
        for index, specification in enumerate(wanted, first)
    ]


def file_directory(base: str, below: str | None, instance: str, template: str) -> str:
    """Returns the directory of disks that are files.

    ``base`` is the cluster's for the template (:func:`base_directory`), ``below`` the
    opcode's directory in it. Gluster has no directory for each instance. Raises
    ``OpPrereqError`` with ``wrong_input`` if ``below`` leads out of ``base``.
    """
    parts = [base.rstrip("/"), _below(below), "" if template == "gluster" else instance]
    return "/".join(part for part in parts if part)


def _below(given: str | None) -> str:
    """Returns a directory relative to the cluster's in its normal form; empty for that itself."""
    if not given:
        return ""
    parts = [part for part in given.split("/") if part not in ("", ".")]
    if given.startswith("/") or ".." in parts:
        raise prereq(
            f"Invalid file storage directory '{given}': it must be below the cluster's, and given "
            "relative to that",
            ECODE_INVAL,
        )
    return "/".join(parts)


def base_directory(cluster: Any, template: str) -> str:
    """Returns the cluster's directory for disks of a template; empty if it needs none.

    Raises ``OpPrereqError`` with ``wrong_state`` if it needs one that isn't set.
    """
    parameter = TEMPLATES[template].directory
    if parameter is None:
        return ""
    found: str = getattr(cluster, parameter)
    if not found:
        raise prereq(
            f"Cluster file storage dir for '{TEMPLATES[template].storage}' storage type not "
            "defined",
            ECODE_STATE,
        )
    return found


def renumbered(disks: Sequence[Disk]) -> list[Disk]:
    """Returns an instance's disks, each named by its place: ``disk/0``, ``disk/1``, ..."""
    return [
        disk if disk.iv_name == iv_name(index) else replace(disk, iv_name=iv_name(index))
        for index, disk in enumerate(disks)
    ]


def iv_name(index: int) -> str:
    """Returns what the disk with that index is called."""
    return f"disk/{index}"


def _common(index: int, wanted: DiskSpecification, naming: DiskNaming) -> dict[str, Any]:
    return {
        "uuid": naming.uuid(),
        "iv_name": iv_name(index),
        "size": wanted.size,
        "mode": wanted.mode,
        "name": wanted.name,
        "spindles": wanted.spindles,
    }


def _plain(index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming) -> Disk:
    volume = f"{naming.uuid()}.disk{index}"
    return Disk(
        dev_type="plain",
        logical_id=(wanted.group, volume),
        nodes=where.nodes[:1],
        **_common(index, wanted, naming),
    )


def _drbd(index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming) -> Disk:
    one, other = where.nodes[:2]
    ids = naming.mirror((one, other))
    stem = f"{naming.uuid()}.disk{index}"
    return Disk(
        dev_type="drbd",
        logical_id=(one, other, ids.port, *ids.minors, ids.secret),
        nodes=(one, other),
        children=(
            _volume(wanted.group, f"{stem}_data", wanted.size, (one, other), naming),
            _volume(wanted.meta_group, f"{stem}_meta", DRBD_META_SIZE, (one, other), naming),
        ),
        **_common(index, wanted, naming),
    )


def _volume(group: str, volume: str, size: int, nodes: tuple[str, ...], naming: DiskNaming) -> Disk:
    return Disk(
        dev_type="plain", logical_id=(group, volume), nodes=nodes, size=size, uuid=naming.uuid()
    )


def _file(template: str) -> Callable[..., Disk]:
    def make(
        index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming
    ) -> Disk:
        path = f"{where.directory}/{naming.uuid()}.{template}.disk{index}"
        return Disk(
            dev_type=template,
            logical_id=(where.driver, path),
            nodes=() if TEMPLATES[template].external else where.nodes[:1],
            **_common(index, wanted, naming),
        )

    return make


def _gluster(
    index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming
) -> Disk:
    return Disk(
        dev_type="gluster",
        logical_id=(where.driver, f"ganeti/{where.instance_uuid}.{index}"),
        params=wanted.params,
        **_common(index, wanted, naming),
    )


def _blockdev(
    index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming
) -> Disk:
    return Disk(
        dev_type="blockdev",
        logical_id=(MANUAL, wanted.adopt),
        **_common(index, wanted, naming),
    )


def _rbd(index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming) -> Disk:
    return Disk(
        dev_type="rbd",
        logical_id=("rbd", f"{naming.uuid()}.rbd.disk{index}"),
        params=wanted.params,
        **_common(index, wanted, naming),
    )


def _ext(index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming) -> Disk:
    return Disk(
        dev_type="ext",
        logical_id=(wanted.params["provider"], f"{naming.uuid()}.ext.disk{index}"),
        params=wanted.params,
        **_common(index, wanted, naming),
    )


def _diskless(
    index: int, wanted: DiskSpecification, where: DiskLocation, naming: DiskNaming
) -> Disk:
    raise prereq("An instance without disks (template diskless) can't have disks")


_MAKERS: Mapping[str, Callable[..., Disk]] = {
    "blockdev": _blockdev,
    "diskless": _diskless,
    "drbd": _drbd,
    "ext": _ext,
    "file": _file("file"),
    "gluster": _gluster,
    "plain": _plain,
    "rbd": _rbd,
    "sharedfile": _file("sharedfile"),
}
