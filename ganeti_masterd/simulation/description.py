"""The description of a simulated cluster, and how it is read from a TOML file.

``docs/simulate.rst`` says what can stand in the file. What makes no sense
raises :class:`DescriptionError`, which names the file, the table, the key and
the fault.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from msgspec import Struct

from ganeti_masterd.simulation.ends import Pace
from ganeti_masterd.simulation.node import Failing, OSDefinition, StorageProvider
from ganeti_masterd.simulation.state import Hardware, PhysicalVolume, VolumeGroup

DEFAULT_SYSTEMS = (OSDefinition("noop", api_versions=(5, 10)),)

#: Storage that every node sees, unless the file says otherwise.
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


class DescriptionError(Exception):
    """A description that makes no sense; the text says where and why."""


class DescribedVolume(Struct, frozen=True):
    """A logical volume that is there from the beginning."""

    group: str
    name: str
    size: int


class DescribedNode(Struct, frozen=True):
    """A node: its machine, its node group, and volumes that it has from the beginning."""

    hardware: Hardware = Hardware()
    group: str = "default"
    volumes: tuple[DescribedVolume, ...] = ()


class Description(Struct, frozen=True):
    """A simulated cluster; without a file every node is like ``default``.

    ``nodes`` by name, in the order in which the file has them. Speeds are in
    MiB/s, None: no time passes. ``settings`` are those of a new cluster.
    """

    nodes: dict[str, DescribedNode] = {}
    default: DescribedNode = DescribedNode()
    systems: tuple[OSDefinition, ...] = DEFAULT_SYSTEMS
    providers: tuple[StorageProvider, ...] = ()
    pace: Pace = Pace()
    transfer_speed: float | None = None
    migration_speed: float | None = None
    shared_paths: tuple[str, ...] = SHARED_PATHS
    settings: dict[str, Any] = {}

    def node(self, name: str) -> DescribedNode:
        """Returns the description of a node; one that isn't in the file is as the default."""
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
    """Makes a description of a TOML document; ``path`` is for messages."""
    top = _Table(path, "", document)
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
    cluster = top.optional_table("cluster")
    settings: dict[str, Any] = {}
    shared: Sequence[str] = SHARED_PATHS
    transfer = migration = None
    if cluster is not None:
        cluster.asked(*CLUSTER_TEXTS, *CLUSTER_LISTS, "candidate_pool_size")
        for key in CLUSTER_TEXTS:
            if key in cluster:
                settings[key] = cluster.text(key)
        for key in CLUSTER_LISTS:
            if key in cluster:
                settings[key] = cluster.texts(key)
        if "candidate_pool_size" in cluster:
            settings["candidate_pool_size"] = cluster.number("candidate_pool_size", least=1)
        place = settings.get("shared_file_storage_dir")
        usual = SHARED_PATHS if place is None else (*SHARED_PATHS, place)
        shared = cluster.texts("shared_paths", usual)
        transfer = cluster.rate("transfer_speed")
        migration = cluster.rate("migration_speed")
        cluster.finish()
    top.finish()
    _check_unique(top, "os", [each.name for each in systems])
    _check_unique(top, "storage_provider", [each.name for each in providers])
    return Description(
        nodes=nodes,
        default=default,
        systems=tuple(systems) or DEFAULT_SYSTEMS,
        providers=tuple(providers),
        pace=pace,
        transfer_speed=transfer,
        migration_speed=migration,
        shared_paths=tuple(shared),
        settings=settings,
    )


CLUSTER_TEXTS = ("name", "volume_group", "file_storage_dir", "shared_file_storage_dir")
CLUSTER_LISTS = ("disk_templates", "hypervisors")


