"""The description of a simulated cluster, and how it is read from a TOML file.

``docs/simulate.rst`` documents the file. Anything invalid raises :class:`DescriptionError`, which
names the file, the table, the key and the error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.ssconf import HYPERVISORS
from ganeti_masterd.config.templates import TEMPLATES
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.node import BootImage, Failing, OSDefinition, StorageProvider
from ganeti_masterd.simulation.state import Hardware, PhysicalVolume, VolumeGroup
from ganeti_masterd.simulation.tables import DescriptionError, Table

DEFAULT_SYSTEMS = (OSDefinition("noop", api_versions=(5, 10)),)

#: Paths of shared storage, unless the file says otherwise.
SHARED_PATHS = ("/srv/ganeti/shared-file-storage", "/var/run/ganeti/gluster")

SCRIPTS = ("create", "verify", "rename", "import", "export")
PROVIDER_ACTIONS = (
    "attach",
    "close",
    "create",
    "detach",
    "grow",
    "open",
    "remove",
    "setinfo",
    "snapshot",
)


class DescribedVolume(Struct, frozen=True):
    """A logical volume that exists from the beginning."""

    group: str
    name: str
    size: int


class DescribedNode(Struct, frozen=True):
    """A node: its hardware, its node group, and its initial volumes."""

    hardware: Hardware = Hardware()
    group: str = "default"
    volumes: tuple[DescribedVolume, ...] = ()


class Description(Struct, frozen=True):
    """A simulated cluster; without a file every node is like ``default``.

    ``nodes`` are by name, in the order of the file. Speeds are in MiB/s; with None the operation
    takes no time. ``settings`` are those of a new cluster.
    """

    nodes: dict[str, DescribedNode] = {}
    default: DescribedNode = DescribedNode()
    systems: tuple[OSDefinition, ...] = DEFAULT_SYSTEMS
    providers: tuple[StorageProvider, ...] = ()
    pace: SyncPace = SyncPace()
    transfer_speed: float | None = None
    migration_speed: float | None = None
    images: tuple[BootImage, ...] = ()
    #: The folder in which simulated clusters meet that send each other instances.
    meeting_place: str | None = None
    shared_paths: tuple[str, ...] = SHARED_PATHS
    settings: dict[str, Any] = {}

    def node(self, name: str) -> DescribedNode:
        """Returns the description of a node; the default if it isn't in the file."""
        return self.nodes.get(name, self.default)


def read(path: str) -> Description:
    """Reads a description; raises :class:`DescriptionError`."""
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise DescriptionError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DescriptionError(f"{path} is no TOML: {error}") from None
    return parse(document, path)


def parse(document: Mapping[str, Any], path: str) -> Description:
    """Returns the description in a TOML document; ``path`` is used in messages."""
    top = Table(path, "", document)
    pace = _pace(top)
    default = _default_node(top)
    nodes: dict[str, DescribedNode] = {}
    for table in top.tables("node"):
        name = table.text("name")
        if name in nodes:
            table.fail("name", f"there are two nodes {name!r}")
        nodes[name] = _node(table, default)
    if not nodes:
        top.fail("node", "is missing: a cluster has at least one [[node]]")
    systems = [_system(table) for table in top.tables("os")]
    providers = [_provider(table) for table in top.tables("storage_provider")]
    images = [_image(table) for table in top.tables("image")]
    cluster = top.optional_table("cluster")
    settings: dict[str, Any] = {}
    shared: Sequence[str] = SHARED_PATHS
    transfer = migration = None
    meeting: str | None = None
    if cluster is not None:
        cluster.asked(*CLUSTER_TEXTS, *CLUSTER_LISTS, "candidate_pool_size")
        for key in CLUSTER_TEXTS:
            if key in cluster:
                settings[key] = cluster.text(key)
        for key, known in CLUSTER_LISTS.items():
            if key in cluster:
                settings[key] = cluster.choices(key, known)
        if "candidate_pool_size" in cluster:
            settings["candidate_pool_size"] = cluster.number("candidate_pool_size", least=1)
        place = settings.get("shared_file_storage_dir")
        usual = SHARED_PATHS if place is None else (*SHARED_PATHS, place)
        shared = cluster.texts("shared_paths", usual)
        transfer = cluster.rate("transfer_speed")
        migration = cluster.rate("migration_speed")
        if "meeting_place" in cluster:
            meeting = cluster.text("meeting_place")
        cluster.finish()
    top.finish()
    _check_unique(top, "os", [each.name for each in systems])
    _check_unique(top, "storage_provider", [each.name for each in providers])
    _check_unique(top, "image", [each.place for each in images])
    return Description(
        nodes=nodes,
        default=default,
        systems=tuple(systems) or DEFAULT_SYSTEMS,
        providers=tuple(providers),
        images=tuple(images),
        pace=pace,
        transfer_speed=transfer,
        migration_speed=migration,
        meeting_place=meeting,
        shared_paths=tuple(shared),
        settings=settings,
    )


CLUSTER_TEXTS = ("name", "volume_group", "file_storage_dir", "shared_file_storage_dir")

#: Settings of a new cluster that are lists, with the allowed values.
CLUSTER_LISTS: Mapping[str, frozenset[str]] = {
    "disk_templates": frozenset(TEMPLATES),
    "hypervisors": frozenset(HYPERVISORS),
}


