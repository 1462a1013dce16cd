"""Calls about exports, and the daemons that copy disks from node to node."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.constants import (
    EXPORT_CONF_FILE,
    EXPORT_VERSION,
    IEIO_FILE,
    IEIO_RAW_DISK,
    IEIO_SCRIPT,
    IEM_EXPORT,
    IEM_IMPORT,
)
from ganeti_masterd.simulation.blocks import Block, DeviceError, os_error
from ganeti_masterd.simulation.describing import DescribedDisk, described
from ganeti_masterd.simulation.devices import looked_up
from ganeti_masterd.simulation.node import (
    DATA_DIR,
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
    failing,
    member,
)
from ganeti_masterd.simulation.state import Dump, StoredExport
from ganeti_masterd.simulation.systems import installed, os_parameters
from ganeti_masterd.simulation.transfers import EXPORT_PATIENCE, Transfer, options

calls = Implementations()

EXPORT_DIR = DATA_DIR + "/export"
KEYS_DIR = "/var/run/ganeti/crypto"

#: The suffix of an export's directory until it is finalized.
UNFINISHED = ".new"

#: The longest validity of a node's certificate, in seconds.
LONGEST_VALIDITY = 7 * 86400


@calls("export_list")
def export_list(node: SimulatedNode) -> list[str]:
    """Returns the names of the exports on this node."""
    if not _has_exports(node):
        raise NodeFailure("No exports directory")
    names = {*node.state.exports, *_bare(node)}
    return sorted(name for name in names if not name.startswith("."))


@calls("export_info")
def export_info(node: SimulatedNode, path: str) -> str:
    """The config.ini of an export."""
    export = node.state.exports.get(_export_name(node, path) or "")
    if export is None or export.config is None:
        raise NodeFailure("Export info file doesn't have the required fields")
    return export.config


@calls("export_remove")
def export_remove(node: SimulatedNode, name: str) -> None:
    """Removes an export."""
    bare = _bare(node)
    if name in bare:
        node.state.facts["exports"] = [each for each in bare if each != name]
    elif node.state.exports.pop(name) is None:
        error = os_error(errno.ENOENT, f"{EXPORT_DIR}/{name}")
        raise NodeFailure(f"Error while removing the export: {error}")


@calls("finalize_export")
def finalize_export(node: SimulatedNode, instance: Mapping[str, Any], disks: Sequence[Any]) -> None:
    """Writes config.ini, and replaces an older export of the instance."""
    name = member(instance, "name")
    held = node.state.exports.pop(name + UNFINISHED)
    if held is None:
        path = f"{EXPORT_DIR}/{name}{UNFINISHED}/{EXPORT_CONF_FILE}"
        raise Unexpected(str(os_error(errno.ENOENT, path)))
    node.state.exports[name] = replace(held, config=_config(node, instance, disks))


@calls("import_start")
def import_start(
    node: SimulatedNode,
    opts: Mapping[str, Any],
    instance: Mapping[str, Any],
    component: str,
    dest: Sequence[Any],
) -> str:
    """Starts a daemon that receives a disk from another node; returns its name."""
    return _start(node, IEM_IMPORT, opts, None, None, instance, component, dest)


@calls("export_start")
def export_start(
    node: SimulatedNode,
    opts: Mapping[str, Any],
    host: str | None,
    port: int | None,
    instance: Mapping[str, Any],
    component: str,
    source: Sequence[Any],
) -> str:
    """Starts a daemon that sends a disk to a listening daemon; returns its name."""
    if host is None or port is None:
        raise NodeFailure("Host and port must be specified for an export")
    return _start(node, IEM_EXPORT, opts, host, port, instance, component, source)


@calls("impexp_status")
def impexp_status(node: SimulatedNode, names: Sequence[str]) -> list[dict[str, Any] | None]:
    """Returns the contents of daemons' status files; None for one without such a file."""
    return [node.world.transfers.status(node.name, name) for name in names]


@calls("impexp_abort")
def impexp_abort(node: SimulatedNode, name: str) -> None:
    """Sends a daemon a signal, which ends it."""
    node.world.transfers.abort(node.name, name)


@calls("impexp_cleanup")
def impexp_cleanup(node: SimulatedNode, name: str) -> None:
    """Ends a daemon if it runs, and removes its files."""
    node.world.transfers.cleanup(node.name, name)


