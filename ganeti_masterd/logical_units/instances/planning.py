"""What an OP_INSTANCE_CREATE comes to, as far as the opcode and the configuration tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Cluster, Disk, Nic
from ganeti_masterd.config.tags import joined_tags
from ganeti_masterd.config.templates import DiskTemplate, summary_name
from ganeti_masterd.errors import ECODE_INVAL, TagError, prereq
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.instances import specification
from ganeti_masterd.logical_units.instances.nics import (
    COMMUNICATION_PREFIX,
    NicWish,
    communication_nic,
    read_nics,
    wish_of,
)
from ganeti_masterd.logical_units.instances.placing import NewInstance
from ganeti_masterd.logical_units.instances.publishing import WholeInstance
from ganeti_masterd.opcodes.instances import InstanceCreate

#: Hypervisors whose instances have a TCP port, for a console in a window.
WITH_PORT = frozenset({"kvm", "xen-hvm"})


class WantedInstance(Struct, frozen=True, kw_only=True):
    """A new instance that was read and checked by itself.

    ``backend`` and ``hvparams`` are its own parameters, ``filled_backend`` and
    ``filled_hypervisor`` all that take effect. ``kept_nics`` are NICs of a forthcoming
    instance by their place, ``kept_disks`` its disks (None: there will be new ones).
    """

    name: str
    template: DiskTemplate
    disks: Sequence[DiskSpecification]
    nics: Sequence[NicWish]
    hypervisor: str
    hvparams: Params
    filled_hypervisor: Params
    backend: Params
    filled_backend: Params
    os: str
    os_parameters: specification.OsParameters
    tags: tuple[str, ...]
    group_name: str | None
    kept_nics: tuple[Nic, ...] = ()
    kept_disks: tuple[Disk, ...] | None = None

    @property
    def image(self) -> str | None:
        """The image for the first disk, None without one."""
        image: str | None = self.os_parameters.public.get(specification.OS_IMAGE)
        return image

    @property
    def needs_port(self) -> bool:
        """Whether it has a TCP port of its own."""
        return self.hypervisor in WITH_PORT

    def to_be_placed(self) -> NewInstance:
        """Returns what its place depends on."""
        return NewInstance(
            name=self.name,
            template=self.template,
            disks=self.disks,
            nics=self.nics,
            backend=self.filled_backend,
            os=self.os,
            hypervisor=self.hypervisor,
            tags=self.tags,
            group_name=self.group_name,
        )


def read_instance(
    op: InstanceCreate,
    name: str,
    cluster: Cluster,
    *,
    address: str | None = None,
    planned: WholeInstance | None = None,
) -> WantedInstance:
    """Returns what an opcode wants, complete and checked.

    ``address`` is what the name resolves to, None if that wasn't looked up; ``planned`` is
    the forthcoming instance that is to be made. Raises ``OpPrereqError``,
    ``TypeEnforcementError``, ``HypervisorError``.
    """
    template = _template(op, name, cluster, planned)
    hypervisor = specification.enabled_hypervisor(cluster, op.hypervisor)
    os = op.os_type or ""
    specification.check_os_allowed(cluster, os)
    hvparams = specification.hypervisor(cluster, hypervisor, os, op.hvparams)
    inherited = specification.inherited_hypervisor(cluster, hypervisor, os)
    backend = specification.backend(cluster, op.beparams)
    own = specification.os_parameters(op.osparams, op.osparams_private, op.osparams_secret)
    if op.mode == "create" and op.os_type is None and specification.OS_IMAGE not in own.public:
        raise prereq("No guest OS or OS image specified", ECODE_INVAL)
    nics, kept_nics = _nics(op, name, cluster, address, planned)
    disks, kept_disks = _disks(op, template, cluster, planned)
    defaults = cluster.beparams.get("default", {})
    wanted = WantedInstance(
        name=name,
        template=template,
        disks=disks,
        nics=nics,
        hypervisor=hypervisor,
        hvparams=hvparams,
        filled_hypervisor={**inherited, **hvparams},
        backend=backend,
        filled_backend={**defaults, **backend},
        os=os,
        os_parameters=own,
        tags=_tags(op.tags),
        group_name=op.group_name,
        kept_nics=kept_nics,
        kept_disks=kept_disks,
    )
    return _without_defaults(wanted, cluster) if op.identify_defaults else wanted


def specification_of(disk: Disk) -> DiskSpecification:
    """Returns the specification by which a disk would be made as it is."""
    data, meta = disk, disk
    if disk.template.internal and len(disk.children) == 2:
        data, meta = disk.children
    return DiskSpecification(
        size=disk.size,
        mode=disk.mode,
        name=disk.name,
        group=_group(data),
        meta_group=_group(meta) if meta is not data else "",
        spindles=disk.spindles,
        params=disk.params,
    )


def _template(
    op: InstanceCreate, name: str, cluster: Cluster, planned: WholeInstance | None
) -> DiskTemplate:
    if planned is None or not planned.disks:
        return specification.enabled_template(cluster, op.disk_template)
    own = summary_name(disk.dev_type for disk in planned.disks)
    if op.disk_template not in (None, own):
        raise prereq(
            f"Forthcoming instance {name} has disks of the template {own}, not {op.disk_template}",
            ECODE_INVAL,
        )
    return specification.enabled_template(cluster, own)


def _nics(
    op: InstanceCreate,
    name: str,
    cluster: Cluster,
    address: str | None,
    planned: WholeInstance | None,
) -> tuple[list[NicWish], tuple[Nic, ...]]:
    """Returns the NICs, and those of a forthcoming instance whose places they take."""
    given: list[Any] = list(op.nics)
    before = planned.instance.nics if planned is not None else ()
    there = any(nic.name == COMMUNICATION_PREFIX + name for nic in before)
    if op.instance_communication and (any(given) or not there):
        given.append(communication_nic(cluster, name))
    if planned is None:
        return read_nics(given, cluster, resolved=address), ()
    if not any(given):
        return [wish_of(nic) for nic in before], before
    old = [wish_of(nic) for nic in before]
    return read_nics(given, cluster, old=old, resolved=address), before


def _disks(
    op: InstanceCreate,
    template: DiskTemplate,
    cluster: Cluster,
    planned: WholeInstance | None,
) -> tuple[list[DiskSpecification], tuple[Disk, ...] | None]:
    """Returns the disks, and those of a forthcoming instance if they are the same."""
    given = specification.read_disks(op.disks, template, cluster)
    if planned is None:
        return given, None
    kept = [specification_of(disk) for disk in planned.disks]
    if not given or _alike(given, kept):
        return kept, planned.disks
    return given, None


def _alike(given: Sequence[DiskSpecification], planned: Sequence[DiskSpecification]) -> bool:
    """Whether disks are as planned, as far as something is said of them."""
    return len(given) == len(planned) and all(
        (one.size, one.mode, one.group, one.adopt) == (other.size, other.mode, other.group, None)
        and one.name in (None, other.name)
        and one.meta_group in ("", other.meta_group)
        and one.params == other.params
        for one, other in zip(given, planned, strict=True)
    )


def _group(disk: Disk) -> str:
    return str(disk.logical_id[0]) if disk.template.lvm and disk.logical_id else ""


def _tags(given: Iterable[str]) -> tuple[str, ...]:
    try:
        return joined_tags((), given)
    except TagError as error:
        raise prereq(str(error.args[0]), ECODE_INVAL)


def _without_defaults(wanted: WantedInstance, cluster: Cluster) -> WantedInstance:
    """Returns the instance without parameters of its own that are as they would be anyway."""
    none = specification.OsParameters()
    inherited = specification.filled_os(cluster, wanted.os, none)
    reduce = specification.without_defaults
    nic_defaults = cluster.nicparams.get("default", {})
    return replace(
        wanted,
        hvparams=reduce(
            wanted.hvparams,
            specification.inherited_hypervisor(cluster, wanted.hypervisor, wanted.os),
        ),
        backend=reduce(wanted.backend, cluster.beparams.get("default", {})),
        os_parameters=specification.OsParameters(
            public=reduce(wanted.os_parameters.public, inherited.public),
            private=reduce(wanted.os_parameters.private, inherited.private),
            secret=wanted.os_parameters.secret,
        ),
        nics=[
            nic
            if nic.network is not None
            else replace(nic, parameters=reduce(nic.parameters, nic_defaults))
            for nic in wanted.nics
        ],
    )
