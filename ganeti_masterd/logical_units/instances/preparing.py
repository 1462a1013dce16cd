"""What comes before an instance is made: its nodes, locks, checks, and what hooks are told.

Texts are those of real daemon 3.0.2; where ours differs, docs/differences.rst says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from ganeti_masterd.allocation.desk import PendingPlace
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    ECODE_EXISTS,
    ECODE_INVAL,
    ECODE_STATE,
    prereq,
)
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.trees import (
    DiskLocation,
    base_directory,
    build_disks,
    file_directory,
)
from ganeti_masterd.logical_units.instances import (
    adopting,
    fitting,
    importing,
    placing,
    requirements,
    specification,
    untrusted,
)
from ganeti_masterd.logical_units.instances.environment import instance_environment
from ganeti_masterd.logical_units.instances.helper_vm import HelperImage
from ganeti_masterd.logical_units.instances.importing import FoundExport, SendingCluster
from ganeti_masterd.logical_units.instances.nics import require_distinct, settle_nic
from ganeti_masterd.logical_units.instances.planning import WantedInstance, read_instance
from ganeti_masterd.logical_units.instances.publishing import WholeInstance
from ganeti_masterd.logical_units.instances.resolving import check_address_unused, resolved_name
from ganeti_masterd.logical_units.nodes.addresses import normal_name
from ganeti_masterd.opcodes.instances import InstanceCreate

#: What hooks are told of a disk before the opcode (and never after it: then all is told).
_BEFORE = re.compile(r"INSTANCE_DISK\d+_(NAME|SIZE|MODE)")
_OF_DISK = re.compile(r"INSTANCE_DISK\d+_")


class CheckedCreation(LogicalUnit[InstanceCreate]):
    """An OP_INSTANCE_CREATE up to its work: afterwards :attr:`whole` is what is to be made.

    With name, nodes and NICs found, everything that can be refused was refused, and all that
    the instance will have is reserved. Hooks run on the master and on its nodes.
    """

    waits_for_resources = True
    prepares = True

    #: The instance as it will be, with its disks, from :meth:`check` on.
    whole: WholeInstance
    wanted: WantedInstance
    #: The forthcoming instance that is made, None for another one.
    planned: WholeInstance | None = None
    #: The uuids of its nodes, the primary first; none until an allocator chose.
    nodes: tuple[str, ...] = ()
    #: The export that it comes from, and the cluster that sends it.
    source: FoundExport | None = None
    sender: SendingCluster | None = None
    #: What a helper VM boots from that installs the operating system; None without one.
    helper: HelperImage | None = None
    #: Where it is to be, chosen before the locks; None if that is done with all nodes held.
    place: PendingPlace | None = None
    name: str
    #: What the name resolves to, None if that isn't looked up.
    address: str | None = None
    adopts: bool = False
    #: The uuid of a secondary node that was named and isn't needed.
    ignored: tuple[str, ...] = ()

    # Before the locks

    def expand(self, snapshot: Snapshot) -> None:
        """Checks the arguments by themselves."""
        op = self.op
        _check_arguments(op)
        self.name = normal_name(op.instance_name)
        self.uuid = str(uuid4())
        if not (op.name_check or self.imports):
            self._find(snapshot)

    @property
    def imports(self) -> bool:
        """Whether its disks come from an export, or from another cluster."""
        return self.op.mode != "create"

    def prepare(self, ctx: Context) -> None:
        """Looks the name up, where that is wanted; has a place found, where that can be."""
        op = self.op
        if op.name_check:
            found = resolved_name(ctx, op.instance_name)
            self.name, self.address = found.name, found.address
        if op.mode == "import":
            self.source = importing.find_export(ctx, op, self.name)
            self.op = op = self._completed(ctx, self.source)
        elif op.mode == "remote-import":
            self.sender = importing.sending_cluster(ctx, op)
        if op.name_check or self.imports:
            self._find(ctx.snapshot())
        if not (self.nodes or self.attempt or op.opportunistic_locking):
            self.place = placing.choose_ahead(ctx, self.wanted.to_be_placed(), op)

    def _completed(self, ctx: Context, source: FoundExport) -> InstanceCreate:
        cluster = ctx.snapshot().cluster
        return importing.completed(self.op, source.document, self.name, cluster)

    def _find(self, snapshot: Snapshot) -> None:
        """Finds the forthcoming instance, or makes sure that there is none; finds the nodes."""
        op = self.op
        requirements.require_compression(snapshot.cluster, op.compress)
        existing = snapshot.instances.named(self.name)
        if not op.commit:
            specification.enabled_template(snapshot.cluster, op.disk_template)
            if existing is not None:
                raise prereq(f"Instance '{self.name}' is already in the cluster", ECODE_EXISTS)
            wanted = read_instance(op, self.name, snapshot.cluster, address=self.address)
            self.nodes = placing.named_nodes(snapshot, op)
            self.adopts = adopting.check_adoption(
                wanted.disks, wanted.template, by_allocator=not self.nodes
            )
            self._check_nodes_fit(wanted)
            self.wanted = wanted
            return
        if existing is None:
            raise prereq(f"Instance {self.name} unknown", ECODE_INVAL)
        if not existing.forthcoming:
            raise prereq(
                f"Instance {self.name} (with uuid {existing.uuid}) not forthcoming but --commit "
                "was passed.",
                ECODE_STATE,
            )
        self.uuid = existing.uuid
        self.planned = WholeInstance(existing, snapshot.disks_of(existing))
        self.nodes = snapshot.nodes_of(existing)
        self._check_as_planned(snapshot)
        self.wanted = read_instance(
            op, self.name, snapshot.cluster, address=self.address, planned=self.planned
        )
        if adopting.check_adoption(self.wanted.disks, self.wanted.template, by_allocator=False):
            raise prereq("A forthcoming instance can't adopt disks", ECODE_INVAL)

    def _check_nodes_fit(self, wanted: WantedInstance) -> None:
        op = self.op
        if self.nodes and wanted.template.internal and len(self.nodes) < 2:
            raise prereq("The networked disk templates need a mirror node", ECODE_INVAL)
        if self.nodes and op.opportunistic_locking:
            raise prereq(
                "Opportunistic locking is only available in combination with an instance allocator",
                ECODE_INVAL,
            )
        if self.adopts and op.forthcoming:
            raise prereq("A forthcoming instance can't adopt disks", ECODE_INVAL)
        self.ignored = self.nodes[1:] if not wanted.template.internal else ()
        self.nodes = self.nodes[: 2 if wanted.template.internal else 1]

    def _check_as_planned(self, snapshot: Snapshot) -> None:
        """Refuses nodes other than those that were planned."""
        named = (
            (self.op.pnode_uuid or self.op.pnode, self.nodes[:1]),
            (self.op.snode_uuid or self.op.snode, self.nodes[1:]),
        )
        for name, planned in named:
            if name is not None and snapshot.node(name).uuid not in planned:
                raise prereq(
                    f"Forthcoming instance {self.name} is not planned on node {name}", ECODE_INVAL
                )

    @property
    def some_nodes(self) -> bool:
        """Whether an allocator chooses among nodes that are free, not among all."""
        wanted = self.op.opportunistic_locking and self.op.mode != "import"
        return wanted and not self.attempt and not self.nodes

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``."""
        if level is Level.INSTANCE:
            if self.op.commit:
                return exclusive(self.name)
            return exclusive((), creating=self.name)
        if level in (Level.NODEGROUP, Level.NODE, Level.NODE_RES):
            minimum = (2 if self.wanted.template.internal else 1) if self.some_nodes else None
            wanted = placing.locks_of_place(
                level, snapshot, self._placed(snapshot), self.held.get(Level.NODE), minimum
            )
            if level is Level.NODE and self.source is not None and wanted.names is not None:
                return exclusive((*wanted.names, self.source.node))
            return wanted
        return super().locks(level, snapshot)

    # With the locks

    def check(self, ctx: Context) -> None:
        """Refuses what can't be; finds the nodes, and reserves names, addresses and ports."""
        op = self.op
        self._find_again(ctx)
        wanted = self.wanted
        if self.imports:
            importing.tell_ignored(ctx, op)
        elif op.no_install and op.start:
            ctx.info("No-installation mode selected, disabling startup")
        if op.ip_check and self.address is not None and self.planned is None:
            check_address_unused(self.address, self.name)
        base = base_directory(ctx.snapshot().cluster, wanted.template.name)
        if not self.nodes:
            self.nodes = self._chosen(ctx)
        elif self.planned is not None:
            names = [ctx.snapshot().nodes[uuid].name for uuid in self.nodes]
            ctx.info(f"Nodes of instance {self.name}: {names}")
        elif self.ignored:
            ctx.warning("Secondary node will be ignored on non-mirrored disk template")
        placing.keep_place(ctx, self.nodes, self.source_nodes)
        placing.check_place(ctx, self.nodes, wanted.template)
        nics = self._settle_nics(ctx)
        with placing.still_fitting(ctx, self.place):
            disks = fitting.completed_disks(ctx, wanted, self.nodes, adopts=self.adopts)
            self.wanted = wanted = replace(wanted, disks=disks)
            if not op.ignore_ipolicy:
                fitting.check_policy(ctx.snapshot(), wanted, self.nodes[0])
            fitting.ask_nodes(ctx, wanted, self.nodes, force_variant=op.force_variant)
            if self.installs and not untrusted.is_trusted(ctx, self.nodes[0], wanted.os):
                self.helper = self._find_helper(ctx)
                untrusted.warn_if_unreachable(ctx, nics)
            elif self.imports and wanted.os:
                untrusted.refuse_untrusted(ctx, self.nodes[0], wanted.os)
            starts = self.starts or self.helper is not None
            fitting.ask_primary(ctx, wanted, self.nodes[0], nics, starts=starts)
        self.whole = self._build(ctx, nics, base)
        if self.source is not None:
            importing.warn_of_sizes(ctx, self.source, self.whole.disks)

    def _find_helper(self, ctx: Context) -> HelperImage:
        """Returns what the helper VM boots from that installs the operating system."""
        wanted = self.wanted
        beside = requirements.room_in_groups(wanted.template.name, wanted.disks)
        return untrusted.find_install_image(
            ctx, self.nodes[0], wanted.hypervisor, wanted.filled_hypervisor, beside
        )

    @property
    def source_nodes(self) -> tuple[str, ...]:
        """The uuid of the node that has the export; none without one."""
        return () if self.source is None else (self.source.node,)

    def _placed(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Returns the nodes that were named or chosen before the locks; none if one is gone."""
        if self.nodes or self.place is None:
            return self.nodes
        return self.place.nodes if set(self.place.nodes) <= snapshot.nodes.keys() else ()

    def _chosen(self, ctx: Context) -> tuple[str, ...]:
        """Returns the nodes that an allocator chose, before the locks or now."""
        if self.place is not None and self._placed(ctx.snapshot()):
            return placing.confirm(ctx, self.place)
        return placing.choose_nodes(
            ctx,
            self.wanted.to_be_placed(),
            self.op,
            ctx.owned(Level.NODE),
            some=self.some_nodes,
        )

    def _find_again(self, ctx: Context) -> None:
        """Makes sure that what was found before the locks is still so."""
        nodes = self.nodes
        if self.source is not None:
            there = importing.read_export(ctx, self.source.node, self.source.path)
            if there != self.source:
                raise prereq(
                    f"The export in {self.source.path} changed since locks were acquired; retry "
                    "the operation",
                    ECODE_STATE,
                )
        self._find(ctx.snapshot())
        if self.nodes != nodes:
            raise prereq(
                f"Nodes of instance {self.name} changed since locks were acquired; retry the "
                "operation",
                ECODE_STATE,
            )

    def _settle_nics(self, ctx: Context) -> tuple[Any, ...]:
        kept = self.wanted.kept_nics
        nics = tuple(
            settle_nic(
                ctx,
                wish,
                index,
                self.nodes[0],
                conflicts_check=self.op.conflicts_check,
                before=kept[index] if index < len(kept) else None,
            )
            for index, wish in enumerate(self.wanted.nics)
        )
        require_distinct(nics)
        return nics

    @property
    def starts(self) -> bool:
        """Whether it is started in the end."""
        return self.op.start and (self.imports or not self.op.no_install)

    @property
    def installs(self) -> bool:
        """Whether the scripts of its operating system run."""
        wanted = self.wanted
        return bool(
            wanted.os
            and wanted.disks
            and wanted.image is None
            and not (self.op.no_install or self.op.forthcoming or self.adopts or self.imports)
        )

    def _build(self, ctx: Context, nics: tuple[Any, ...], base: str) -> WholeInstance:
        """Returns the instance with its disks; all that it has is reserved."""
        op, wanted = self.op, self.wanted
        forthcoming = True if op.forthcoming else None
        if wanted.kept_disks is not None:
            disks = [_settled(disk, None) for disk in wanted.kept_disks]
        else:
            directory = file_directory(base, op.file_storage_dir, self.name, wanted.template.name)
            where = DiskLocation(
                instance_uuid=self.uuid,
                nodes=self.nodes,
                directory=directory if wanted.template.directory else "",
                driver=op.file_driver or "loop",
            )
            naming = ReservedNaming(ctx)
            disks = build_disks(wanted.template.name, wanted.disks, where, naming)
            disks = [_settled(disk, forthcoming) for disk in disks]
        instance = Instance(
            forthcoming=forthcoming,
            name=self.name,
            uuid=self.uuid,
            primary_node=self.nodes[0],
            os=wanted.os,
            hypervisor=wanted.hypervisor,
            hvparams=wanted.hvparams,
            beparams=wanted.backend,
            osparams=wanted.os_parameters.public,
            osparams_private=wanted.os_parameters.private,
            nics=nics,
            disks=tuple(disk.uuid for disk in disks),
            network_port=self._port(ctx),
            tags=wanted.tags,
        )
        return WholeInstance(instance, tuple(disks))

    def _port(self, ctx: Context) -> int | None:
        if not self.wanted.needs_port:
            return None
        if self.planned is not None and self.planned.instance.network_port:
            return self.planned.instance.network_port
        return ctx.new_port()

    # Hooks

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master and the nodes of the instance."""
        nodes = tuple(dict.fromkeys((snapshot.master.uuid, *self.nodes)))
        return HookNodes(nodes, nodes)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Tells of the instance; of its disks only what was asked for, until they are there."""
        there = snapshot.instances.get(self.uuid)
        made = self._is_whole(there)
        instance = there if there is not None and made else self.whole.instance
        disks = None if made else self.whole.disks
        told = instance_environment(snapshot, instance, disks=disks, status=self.op.start)
        if not made:
            told = _without_disks(told)
            for index in range(len(self.whole.disks)):
                told[f"INSTANCE_DISK{index}_UUID"] = ""
        told = {**told, "ADD_MODE": self.op.mode}
        if self.source is None:
            return told
        images = [self.source.image(at) or False for at in range(len(self.whole.disks))]
        node = snapshot.nodes.get(self.source.node)
        return {
            **told,
            "SRC_NODE": "" if node is None else node.name,
            "SRC_PATH": self.source.path,
            "SRC_IMAGES": str(images),
        }

    def _is_whole(self, there: Instance | None) -> bool:
        """Whether the instance in the configuration is the one that this opcode makes."""
        return there is not None and bool(there.forthcoming) == bool(self.op.forthcoming)


def _check_arguments(op: InstanceCreate) -> None:
    """Refuses arguments that don't go together."""
    importing.check_arguments(op)
    if op.forthcoming and op.commit:
        raise prereq("Forthcoming generation and commiting are mutually exclusive", ECODE_INVAL)
    if op.ip_check and not op.name_check:
        raise prereq("Cannot do IP address check without a name check", ECODE_INVAL)


def _settled(disk: Disk, forthcoming: bool | None) -> Disk:
    return replace(disk, forthcoming=forthcoming)


def _without_disks(told: Mapping[str, object]) -> dict[str, object]:
    """Returns variables without those that only a disk that is there has."""
    return {
        name: value
        for name, value in told.items()
        if not _OF_DISK.match(name) or _BEFORE.fullmatch(name)
    }