@calls("x509_cert_create")
def x509_cert_create(node: SimulatedNode, validity: int) -> list[str]:
    """Makes a key and a certificate; returns its name and the certificate.

    The certificate only has the right form; no TLS library could use it.
    """
    now = node.world.now()
    serial = _serial(node)
    name = f"x509-{_stamp(now)}-{_token(node.name, serial)}"
    seconds = min(int(validity), LONGEST_VALIDITY)
    digest = hashlib.sha256(f"{node.name} {name} {seconds}".encode()).hexdigest()
    text = f"-----BEGIN CERTIFICATE-----\n{digest}\n-----END CERTIFICATE-----\n"
    node.state.facts["keys"] = {**(node.state.facts.get("keys") or {}), name: text}
    return [name, text]


@calls("x509_cert_remove")
def x509_cert_remove(node: SimulatedNode, name: str) -> None:
    """Removes a key and its certificate."""
    keys = dict(node.state.facts.get("keys") or {})
    if keys.pop(name, None) is None:
        path = f"{KEYS_DIR}/{name}"
        error = os_error(errno.ENOENT, path)
        raise NodeFailure(f"Cannot remove certificate directory '{path}': {error}")
    node.state.facts["keys"] = keys


def deliver(node: Callable[[str], SimulatedNode], source: Transfer, target: Transfer) -> None:
    """Copies what a transfer's source reads to its target; skips what no longer exists."""
    write_to(node, target, source.size, content_of(node, source))


def content_of(node: Callable[[str], SimulatedNode], source: Transfer) -> tuple[str, ...]:
    """Returns what a transfer's source reads; nothing if that no longer exists."""
    origin = node(source.node)
    if source.io == IEIO_FILE:
        export, _, dump = source.where[0].rpartition("/")
        held = origin.state.exports.get(_export_name(origin, export) or "")
        return held.dumps[dump].content if held is not None and dump in held.dumps else ()
    block = looked_up(origin, source.where[0])
    return () if block is None else block.read()


def write_to(
    node: Callable[[str], SimulatedNode], target: Transfer, size: int, content: tuple[str, ...]
) -> None:
    """Writes to a transfer's target, unless that no longer exists; ``size`` in MiB."""
    place = node(target.node)
    if target.io == IEIO_FILE:
        folder, _, dump = place.local_path(target.where[0]).rpartition("/")
        name = folder.rpartition("/")[2]
        export = place.state.exports.get(name) or StoredExport()
        made = {**export.dumps, dump: Dump(size, content)}
        place.state.exports[name] = replace(export, dumps=made)
        return
    block = looked_up(place, target.where[0])
    if block is not None:
        block.write(content)


def _start(
    node: SimulatedNode,
    mode: str,
    opts: Mapping[str, Any],
    host: str | None,
    port: int | None,
    instance: Mapping[str, Any],
    component: str,
    ends: Sequence[Any],
) -> str:
    key, authority = opts.get("key_name"), opts.get("ca_pem")
    if (key is None) != (authority is None):
        raise NodeFailure("Cluster certificate can only be used for both key and CA")
    io, where = ends
    size = _check_end(node, mode, io, where, instance)
    if key is not None and key not in (node.state.facts.get("keys") or {}):
        raise NodeFailure(f"File '{KEYS_DIR}/{key}/key' does not exist")
    magic, patience = options(opts)
    now = node.world.now()
    serial = _serial(node)
    name = f"{mode}-{component}-{_stamp(now)}-{_token(node.name, serial)}"
    transfer = Transfer(
        node=node.name,
        mode=mode,
        started=now,
        io=io,
        where=list(where),
        instance=dict(instance),
        size=size,
        magic=magic,
        port=port or 0,
        patience=patience if mode == IEM_IMPORT else EXPORT_PATIENCE,
        abroad=key is not None,
    )
    node.world.transfers.start(name, transfer)
    return name


def _check_end(
    node: SimulatedNode, mode: str, io: str, where: Sequence[Any], instance: Mapping[str, Any]
) -> int:
    """Checks one end; returns the size in MiB of what a daemon reads, 0 if it writes."""
    if io == IEIO_FILE:
        path = str(where[0])
        local = node.local_path(path)
        if path != re.sub("/+", "/", path) or not path.startswith("/"):
            raise NodeFailure(f"Path '{path}' is not normalized or absolute")
        if not local.startswith(EXPORT_DIR + "/"):
            raise NodeFailure(
                f"File '{path}' is not under exports directory '{EXPORT_DIR}': {local}"
            )
        folder = local.rpartition("/")[0].removeprefix(EXPORT_DIR + "/")
        dump = local.rpartition("/")[2]
        if folder not in node.state.exports:
            node.state.facts["exports"] = _bare(node)
            node.state.exports[folder] = StoredExport()
        held = node.state.exports[folder].dumps.get(dump)
        return 0 if held is None or mode == IEM_IMPORT else held.size
    if io == IEIO_RAW_DISK:
        return _device(node, where[0]).size
    if io == IEIO_SCRIPT:
        system = installed(node, member(instance, "os"))
        failed = failing(system.fails, mode, os_parameters(instance))
        if failed is not None:
            raise NodeFailure(f"OS {mode} script failed: {failed[1]}")
        return _device(node, where[0]).size if mode == IEM_EXPORT else 0
    raise NodeFailure(f"Invalid {mode} I/O mode {io!r}")


