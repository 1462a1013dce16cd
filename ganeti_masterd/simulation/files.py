"""Calls that write files on simulated nodes: uploads, simple configuration, the job queue."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import ARCHIVE_DIRECTORY_PERMS
from ganeti_masterd.simulation.devices import FILE_TYPES
from ganeti_masterd.simulation.node import (
    CONFIG_FILE,
    DATA_DIR,
    QUEUE,
    QUEUE_DIR,
    SSCONF_PREFIX,
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
)
from ganeti_masterd.simulation.state import StoredFile

calls = Implementations()

#: What noded lets itself be sent, by local path (protocol/rpc.rst, Objects as arguments).
UPLOADS = frozenset(
    {
        CONFIG_FILE,
        DATA_DIR + "/known_hosts",
        DATA_DIR + "/rapi.pem",
        DATA_DIR + "/rapi/users",
        DATA_DIR + "/spice.pem",
        DATA_DIR + "/spice-ca.pem",
        DATA_DIR + "/hmac.key",
        DATA_DIR + "/cluster-domain-secret",
        "/etc/hosts",
        "/etc/ganeti/vnc-cluster-password",
        "/etc/ganeti/xend-config.sxp",
        "/etc/ganeti/scripts/vif-ganeti",
        "/etc/ganeti/kvm-vif-bridge",
    }
)

SSCONF_KEYS = frozenset(
    {
        "cluster_name",
        "cluster_tags",
        "enabled_user_shutdown",
        "file_storage_dir",
        "gluster_storage_dir",
        "hvparams_chroot",
        "hvparams_fake",
        "hvparams_kvm",
        "hvparams_lxc",
        "hvparams_xen-hvm",
        "hvparams_xen-pvm",
        "hypervisor_list",
        "instance_list",
        "maintain_node_health",
        "master_candidates",
        "master_candidates_certs",
        "master_candidates_ips",
        "master_ip",
        "master_netdev",
        "master_netmask",
        "master_node",
        "networks",
        "node_list",
        "node_primary_ips",
        "node_secondary_ips",
        "node_vm_capable",
        "nodegroups",
        "offline_nodes",
        "online_nodes",
        "primary_ip_family",
        "release_version",
        "shared_file_storage_dir",
        "ssh_ports",
        "uid_pool",
    }
)
SSCONF_LIMIT = 131072

#: Compressed content of up to this many characters is checked completely; of longer content only
#: the first so many are checked, a multiple of four.
CHECKED = 1 << 16
BEGINNING = 1 << 10


def stored(
    content: Sequence[Any],
    mode: int,
    owner: str = "gnt-masterd",
    group: str = "gnt-daemons",
    mtime: float | None = None,
) -> StoredFile:
    """Returns a file for content as received; raises if that can't be decoded."""
    if not isinstance(content, list) or len(content) != 2:
        raise Unexpected("a file's content must be a form and data")
    form, data = content
    if form not in (0, 1):
        raise Unexpected("")
    if not isinstance(data, str):
        raise Unexpected("a file's content must be text")
    return _file(form, data, mode, owner, group, mtime)


@lru_cache(maxsize=8)
def _file(
    form: int, data: str, mode: int, owner: str, group: str, mtime: float | None
) -> StoredFile:
    """Returns the file, the same object again if it was made of late; raises as :func:`stored`.

    All candidates are sent the same, one after another: it is checked and encoded once for all.
    """
    if form == 1:
        try:
            _check(data)
        except (ValueError, zlib.error) as error:
            raise Unexpected(str(error))
    return StoredFile(form, data, mode, owner, group, mtime)


def _check(data: str) -> None:
    """Raises ``ValueError`` or ``zlib.error`` if compressed content can't be read.

    Of large content only the beginning is checked: all candidates get the whole configuration
    again and again, and the checks run in the process that benchmarks measure.
    """
    if len(data) <= CHECKED:
        _ = StoredFile(1, data).content
    else:
        zlib.decompressobj().decompress(base64.b64decode(data[:BEGINNING], validate=True))


@calls("upload_file_single")
def upload_file_single(
    node: SimulatedNode,
    name: str,
    content: Sequence[Any],
    mode: int | None,
    owner: Any,
    group: Any,
    atime: float | None,
    mtime: float | None,
) -> Deferred[None] | None:
    """Stores one of the files that may be uploaded."""
    path = node.local_path(name)
    if not path.startswith("/"):
        raise NodeFailure(f"Filename passed to UploadFile is not absolute: '{path}'")
    if path not in UPLOADS:
        raise NodeFailure(f"Filename passed to UploadFile not in allowed upload targets: '{path}'")
    if not (isinstance(owner, str) and isinstance(group, str)):
        raise NodeFailure("Invalid username/groupname type")
    file = stored(content, 0o600 if mode is None else mode & 0o7777, owner, group, mtime)
    return node.keep({path: file})


@calls("upload_file")
def upload_file(node: SimulatedNode, file: Sequence[Any]) -> Deferred[None] | None:
    """The same, with the file's content and attributes in one list."""
    return upload_file_single(node, *file)


