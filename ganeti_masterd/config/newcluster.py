"""The configuration of a new cluster of simulated nodes, as gnt-cluster init would leave it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from uuid import uuid4

from ganeti_masterd.config import defaults
from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Cluster, Node, NodeGroup
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import DocumentHeader, Snapshot
from ganeti_masterd.constants import CONFIG_VERSION
from ganeti_masterd.errors import ECODE_INVAL, OpPrereqError

#: How many nodes are master candidates, the master among them.
CANDIDATE_POOL_SIZE = 10

#: DRBD gets ports from above this one.
HIGHEST_USED_PORT = 10999

MASTER_ADDRESS = "192.0.2.1"

#: Addresses that nobody uses: two networks for documentation (RFC 5737), then
#: the one for benchmarks (RFC 2544).
NODE_NETWORKS = ("198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")

DEFAULT_GROUP = "default"

DISK_TEMPLATES = ("diskless", "drbd", "file", "plain")


def new_cluster(
    name: str,
    nodes: int | Mapping[str, str],
    now: float,
    *,
    uuids: Callable[[], str] = lambda: str(uuid4()),
    hypervisors: Sequence[str] = ("fake",),
    disk_templates: Sequence[str] = DISK_TEMPLATES,
    candidate_pool_size: int = CANDIDATE_POOL_SIZE,
    volume_group: str = "xenvg",
    file_storage_dir: str = "/srv/ganeti/file-storage",
    shared_file_storage_dir: str = "/srv/ganeti/shared-file-storage",
) -> Snapshot:
    """Returns a valid configuration.

    ``nodes`` is how many nodes to make: node1 (the master), node2 and so on, in the group
    "default"; or it maps each node's name to its group, the master first. ``now`` is
    seconds since the epoch. Parameters have Ganeti's own defaults, except that the instance
    policy allows small disks and none at all, so that simulated instances are cheap.
    Raises ``OpPrereqError`` for no nodes, or for more than there are addresses.
    """
    if isinstance(nodes, int):
        nodes = {f"node{number}": DEFAULT_GROUP for number in range(1, nodes + 1)}
    if not nodes:
        raise OpPrereqError("a cluster needs at least one node", ECODE_INVAL)
    groups = {
        name: NodeGroup(name=name, ctime=now, mtime=now, uuid=uuids())
        for name in dict.fromkeys((DEFAULT_GROUP, *nodes.values()))
    }
    made = sorted(
        (
            Node(
                name=name,
                primary_ip=address,
                secondary_ip=address,
                master_candidate=number <= candidate_pool_size,
                group=groups[group].uuid,
                ctime=now,
                mtime=now,
                uuid=uuids(),
            )
            for (number, (name, group)), address in zip(
                enumerate(nodes.items(), 1), _addresses(), strict=False
            )
        ),
        key=lambda node: node.uuid,
    )
    if len(made) < len(nodes):
        raise OpPrereqError(f"there are addresses for only {len(made)} nodes", ECODE_INVAL)
    first = next(iter(nodes))
    master = next(node for node in made if node.name == first)
    cluster = Cluster(
        highest_used_port=HIGHEST_USED_PORT,
        mac_prefix="aa:00:00",
        volume_group_name=volume_group,
        drbd_usermode_helper="/bin/true",
        master_node=master.uuid,
        master_ip=MASTER_ADDRESS,
        master_netdev="lo",
        master_netmask=32,
        cluster_name=name,
        file_storage_dir=file_storage_dir,
        shared_file_storage_dir=shared_file_storage_dir,
        gluster_storage_dir="/var/run/ganeti/gluster",
        enabled_hypervisors=tuple(hypervisors),
        hvparams=defaults.HVPARAMS,
        beparams={"default": defaults.BEPARAMS},
        nicparams={"default": defaults.NICPARAMS},
        ndparams=defaults.NDPARAMS,
        diskparams=defaults.DISKPARAMS,
        candidate_pool_size=candidate_pool_size,
        default_iallocator="hail",
        ipolicy=_ipolicy(disk_templates),
        hv_state_static=dict.fromkeys(hypervisors, defaults.HV_STATE),
        enabled_disk_templates=tuple(disk_templates),
        candidate_certs={node.uuid: _digest(node) for node in made if node.master_candidate},
        compression_tools=("gzip", "gzip-fast", "gzip-slow"),
        data_collectors=defaults.DATA_COLLECTORS,
        ctime=now,
        mtime=now,
        uuid=uuids(),
    )
    return Snapshot(
        DocumentHeader(version=CONFIG_VERSION, ctime=now, mtime=now),
        cluster,
        {
            "nodes": Section({node.uuid: node for node in made}),
            "nodegroups": Section({group.uuid: group for group in groups.values()}),
        },
    )


def _addresses() -> Iterator[str]:
    for network in NODE_NETWORKS:
        for address in IPv4Network(network).hosts():
            yield str(address)


def _ipolicy(disk_templates: Sequence[str]) -> Params:
    (bounds,) = defaults.IPOLICY["minmax"]
    least = {**bounds["min"], "disk-size": 0, "disk-count": 0, "nic-count": 0}
    return {
        **defaults.IPOLICY,
        "minmax": [{"min": least, "max": bounds["max"]}],
        "disk-templates": list(disk_templates),
    }


def _digest(node: Node) -> str:
    """Returns the certificate digest that a simulated node reports."""
    digest = hashlib.sha1(node.name.encode(), usedforsecurity=False).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