def _check_unique(top: Table, table: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            top.fail(table, f"there are two of the name {name!r}")


def _pace(top: Table) -> SyncPace:
    table = top.optional_table("sync")
    if table is None:
        return SyncPace()
    speed, seconds = table.rate("speed"), table.rate("seconds")
    quick = table.rate("quick_seconds")
    if speed is not None and seconds is not None:
        table.fail("seconds", "a sync has a speed or takes a fixed time, not both")
    if quick is not None and seconds is None:
        table.fail("quick_seconds", "needs 'seconds' beside it")
    table.finish()
    return SyncPace(speed, seconds, quick or 0.0)


def _default_node(top: Table) -> DescribedNode:
    table = top.optional_table("every_node")
    return DescribedNode() if table is None else _node(table, DescribedNode(), named=False)


def _node(table: Table, default: DescribedNode, *, named: bool = True) -> DescribedNode:
    if named:
        table.text("name")
    machine = default.hardware
    groups = tuple(_group(each) for each in table.tables("volume_group"))
    for names in (
        [group.name for group in groups],
        [each.name for group in groups for each in group.volumes],
    ):
        for name in names:
            if names.count(name) > 1:
                table.fail("volume_group", f"there are two of the name {name!r}")
    hardware = Hardware(
        memory=table.number("memory", machine.memory, least=1),
        memory_dom0=table.number("memory_dom0", machine.memory_dom0),
        memory_reserved=table.number("memory_reserved", machine.memory_reserved),
        cpus=table.number("cpus", machine.cpus, least=1),
        cpus_dom0=table.number("cpus_dom0") if "cpus_dom0" in table else machine.cpus_dom0,
        file_space=table.number("file_space", machine.file_space),
        groups=groups or machine.groups,
        bridges=tuple(table.texts("bridges")) if "bridges" in table else machine.bridges,
        exports=table.flag("exports", machine.exports),
    )
    table.asked("bridges", "cpus_dom0")
    volumes = tuple(_volume(each, hardware) for each in table.tables("volume"))
    group_name = table.text("group", default.group)
    table.finish()
    return DescribedNode(hardware, group_name, volumes or default.volumes)


def _group(table: Table) -> VolumeGroup:
    name = table.text("name")
    physical = [_physical(each) for each in table.tables("physical_volume")]
    if not physical:
        table.fail("physical_volume", "is missing: a volume group has at least one")
    table.finish()
    return VolumeGroup(name, tuple(physical))


def _physical(table: Table) -> PhysicalVolume:
    made = PhysicalVolume(table.text("name"), table.number("size", least=4))
    table.finish()
    return made


def _volume(table: Table, hardware: Hardware) -> DescribedVolume:
    made = DescribedVolume(
        table.text("volume_group"), table.text("name"), table.number("size", least=1)
    )
    if hardware.group(made.group) is None:
        table.fail("volume_group", f"the node has no volume group {made.group!r}")
    table.finish()
    return made


def _failing(table: Table, scripts: Sequence[str]) -> Failing:
    script = table.text("script")
    if script not in scripts:
        table.fail("script", f"{script!r} is none of {', '.join(scripts)}")
    parameter = table.optional_text("parameter")
    lists = {key: tuple(table.texts(key)) if key in table else None for key in ("values", "unless")}
    table.asked(*lists)
    for key, values in lists.items():
        if values is not None and parameter is None:
            table.fail(key, "needs 'parameter' beside it")
    made = Failing(
        script,
        parameter,
        lists["values"],
        lists["unless"],
        table.number("exit_code", 1, least=1),
        table.optional_text("output") or "",
    )
    table.finish()
    return made


def _system(table: Table) -> OSDefinition:
    versions = table.take("api_versions", list, "a list of numbers", [20])
    if not versions or not all(type(version) is int for version in versions):
        table.fail("api_versions", f"must be a list of numbers, is {versions!r}")
    made = OSDefinition(
        name=table.text("name"),
        variants=tuple(table.texts("variants")),
        parameters=table.mapping("parameters"),
        api_versions=tuple(versions),
        directory=table.text("directory", "/usr/share/ganeti/os"),
        fails=tuple(_failing(each, SCRIPTS) for each in table.tables("fails")),
        writes=table.optional_text("writes"),
        renames=table.optional_text("renames"),
        trusted=table.flag("trusted", True),
    )
    known = {name for name, _ in made.parameters} | {
        "instance",
        "index",
        "os",
        "variant",
        "old",
    }
    for key, template in (("writes", made.writes), ("renames", made.renames)):
        try:
            if template is not None:
                template.format_map(dict.fromkeys(known, ""))
        except (KeyError, IndexError, ValueError) as error:
            table.fail(key, f"can't be filled in: {error}")
    table.finish()
    return made


def _image(table: Table) -> BootImage:
    if "never_ends" in table and "seconds" in table:
        table.fail("seconds", "says when it ends, but it never does")
    endless = table.flag("never_ends", False)
    seconds = None if endless else table.rate("seconds") or BootImage("", 0).seconds
    table.asked("seconds")
    made = BootImage(
        place=table.text("place"),
        size=table.number("size", least=1),
        boots=table.flag("boots", True),
        seconds=seconds,
        zeroes=table.flag("zeroes", False),
        installs=table.flag("installs", False),
    )
    table.finish()
    return made


def _provider(table: Table) -> StorageProvider:
    made = StorageProvider(
        name=table.text("name"),
        parameters=table.mapping("parameters"),
        directory=table.text("directory", "/usr/share/ganeti/extstorage"),
        device=table.text("device", "/dev/ext/{name}"),
        fails=tuple(_failing(each, PROVIDER_ACTIONS) for each in table.tables("fails")),
    )
    if "{name}" not in made.device:
        table.fail("device", "must have {name} in it")
    table.finish()
    return made
