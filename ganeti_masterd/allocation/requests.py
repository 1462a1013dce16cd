"""Requests to an allocator (iallocator, version 2), and the checks of their answers.

Requests are immutable. They name nodes and instances by their names; sizes are in MiB.
:meth:`AllocationRequest.plain` makes the ``request`` of the document,
:meth:`AllocationRequest.read` turns the ``result`` of an answer into a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from ganeti_masterd.allocation import results
from ganeti_masterd.config.base import EMPTY
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import summary_name, template_named
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, prereq
from ganeti_masterd.opcodes.types import EvacuationMode

Document = Mapping[str, Any]


class AllocationRequest(Protocol):
    """A question to an allocator."""

    @property
    def options(self) -> Mapping[str, str | None]:
        """Options for the script's command line; None for an option without a value."""
        ...

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """Returns the request in the form in which it is sent, including its ``type``.

        Raises ``OpPrereqError`` if it is wrong for its instances.
        """
        ...

    def template_for(self, snapshot: Snapshot) -> str | None:
        """Returns the template about whose storage nodes are asked; None: the cluster's first."""
        ...

    def hypervisor_for(self, snapshot: Snapshot) -> str | None:
        """Returns the hypervisor that nodes are asked about; None for the cluster's first."""
        ...

    def read(self, result: Any, document: Document) -> Any:
        """Returns an answer's result as a value; raises ``ResultValidationError`` if invalid."""
        ...


class _Asking(Struct, frozen=True, kw_only=True):
    """The base of most requests."""

    MODE: ClassVar[str]

    @property
    def options(self) -> Mapping[str, str | None]:
        """See :attr:`AllocationRequest.options`."""
        return EMPTY

    def template_for(self, snapshot: Snapshot) -> str | None:
        """See :meth:`AllocationRequest.template_for`."""
        return None

    def hypervisor_for(self, snapshot: Snapshot) -> str | None:
        """See :meth:`AllocationRequest.hypervisor_for`."""
        return None


class Allocate(_Asking, frozen=True, kw_only=True):
    """Asks where to place a new instance: its primary node, and with DRBD its secondary.

    ``disks`` are ``{"size", "mode", ...}``, ``nics`` NIC parameters. ``nodes``
    restricts the choice to these.
    """

    MODE = "allocate"

    name: str
    memory: int
    vcpus: int
    disk_template: str
    disks: Sequence[Mapping[str, Any]]
    nics: Sequence[Mapping[Any, Any]] = ()
    os: str
    hypervisor: str
    tags: Sequence[str] = ()
    spindle_use: int = 1
    group_name: str | None = None
    nodes: Sequence[str] | None = None

    @property
    def required_nodes(self) -> int:
        """How many nodes it needs."""
        return 2 if template_named(self.disk_template).internal else 1

    def described(self) -> dict[str, Any]:
        """Returns the description of the new instance that allocators get."""
        template = template_named(self.disk_template)
        return {
            "name": self.name,
            "disk_template": self.disk_template,
            "group_name": self.group_name,
            "tags": list(self.tags),
            "os": self.os,
            "vcpus": self.vcpus,
            "memory": self.memory,
            "spindle_use": self.spindle_use,
            "disks": [{**disk, "type": self.disk_template} for disk in self.disks],
            "disk_space_total": sum(template.room(int(disk["size"])) for disk in self.disks),
            "nics": [dict(nic) for nic in self.nics],
            "required_nodes": self.required_nodes,
            "hypervisor": self.hypervisor,
            **({} if self.nodes is None else {"restrict-to-nodes": list(self.nodes)}),
        }

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """See :meth:`AllocationRequest.plain`."""
        return {**self.described(), "type": self.MODE}

    def template_for(self, snapshot: Snapshot) -> str | None:
        """The new instance's."""
        return self.disk_template

    def hypervisor_for(self, snapshot: Snapshot) -> str | None:
        """The new instance's."""
        return self.hypervisor

    def read(self, result: Any, document: Document) -> list[str]:
        """Returns the names of as many nodes as it needs."""
        return results.nodes(result, self.required_nodes)


class MultiAllocate(_Asking, frozen=True, kw_only=True):
    """Asks where to place several new instances; each can be placed without the others."""

    MODE = "multi-allocate"

    instances: Sequence[Allocate]

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """See :meth:`AllocationRequest.plain`."""
        return {"instances": [each.described() for each in self.instances], "type": self.MODE}

    def template_for(self, snapshot: Snapshot) -> str | None:
        """The first instance's; the real daemon takes the cluster's first."""
        return self.instances[0].disk_template if self.instances else None

    def hypervisor_for(self, snapshot: Snapshot) -> str | None:
        """The first instance's."""
        return self.instances[0].hypervisor if self.instances else None

    def read(self, result: Any, document: Document) -> results.Placements:
        """Returns the nodes of each instance that was placed, and the names of the others."""
        return results.placements(result)


