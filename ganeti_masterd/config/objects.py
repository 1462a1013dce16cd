"""The objects of the configuration, with Ganeti's own key names (config.data 3.0 and 3.1).

All are frozen; nested parameter dictionaries are plain and never changed in
place: a change makes a new object with ``msgspec.structs.replace``. Times are
seconds since the epoch, sizes MiB. Objects name each other by uuid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from msgspec import field
from msgspec.structs import replace

from ganeti_masterd.config.base import ConfigObject, Number, Params
from ganeti_masterd.config.tags import joined_tags, remaining_tags
from ganeti_masterd.config.templates import DiskTemplate, template_named

T = TypeVar("T", bound="Taggable")


class Taggable(ConfigObject, frozen=True, kw_only=True, dict=True):
    """An object that carries tags; each subclass has the field ``tags``."""

    def with_tags(self: T, tags: Iterable[str]) -> T:
        """Returns the object with ``tags`` added; raises ``TagError`` for a bad one."""
        return replace(self, tags=joined_tags(self.tags, tags))  # type: ignore[attr-defined]

    def without_tags(self: T, tags: Iterable[str]) -> T:
        """Returns the object without ``tags``; raises ``TagError`` if one isn't there."""
        return replace(self, tags=remaining_tags(self.tags, tags))  # type: ignore[attr-defined]


class Cluster(Taggable, frozen=True, kw_only=True, dict=True):
    """The cluster's own parameters: the defaults of all other objects, and which node is master."""

    rsahostkeypub: str = ""
    dsahostkeypub: str = ""
    highest_used_port: int
    tcpudp_port_pool: tuple[int, ...] = ()
    mac_prefix: str
    volume_group_name: str | None = None
    reserved_lvs: tuple[str, ...] = ()
    drbd_usermode_helper: str | None = None
    default_bridge: str | None = None
    default_hypervisor: str | None = None
    master_node: str
    master_ip: str
    master_netdev: str
    master_netmask: int
    use_external_mip_script: bool = False
    cluster_name: str
    file_storage_dir: str = ""
    shared_file_storage_dir: str = ""
    gluster_storage_dir: str = ""
    enabled_hypervisors: tuple[str, ...]
    hvparams: Mapping[str, Params] = {}
    os_hvp: Mapping[str, Any] = {}
    beparams: Mapping[str, Params] = {}
    osparams: Mapping[str, Params] = {}
    osparams_private_cluster: Mapping[str, Params] = {}
    nicparams: Mapping[str, Params] = {}
    ndparams: Params = {}
    diskparams: Mapping[str, Params] = {}
    candidate_pool_size: int
    modify_etc_hosts: bool = False
    modify_ssh_setup: bool = False
    maintain_node_health: bool = False
    uid_pool: tuple[tuple[int, int], ...] = ()
    default_iallocator: str = ""
    default_iallocator_params: Params = {}
    hidden_os: tuple[str, ...] = ()
    blacklisted_os: tuple[str, ...] = ()
    primary_ip_family: int = 2
    prealloc_wipe_disks: bool = False
    ipolicy: Params = {}
    hv_state_static: Params = {}
    disk_state_static: Params = {}
    enabled_disk_templates: tuple[str, ...]
    candidate_certs: Mapping[str, str] = {}
    max_running_jobs: int = 20
    max_tracked_jobs: int = 25
    install_image: str = ""
    instance_communication_network: str = ""
    zeroing_image: str = ""
    compression_tools: tuple[str, ...] = ()
    enabled_user_shutdown: bool = False
    data_collectors: Mapping[str, Params] = {}
    ssh_key_type: str = "rsa"
    ssh_key_bits: int = 2048
    ctime: Number = 0
    mtime: Number = 0
    uuid: str
    serial_no: int = 1
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.cluster_name


class Node(Taggable, frozen=True, kw_only=True, dict=True):
    """A node: a machine that runs a node daemon."""

    name: str
    primary_ip: str
    secondary_ip: str
    master_candidate: bool = False
    offline: bool = False
    drained: bool = False
    group: str
    master_capable: bool = True
    vm_capable: bool = True
    ndparams: Params = {}
    powered: bool = True
    hv_state_static: Params | None = None
    disk_state_static: Params | None = None
    ctime: Number = 0
    mtime: Number = 0
    uuid: str
    serial_no: int = 1
    tags: tuple[str, ...] = ()


class NodeGroup(Taggable, frozen=True, kw_only=True, dict=True):
    """A node group. Its nodes refer to it; ``members`` is always empty in the file."""

    name: str
    members: tuple[str, ...] = ()
    ndparams: Params = {}
    alloc_policy: str = "preferred"
    ipolicy: Params = {}
    diskparams: Mapping[str, Params] = {}
    networks: Mapping[str, Params] = {}
    hv_state_static: Params | None = None
    disk_state_static: Params | None = None
    ctime: Number = 0
    mtime: Number = 0
    uuid: str
    serial_no: int = 1
    tags: tuple[str, ...] = ()


