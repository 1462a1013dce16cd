"""The whole configuration as an immutable value, which all readers use.

A snapshot never changes. It may be read from any thread and kept for as long
as needed. A changed configuration is another snapshot, which shares everything
that is unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.base import EMPTY, ConfigObject, Number
from ganeti_masterd.config.kinds import KINDS, SECTIONS
from ganeti_masterd.config.objects import (
    Cluster,
    Disk,
    FilterRule,
    Instance,
    Network,
    Node,
    NodeGroup,
)
from ganeti_masterd.config.section import Section
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NOENT,
    ConfigurationError,
    OpPrereqError,
    ProgrammerError,
)


class DocumentHeader(ConfigObject, frozen=True, kw_only=True, dict=True):
    """The document's own version, times and serial; ``version`` stays as it was loaded."""

    version: int
    ctime: Number = 0
    mtime: Number = 0
    serial_no: int = 1


class Snapshot:
    """The configuration at one moment."""

    __slots__ = ("cluster", "header", "order", *(kind.attribute for kind in SECTIONS.values()))

    nodes: Section[Node]
    groups: Section[NodeGroup]
    instances: Section[Instance]
    networks: Section[Network]
    disks: Section[Disk]
    filters: Section[FilterRule]

    def __init__(
        self,
        header: DocumentHeader,
        cluster: Cluster,
        sections: Mapping[str, Section[Any]],
        order: tuple[str, ...] = (),
    ) -> None:
        """Makes a snapshot of these parts; a section that isn't given is empty.

        ``order`` is the order of the document's keys, empty for the usual one.
        """
        self.header = header
        self.cluster = cluster
        self.order = order
        for key, kind in SECTIONS.items():
            setattr(self, kind.attribute, sections.get(key) or Section(EMPTY))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return (
            self.header == other.header
            and self.cluster == other.cluster
            and all(self.section(key).items() == other.section(key).items() for key in SECTIONS)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def master(self) -> Node:
        """The master node; raises ``ConfigurationError`` if the configuration doesn't have it."""
        try:
            return self.nodes[self.cluster.master_node]
        except KeyError:
            raise ConfigurationError(
                f"the master node '{self.cluster.master_node}' is not in the configuration"
            )

    def section(self, key: str) -> Section[Any]:
        """Returns a section by its key in the file."""
        try:
            section: Section[Any] = getattr(self, SECTIONS[key].attribute)
        except KeyError:
            raise ProgrammerError(f"the configuration has no section '{key}'")
        return section

    def locate(self, uuid: str) -> tuple[str, Any] | None:
        """Returns (section key, object) of a uuid, or None; the cluster's key is "cluster"."""
        if uuid == self.cluster.uuid:
            return "cluster", self.cluster
        for key in SECTIONS:
            obj = self.section(key).get(uuid)
            if obj is not None:
                return key, obj
        return None

    def lookup(self, kind: str, name: str | None) -> Any | None:
        """Returns the object of ``kind`` with a name or uuid, or None.

        ``kind`` is "cluster", which needs no name, or one of :data:`KINDS
        <ganeti_masterd.config.kinds.KINDS>`. Names of hosts may be shortened up to a dot.
        """
        if kind == "cluster":
            return self.cluster
        try:
            about = KINDS[kind]
        except KeyError:
            raise OpPrereqError(f"Unhandled object kind '{kind}'", ECODE_INVAL)
        if name is None:
            return None
        section = self.section(about.section)
        found = section.get(name)
        if found is not None:
            return found
        return section.expanded(name) if about.host_names else section.named(name)

    def find(self, kind: str, name: str | None) -> Any:
        """Returns what :meth:`lookup` returns, but never None.

        Raises ``OpPrereqError`` with ``unknown_entity``, in the real daemon's
        words, if there is no such object.
        """
        found = self.lookup(kind, name)
        if found is None:
            raise OpPrereqError(KINDS[kind].missing.format(name), ECODE_NOENT)
        return found

    def node(self, name: str) -> Node:
        """Returns the node with a name or uuid; raises like :meth:`find`."""
        found: Node = self.find("node", name)
        return found

    def group(self, name: str) -> NodeGroup:
        """Returns the node group with a name or uuid; raises like :meth:`find`."""
        found: NodeGroup = self.find("nodegroup", name)
        return found

    def instance(self, name: str) -> Instance:
        """Returns the instance with a name or uuid; raises like :meth:`find`."""
        found: Instance = self.find("instance", name)
        return found

    def network(self, name: str) -> Network:
        """Returns the network with a name or uuid; raises like :meth:`find`."""
        found: Network = self.find("network", name)
        return found

    def group_of(self, node: Node) -> NodeGroup:
        """Returns a node's group; raises ``ConfigurationError`` if it doesn't exist."""
        try:
            return self.groups[node.group]
        except KeyError:
            raise ConfigurationError(
                f"node '{node.name}' is in group '{node.group}', which is not in the configuration"
            )

    def members(self, group: NodeGroup | str) -> tuple[Node, ...]:
        """Returns the nodes of a group (the object or its uuid), sorted by uuid."""
        uuids = self.nodes.grouped(_group).get(_uuid(group), ())
        return tuple(self.nodes[uuid] for uuid in uuids)

    def candidates(self) -> tuple[Node, ...]:
        """Returns the master candidates, including the master, sorted by uuid."""
        uuids = self.nodes.grouped(_candidate).get(True, ())
        return tuple(self.nodes[uuid] for uuid in uuids)

    def instances_on(self, node: Node | str) -> tuple[Instance, ...]:
        """Returns the instances with this primary node (object or uuid), sorted by uuid."""
        uuids = self.instances.grouped(_primary).get(_uuid(node), ())
        return tuple(self.instances[uuid] for uuid in uuids)

    def secondaries_on(self, node: Node | str) -> tuple[Instance, ...]:
        """Returns the instances with this secondary node (object or uuid), sorted by uuid."""
        node = _uuid(node)
        owners = self.instances.grouped(_disks)
        found = {uuid for disk in self.disks_on(node) for uuid in owners.get(disk.uuid, ())}
        instances = (self.instances[uuid] for uuid in sorted(found))
        return tuple(each for each in instances if each.primary_node != node)

    def disks_on(self, node: Node | str) -> tuple[Disk, ...]:
        """Returns the disks that are on a node (object or uuid), attached or not, by uuid."""
        uuids = self.disks.grouped(Disk.all_nodes).get(_uuid(node), ())
        return tuple(self.disks[uuid] for uuid in uuids)

    def owner_of(self, disk: Disk) -> Instance | None:
        """Returns the instance that a disk belongs to, None if it is detached."""
        uuids = self.instances.grouped(_disks).get(disk.uuid)
        return None if uuids is None else self.instances[uuids[0]]

    def disks_of(self, instance: Instance) -> tuple[Disk, ...]:
        """Returns an instance's disks in order; leaves out those not in the configuration."""
        return tuple(self.disks[uuid] for uuid in instance.disks if uuid in self.disks)

    def nodes_of(self, instance: Instance) -> tuple[str, ...]:
        """Returns the uuids of an instance's nodes, the primary first."""
        uuids = [instance.primary_node]
        for disk in self.disks_of(instance):
            uuids += disk.all_nodes()
        return tuple(dict.fromkeys(uuids))

    def with_object(self, section: str, obj: Any) -> Snapshot:
        """Returns the configuration with an object added or replaced; changes no serials.

        ``section`` is a key of the file; "cluster" replaces the cluster.
        """
        if section == "cluster":
            changed = self._copy()
            changed.cluster = obj
            return changed
        return self._with_section(section, self.section(section).with_object(obj))

    def without(self, section: str, uuid: str) -> Snapshot:
        """Returns the configuration without an object; raises ``KeyError`` for an unknown uuid."""
        return self._with_section(section, self.section(section).without(uuid))

    def with_serial(self, now: float, steps: int = 1) -> Snapshot:
        """Returns the configuration with the document's serial increased and its time ``now``."""
        changed = self._copy()
        changed.header = replace(self.header, serial_no=self.header.serial_no + steps, mtime=now)
        return changed

    def _copy(self) -> Snapshot:
        changed = Snapshot.__new__(Snapshot)
        changed.header = self.header
        changed.cluster = self.cluster
        changed.order = self.order
        for kind in SECTIONS.values():
            setattr(changed, kind.attribute, getattr(self, kind.attribute))
        return changed

    def _with_section(self, key: str, section: Section[Any]) -> Snapshot:
        changed = self._copy()
        setattr(changed, SECTIONS[key].attribute, section)
        return changed


def _uuid(obj: Node | NodeGroup | str) -> str:
    return obj if isinstance(obj, str) else obj.uuid


# What objects belong to, for `Section.grouped`.


def _group(node: Node) -> tuple[str]:
    return (node.group,)


def _candidate(node: Node) -> tuple[bool]:
    return (node.master_candidate,)


def _primary(instance: Instance) -> tuple[str]:
    return (instance.primary_node,)


def _disks(instance: Instance) -> tuple[str, ...]:
    return instance.disks