class _Table:
    """A table of the file; each key that is asked for is known, all others are faults."""

    def __init__(self, path: str, name: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._name = name
        self._values = values
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def fail(self, key: str, fault: str) -> NoReturn:
        """Raises the error about a key of this table."""
        place = f"table [{self._name}]" if self._name else "the top of the file"
        raise DescriptionError(f"{self._path}: {place}, key {key!r}: {fault}")

    def asked(self, *keys: str) -> None:
        """Takes keys as known that were only looked for."""
        self._asked.update(keys)

    def finish(self) -> None:
        """Refuses keys that mean nothing."""
        for key in self._values:
            if key not in self._asked:
                known = ", ".join(sorted(self._asked))
                self.fail(key, f"there is no such key (there are: {known})")

    def take(self, key: str, kind: Any, shape: str, default: Any = None) -> Any:
        """Returns a value of a kind; ``default`` where it is left out."""
        self._asked.add(key)
        if key not in self._values:
            return default
        value = self._values[key]
        if isinstance(value, bool) and kind is not bool:
            self.fail(key, f"must be {shape}, is {value!r}")
        if not isinstance(value, kind):
            self.fail(key, f"must be {shape}, is {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a text that isn't empty."""
        value = self.take(key, str, "a text", default)
        if not value:
            self.fail(key, "is missing" if value is None else "is empty")
        return str(value)

    def optional_text(self, key: str) -> str | None:
        """Returns a text, or None where it is left out."""
        value = self.take(key, str, "a text")
        return None if value is None else str(value)

    def texts(self, key: str, default: Sequence[str] = ()) -> list[str]:
        """Returns a list of texts."""
        values = self.take(key, list, "a list of texts", list(default))
        for value in values:
            if not isinstance(value, str):
                self.fail(key, f"must be a list of texts, has {value!r}")
        return list(values)

    def number(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Returns a whole number, not below ``least``."""
        value = self.take(key, int, "a whole number", default)
        if value is None:
            self.fail(key, "is missing")
        if value < least:
            self.fail(key, f"must be at least {least}, is {value}")
        return int(value)

    def rate(self, key: str) -> float | None:
        """Returns a number above zero, None where it is left out."""
        value = self.take(key, (int, float), "a number")
        if value is not None and not value > 0:
            self.fail(key, f"must be above zero, is {value}")
        return None if value is None else float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Returns true or false."""
        return bool(self.take(key, bool, "true or false", default))

    def tables(self, key: str) -> list[_Table]:
        """Returns an array of tables."""
        values = self.take(key, list, f"an array of tables: [[{key}]]", [])
        for value in values:
            if not isinstance(value, dict):
                self.fail(key, f"must be an array of tables: [[{key}]]")
        name = f"{self._name}.{key}" if self._name else key
        return [_Table(self._path, f"{name}[{at + 1}]", value) for at, value in enumerate(values)]

    def optional_table(self, key: str) -> _Table | None:
        """Returns a table, or None where it is left out."""
        value = self.take(key, dict, f"a table: [{key}]")
        name = f"{self._name}.{key}" if self._name else key
        return None if value is None else _Table(self._path, name, value)

    def mapping(self, key: str) -> tuple[tuple[str, str], ...]:
        """Returns the pairs of a table of texts."""
        value = self.take(key, dict, "a table of texts", {})
        for name, text in value.items():
            if not isinstance(text, str):
                self.fail(key, f"{name!r} must be a text, is {text!r}")
        return tuple(value.items())


def _check_unique(top: _Table, table: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            top.fail(table, f"there are two of the name {name!r}")


def _pace(top: _Table) -> Pace:
    table = top.optional_table("sync")
    if table is None:
        return Pace()
    speed, seconds = table.rate("speed"), table.rate("seconds")
    quick = table.rate("quick_seconds")
    if speed is not None and seconds is not None:
        table.fail("seconds", "a sync has a speed or takes a fixed time, not both")
    if quick is not None and seconds is None:
        table.fail("quick_seconds", "needs 'seconds' beside it")
    table.finish()
    return Pace(speed, seconds, quick or 0.0)


def _default_node(top: _Table) -> DescribedNode:
    table = top.optional_table("every_node")
    return DescribedNode() if table is None else _node(table, DescribedNode(), named=False)


def _node(table: _Table, default: DescribedNode, *, named: bool = True) -> DescribedNode:
    if named:
        table.text("name")
    machine = default.hardware
    groups = tuple(_group(each) for each in table.tables("volume_group"))
    for group in groups:
        if sum(other.name == group.name for other in groups) > 1:
            table.fail("volume_group", f"there are two volume groups {group.name!r}")
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


def _group(table: _Table) -> VolumeGroup:
    name = table.text("name")
    physical = [_physical(each) for each in table.tables("physical_volume")]
    if not physical:
        table.fail("physical_volume", "is missing: a volume group has at least one")
    table.finish()
    return VolumeGroup(name, tuple(physical))


def _physical(table: _Table) -> PhysicalVolume:
    made = PhysicalVolume(table.text("name"), table.number("size", least=4))
    table.finish()
    return made


def _volume(table: _Table, hardware: Hardware) -> DescribedVolume:
    made = DescribedVolume(
        table.text("volume_group"), table.text("name"), table.number("size", least=1)
    )
    if hardware.group(made.group) is None:
        table.fail("volume_group", f"the node has no volume group {made.group!r}")
    table.finish()
    return made


def _failing(table: _Table, scripts: Sequence[str]) -> Failing:
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


def _system(table: _Table) -> OSDefinition:
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


def _provider(table: _Table) -> StorageProvider:
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