class Nic(ConfigObject, frozen=True, kw_only=True, dict=True):
    """A network interface of an instance; ``network`` is a network's uuid."""

    mac: str
    ip: str | None = None
    nicparams: Params = {}
    network: str | None = None
    name: str | None = None
    uuid: str


class Instance(Taggable, frozen=True, kw_only=True, dict=True):
    """A virtual machine; a forthcoming one is only a reservation."""

    nested: ClassVar[Mapping[str, type[ConfigObject]]] = {"nics": Nic}

    forthcoming: bool | None = None
    name: str
    primary_node: str = ""
    os: str = ""
    hypervisor: str = ""
    hvparams: Params = {}
    beparams: Params = {}
    osparams: Params = {}
    osparams_private: Params = {}
    admin_state: str = "down"
    admin_state_source: str = "admin"
    nics: tuple[Nic, ...] = ()
    disks: tuple[str, ...] = ()
    disk_template: str | None = None
    disks_active: bool = False
    network_port: int | None = None
    ctime: Number = 0
    mtime: Number = 0
    uuid: str
    serial_no: int = 1
    tags: tuple[str, ...] = ()


class Disk(ConfigObject, frozen=True, kw_only=True, dict=True):
    """A disk, attached to at most one instance; ``children`` are the disks it is built on.

    ``logical_id`` depends on ``dev_type``: for drbd it is ``[node uuid, node
    uuid, port, minor, minor, secret]``, for plain ``[volume group, volume]``,
    for file ``[driver, path]``.
    """

    forthcoming: bool | None = None
    logical_id: tuple[Any, ...] | None = None
    dev_type: str
    children: tuple[Disk, ...] = ()
    nodes: tuple[str, ...] = ()
    iv_name: str = ""
    size: int
    mode: str = "rw"
    name: str | None = None
    spindles: int | None = None
    params: Params = {}
    uuid: str
    serial_no: int = 1
    ctime: Number = 0
    mtime: Number = 0

    @property
    def template(self) -> DiskTemplate:
        """The disk's template."""
        return template_named(self.dev_type)

    @property
    def volume(self) -> str | None:
        """The disk's logical volume (``group/volume``); None if the disk isn't a plain one."""
        if self.template.lvm and not self.template.children and self.logical_id is not None:
            return "/".join(map(str, self.logical_id[:2]))
        return None

    def minors(self) -> list[tuple[str, int]]:
        """Returns (node uuid, DRBD minor) for each end of this disk and its children."""
        found = [pair for child in self.children for pair in child.minors()]
        if self.template.port_and_minors and self.logical_id and len(self.logical_id) >= 5:
            one, other, _, minor, other_minor = self.logical_id[:5]
            found += [(one, minor), (other, other_minor)]
        return found

    def ports(self) -> list[int]:
        """Returns the TCP ports of this disk and its children."""
        found = [port for child in self.children for port in child.ports()]
        if self.template.port_and_minors and self.logical_id and len(self.logical_id) >= 3:
            found.append(self.logical_id[2])
        return found

    def all_nodes(self) -> tuple[str, ...]:
        """Returns the uuids of the disk's nodes; of a drbd disk in the order of ``logical_id``."""
        if self.template.internal and self.logical_id is not None:
            return tuple(self.logical_id[:2])
        return self.nodes


# A drbd disk stands on two plain ones, so the class nests itself.
Disk.nested = {"children": Disk}

#: Where the logical id of a drbd disk has the secret that its ends share.
_SECRET = 5


def hide_secret(logical_id: Sequence[Any], instead: Any) -> list[Any]:
    """Returns the logical id of a drbd disk with ``instead`` in the place of its secret."""
    found = list(logical_id)
    if len(found) > _SECRET:
        found[_SECRET] = instead
    return found


class Network(Taggable, frozen=True, kw_only=True, dict=True):
    """A network that NICs may belong to; for its reservations see :mod:`.addresspool`."""

    name: str
    mac_prefix: str | None = None
    network: str
    network6: str | None = None
    gateway: str | None = None
    gateway6: str | None = None
    reservations: str | None = None
    ext_reservations: str | None = None
    uuid: str
    ctime: Number = 0
    mtime: Number = 0
    serial_no: int = 1
    tags: tuple[str, ...] = ()


class FilterRule(ConfigObject, frozen=True, kw_only=True, dict=True):
    """A rule that decides which jobs may run; it has no serial.

    See protocol/queue.rst, Order and filter rules.
    """

    watermark: int
    priority: int
    predicates: tuple[Any, ...] = ()
    action: Any = field(default="CONTINUE")
    reason_trail: tuple[Any, ...] = ()
    uuid: str