class AllocateSecondary(_Asking, frozen=True, kw_only=True):
    """Asks which node can mirror the disks of an instance that has no mirror."""

    MODE = "allocate-secondary"

    name: str

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """See :meth:`AllocationRequest.plain`."""
        return {"name": snapshot.instance(self.name).name, "type": self.MODE}

    def template_for(self, snapshot: Snapshot) -> str | None:
        """DRBD, to which its disks are to be converted."""
        return "drbd"

    def read(self, result: Any, document: Document) -> str:
        """Returns the node's name."""
        return results.node(result)


class Relocate(_Asking, frozen=True, kw_only=True):
    """Asks for a new secondary node, or a new primary one for an externally mirrored instance.

    ``leaving`` are the uuids of the nodes that the instance is to leave.
    """

    MODE = "relocate"

    name: str
    leaving: Sequence[str]

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """See :meth:`AllocationRequest.plain`; only mirrored instances can be relocated."""
        instance = snapshot.instance(self.name)
        disks = snapshot.disks_of(instance)
        if not all(disk.template.mirrored for disk in disks):
            raise prereq("Can't relocate non-mirrored instances", ECODE_INVAL)
        internal = any(disk.template.internal for disk in disks)
        if internal and len(snapshot.nodes_of(instance)) != 2:
            raise prereq("Instance has not exactly one secondary node", ECODE_STATE)
        return {
            "name": instance.name,
            "disk_space_total": taken_by(disks),
            "required_nodes": 1,
            "relocate_from": [snapshot.node(uuid).name for uuid in self.leaving],
            "type": self.MODE,
        }

    def template_for(self, snapshot: Snapshot) -> str | None:
        """The instance's."""
        return template_of(snapshot, snapshot.instance(self.name))

    def hypervisor_for(self, snapshot: Snapshot) -> str | None:
        """The instance's."""
        return snapshot.instance(self.name).hypervisor

    def read(self, result: Any, document: Document) -> list[str]:
        """Returns the new nodes, which must be in the groups where the instance is."""
        found = results.nodes(result)
        primary = document["instances"][document["request"]["name"]]["nodes"][0]
        leaving = document["request"]["relocate_from"]
        results.check_groups(document, [*found, primary], [*leaving, primary])
        return found


class _Moving(_Asking, frozen=True, kw_only=True):
    """Asks about existing instances. Nodes are asked about the storage of the first mirrored one.

    Only mirrors that the cluster keeps need room on the nodes where they go. (The real
    daemon asks about the storage of the cluster's first disk template.)
    """

    instances: Sequence[str]

    def template_for(self, snapshot: Snapshot) -> str | None:
        """That of the first instance with mirrors, else the first instance's."""
        found = [template_of(snapshot, snapshot.instance(name)) for name in self.instances]
        mirrored = (name for name in found if template_named(name).internal)
        return next(mirrored, found[0] if found else None)

    def hypervisor_for(self, snapshot: Snapshot) -> str | None:
        """The first instance's."""
        return snapshot.instance(self.instances[0]).hypervisor if self.instances else None

    def read(self, result: Any, document: Document) -> results.Moves:
        """Returns which instances move where, which can't, and the jobs that move them."""
        return results.moves(result)


class EvacuationRequest(_Moving, frozen=True, kw_only=True):
    """Asks how to move instances off their primary nodes, their secondary ones, or both."""

    MODE = "node-evacuate"

    evac_mode: EvacuationMode
    ignore_soft_errors: bool = False

    @property
    def options(self) -> Mapping[str, str | None]:
        """The script has an option for ``ignore_soft_errors``."""
        return {"ignore-soft-errors": None} if self.ignore_soft_errors else EMPTY

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """See :meth:`AllocationRequest.plain`."""
        return {
            "instances": list(self.instances),
            "evac_mode": self.evac_mode,
            "type": self.MODE,
        }


class ChangeGroup(_Moving, frozen=True, kw_only=True):
    """Asks how to move instances to other groups (uuids; any but their own if empty)."""

    MODE = "change-group"

    target_groups: Sequence[str] = ()

    def plain(self, snapshot: Snapshot) -> dict[str, Any]:
        """See :meth:`AllocationRequest.plain`."""
        return {
            "instances": list(self.instances),
            "target_groups": list(self.target_groups),
            "type": self.MODE,
        }


def taken_by(disks: Sequence[Disk]) -> int:
    """Returns how much of a node's storage disks take, in MiB."""
    return sum(disk.template.room(disk.size) for disk in disks)


def template_of(snapshot: Snapshot, instance: Instance) -> str:
    """Returns the template of an instance's disks, or "mixed" if they differ."""
    return summary_name(disk.dev_type for disk in snapshot.disks_of(instance))