def _device(node: SimulatedNode, disk: DescribedDisk) -> Block:
    block = looked_up(node, disk)
    if block is None:
        raise NodeFailure(f"Block device '{described(disk)}' is not set up")
    try:
        block.open()
    except DeviceError as error:
        raise Unexpected(str(error))
    return block


def _has_exports(node: SimulatedNode) -> bool:
    """Returns whether the directory of exports exists; it stays after the last one is removed."""
    return node.hardware.exports or node.state.facts.get("exports") is not None


def _bare(node: SimulatedNode) -> list[str]:
    """Returns the names of exports without content."""
    return list(node.state.facts.get("exports") or [])


def _export_name(node: SimulatedNode, path: str) -> str | None:
    local = node.local_path(path)
    return local.removeprefix(EXPORT_DIR + "/") if local.startswith(EXPORT_DIR + "/") else None


def _serial(node: SimulatedNode) -> int:
    facts = node.world.cluster.facts
    facts["serial"] = serial = (facts.get("serial") or 0) + 1
    return int(serial)


def _token(name: str, serial: int) -> str:
    return hashlib.sha1(f"{name}/{serial}".encode(), usedforsecurity=False).hexdigest()[:8]


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d_%H_%M_%S")


def _config(node: SimulatedNode, instance: Mapping[str, Any], disks: Sequence[Any]) -> str:
    """Returns the config.ini of an export, as noded 3.0.2 writes it."""
    kinds = {disk["dev_type"] for disk in disks if disk}
    template = "diskless" if not kinds else "mixed" if len(kinds) > 1 else next(iter(kinds))
    backend = member(instance, "beparams")
    about: list[tuple[str, Any]] = [
        ("name", instance["name"]),
        ("maxmem", backend["maxmem"]),
        ("minmem", backend["minmem"]),
        ("memory", backend["maxmem"]),
        ("vcpus", backend["vcpus"]),
        ("disk_template", template),
        ("hypervisor", instance["hypervisor"]),
        ("tags", " ".join(instance.get("tags") or [])),
    ]
    nics = member(instance, "nics")
    for at, nic in enumerate(nics):
        about += [(f"nic{at}_{key}", nic.get(key)) for key in ("mac", "ip", "network", "name")]
        parameters = nic.get("nicparams") or {}
        about += [(f"nic{at}_{key}", parameters.get(key)) for key in ("link", "mode", "vlan")]
    about.append(("nic_count", len(nics)))
    there = [disk for disk in disks if disk]
    for at, disk in enumerate(disks):
        if disk:
            about += [
                (f"disk{at}_ivname", disk.get("iv_name")),
                (f"disk{at}_dump", disk.get("uuid")),
                (f"disk{at}_size", disk.get("size")),
                (f"disk{at}_name", disk.get("name")),
            ]
    about.append(("disk_count", len(there)))
    sections: list[tuple[str, list[tuple[str, Any]]]] = [
        (
            "export",
            [
                ("version", EXPORT_VERSION),
                ("timestamp", int(node.world.now())),
                ("source", instance.get("primary_node")),
                ("os", instance.get("os")),
                ("compression", "none"),
            ],
        ),
        ("instance", about),
        (
            "hypervisor",
            [
                (key, value)
                for key, value in (instance.get("hvparams") or {}).items()
                if key not in GLOBAL_PARAMETERS
            ],
        ),
        ("backend", list(backend.items())),
        ("os", list((instance.get("osparams") or {}).items())),
        ("os_private", list((instance.get("osparams_private") or {}).items())),
    ]
    for _, rows in sections:
        for _, value in rows:
            _check_written(str(value))
    return "".join(
        f"[{title}]\n" + "".join(f"{key} = {value}\n" for key, value in rows) + "\n"
        for title, rows in sections
    )


def _check_written(value: str) -> None:
    """Refuses what a parser of INI files takes for the beginning of an interpolation."""
    left = _INTERPOLATION.sub("", value.replace("%%", ""))
    if "%" in left:
        place = left.find("%")
        raise Unexpected(f"invalid interpolation syntax in {value!r} at position {place}")


_INTERPOLATION = re.compile(r"%\([^)]+\)s")

#: Hypervisor parameters that only the cluster has, so that no export contains them.
GLOBAL_PARAMETERS = frozenset(
    {"migration_bandwidth", "migration_mode", "migration_port", "xen_cmd"}
)