@calls("write_ssconf_files")
def write_ssconf_files(node: SimulatedNode, values: Mapping[str, Any]) -> Deferred[None] | None:
    """Writes values of the simple configuration: all of them, or none if one is wrong."""
    shared = node.world.cluster
    if shared.ssconf[0] is not values:
        # The door's own copy, which nobody changes.
        shared.ssconf = values, _ssconf_files(values, shared.ssconf[1])
    held = node.state.files
    # Most are the very same object, which tells without comparing contents.
    changed: dict[str, StoredFile] = {}
    for path, file in shared.ssconf[1].items():
        before = held.get(path)
        if before is not file and before != file:
            changed[path] = file
    return node.keep(changed)


def _ssconf_files(
    values: Mapping[str, Any], before: Mapping[str, StoredFile]
) -> dict[str, StoredFile]:
    """Returns the files of the simple configuration by path; those of ``before`` if unchanged."""
    files: dict[str, StoredFile] = {}
    for key, value in values.items():
        if key not in SSCONF_KEYS:
            raise Unexpected(f"Invalid key requested from SSConf: '{key}'")
        text = value if isinstance(value, str) else "\n".join(value)
        if text and not text.endswith("\n"):
            text += "\n"
        if len(text) > SSCONF_LIMIT:
            raise Unexpected(
                f"Value '{key}' has a length of {len(text)} bytes,"
                f" but only up to {SSCONF_LIMIT} are allowed"
            )
        path = SSCONF_PREFIX + key
        file, known = StoredFile(0, text, 0o444, "root", "root"), before.get(path)
        files[path] = known if known is not None and known == file else file
    return files


@calls("jobqueue_update")
def jobqueue_update(node: SimulatedNode, name: str, content: Sequence[Any]) -> Any:
    """Writes a file of the queue."""
    path = _queue_file(node, name)
    return node.keep({path: stored(content, 0o640)})


@calls("jobqueue_rename")
def jobqueue_rename(
    node: SimulatedNode, pairs: Sequence[Sequence[str]]
) -> list[None] | Deferred[list[None]]:
    """Renames files of the queue, in order, up to the first that is missing."""
    done: list[None] = []
    moves = [(_queue_file(node, old), _queue_file(node, new)) for old, new in pairs]
    if node.is_master and node.master_root is not None:
        root = node.master_root.rstrip("/")
        return node.world.in_disk_thread(
            _rename_real, [(root + source, root + target) for source, target in moves]
        )
    for source, target in moves:
        file = node.state.files.pop(source)
        if file is None:
            error = FileNotFoundError(2, "No such file or directory", source, None, target)
            raise Unexpected(str(error))
        archived = target.startswith(QUEUE.archive + "/")
        (node.state.archive if archived else node.state.files)[target] = file
        done.append(None)
    return done


@calls("jobqueue_purge")
def jobqueue_purge(node: SimulatedNode) -> None:
    """Removes all files of the queue, including archived ones."""
    for path in node.state.files:
        if path.startswith(QUEUE_DIR + "/"):
            node.state.files.pop(path)
    node.state.archive.clear()


@calls("jobqueue_set_drain_flag")
def jobqueue_set_drain_flag(node: SimulatedNode, flag: bool) -> Deferred[None] | None:
    """Sets or removes the drain flag."""
    if flag:
        return node.keep({QUEUE.drain: StoredFile(0, "")})
    return node.discard(QUEUE.drain)


@calls("get_file_info")
def get_file_info(node: SimulatedNode, name: str) -> list[Any]:
    """Returns whether a file exists, and its size."""
    image = node.world.images.get(name)
    if image is not None:
        return [True, {"size": image.size * 1048576}]
    content = node.read(node.local_path(name))
    if content is not None:
        return [True, {"size": len(content)}]
    device = node.state.devices.get(name) or node.world.cluster.volumes.get(name)
    if device is not None and device.kind in FILE_TYPES:
        return [True, {"size": device.size * 1048576}]
    return [False, {}]


def _queue_file(node: SimulatedNode, name: str) -> str:
    path = node.local_path(name)
    if not path.startswith(QUEUE_DIR + "/"):
        raise NodeFailure(
            f"Passed job queue file '{path}' does not belong to the queue directory '{QUEUE_DIR}'"
        )
    return path


def _rename_real(moves: list[tuple[str, str]]) -> list[None]:
    """Renames real files of the master's queue, durably. Blocks; raises ``OSError``."""
    disk = RealDisk()
    for source, target in moves:
        before, after = os.path.dirname(source), os.path.dirname(target)
        _make_folders(disk, after)
        disk.rename(source, target)
        for folder in sorted({before, after}):
            disk.sync_directory(folder)
    return [None] * len(moves)


def _make_folders(disk: IDisk, path: str) -> None:
    above = os.path.dirname(path)
    if not os.path.isdir(path):
        _make_folders(disk, above)
        disk.make_directory(path, ARCHIVE_DIRECTORY_PERMS)
        disk.sync_directory(above)
