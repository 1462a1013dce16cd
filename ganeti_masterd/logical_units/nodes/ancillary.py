"""Ancillary files, which belong to the cluster in addition to its configuration, and their copies.

They are on the master. Every online node gets those for all nodes; nodes that run instances also
get those of the enabled hypervisors (real master daemon 3.0.2). Node daemons accept no other files.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.rpc.wire import file_content

#: Files for every node, below the master's root.
FOR_ALL = (
    "/var/lib/ganeti/known_hosts",
    "/var/lib/ganeti/rapi.pem",
    "/var/lib/ganeti/rapi/users",
    "/var/lib/ganeti/spice.pem",
    "/var/lib/ganeti/spice-ca.pem",
    "/var/lib/ganeti/hmac.key",
    "/var/lib/ganeti/cluster-domain-secret",
)

#: The one file that all nodes of a virtual cluster share, whatever their root.
HOSTS_FILE = "/etc/hosts"

_XEN = ("/etc/xen/xend-config.sxp", "/etc/xen/xen/xl.conf", "/etc/xen/scripts/vif-bridge")

#: Files for nodes that run instances, by hypervisor.
OF_HYPERVISORS: Mapping[str, tuple[str, ...]] = {
    "kvm": ("/etc/ganeti/kvm-vif-bridge",),
    "xen-hvm": (*_XEN, "/etc/ganeti/vnc-cluster-password"),
    "xen-pvm": _XEN,
}


def read_file(path: str) -> list[Any]:
    """Returns a file as the argument of ``upload_file``: path, content, mode, owners, times.

    See protocol/rpc.rst, Objects as arguments.

    Blocks. Raises ``OSError``.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read()
    return [
        path,
        file_content(content),
        status.st_mode,
        _name_of(status.st_uid, pwd.getpwuid),
        _name_of(status.st_gid, grp.getgrgid),
        status.st_atime,
        status.st_mtime,
    ]


def distribute(ctx: Context, more: Iterable[Node] = ()) -> None:
    """Copies the files to all online nodes except the master, one file after the other.

    ``more`` are further nodes that the configuration doesn't contain or has as offline. Files
    missing on the master are left out; failures are only warnings.
    """
    snapshot = ctx.snapshot()
    nodes = {node.uuid: node for node in snapshot.nodes.values() if not node.offline}
    nodes.update((node.uuid, node) for node in more)
    nodes.pop(snapshot.cluster.master_node, None)
    everyone = [Target.anyway(node) for node in nodes.values()]
    hosts = [Target.anyway(node) for node in nodes.values() if node.vm_capable]
    for path in _for_all(snapshot, ctx.root):
        _upload(ctx, path, everyone)
    for path in _for_hosts(snapshot, ctx.root):
        _upload(ctx, path, hosts)


def _for_all(snapshot: Snapshot, root: str) -> list[str]:
    shared = [HOSTS_FILE] if snapshot.cluster.modify_etc_hosts else []
    return [*(root + path for path in FOR_ALL), *shared]


def _for_hosts(snapshot: Snapshot, root: str) -> list[str]:
    hypervisors = snapshot.cluster.enabled_hypervisors
    paths = (path for name in hypervisors for path in OF_HYPERVISORS.get(name, ()))
    return [root + path for path in dict.fromkeys(paths)]


def _upload(ctx: Context, path: str, nodes: Sequence[Target]) -> None:
    if not nodes:
        return
    try:
        file = read_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        ctx.warning(f"File {path} can't be read to be copied to the nodes: {error}")
        return
    for answer in ctx.call(nodes, calls.UPLOAD_FILE, (file,)).values():
        if answer.failed:
            ctx.warning(f"Copy of file {path} to node {answer.node} failed: {answer.error}")


def _name_of(number: int, look_up: Callable[[int], Sequence[Any]]) -> str:
    """Returns the name of an owner, or its number as text, which the node will refuse."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)
