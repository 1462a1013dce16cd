"""A new instance gets the disks of an export, or those that another cluster sends.

Texts and order of the calls are those of real daemon 3.0.2; where ours differs,
docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Cluster, Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.types import BACKEND, HYPERVISOR
from ganeti_masterd.constants import IEIO_FILE
from ganeti_masterd.errors import ECODE_INVAL, ECODE_NOENT, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.transferring import (
    REMOTE_CONNECT_TIMEOUT,
    DiskTransfer,
    Protection,
    TransferEnd,
    Transferring,
    system_end,
)
from ganeti_masterd.logical_units.instances.nics import COMMUNICATION_PREFIX, GENERATED
from ganeti_masterd.logical_units.steps import exports, node_objects, signing
from ganeti_masterd.logical_units.steps.exports import ExportDocument
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes.instances import InstanceCreate
from ganeti_masterd.rpc import calls

#: The kind of the log entry that tells the other cluster where its disks are awaited.
ANNOUNCEMENT = "remote-import"


class FoundExport(Struct, frozen=True, kw_only=True):
    """An export: its node (uuid), its path as nodes are told it, and what is written in it."""

    node: str
    path: str
    document: ExportDocument

    def image(self, index: int) -> str | None:
        """Returns the path of the file with one disk; None if the export has none."""
        if index >= len(self.document.disks):
            return None
        dump = self.document.disks[index].dump
        return None if dump is None else f"{self.path}/{dump}"


class SendingCluster(Struct, frozen=True, kw_only=True):
    """The cluster that an instance comes from: its certificate, and the instance's name there."""

    authority: str
    instance: str
    secret: str

    def __repr__(self) -> str:
        return f"SendingCluster(instance={self.instance!r})"


def check_arguments(op: InstanceCreate) -> None:
    """Refuses arguments that make no sense for an import, or that are missing. Pure."""
    if op.mode == "create":
        return
    if op.forthcoming or op.commit:
        raise prereq("A forthcoming instance can't be imported", ECODE_INVAL)
    if any("adopt" in disk for disk in op.disks):
        raise prereq("Disk adoption not allowed for instance import", ECODE_INVAL)
    if op.mode == "import":
        absolute = op.src_path is not None and op.src_path.startswith("/")
        if absolute and not (op.src_node or op.src_node_uuid):
            raise prereq(
                "Importing an instance from a path requires a source node option", ECODE_INVAL
            )
        if op.src_path is not None and ".." in op.src_path.split("/"):
            raise prereq(f"Invalid path of an export: '{op.src_path}'", ECODE_INVAL)
        return
    for missing, what in (
        (op.source_handshake is None, "Missing source handshake"),
        (op.source_x509_ca is None, "Missing source X509 CA"),
        (op.source_instance_name is None, "Missing source instance name"),
    ):
        if missing:
            raise prereq(what, ECODE_INVAL)


def tell_ignored(ctx: Context, op: InstanceCreate) -> None:
    """Says which arguments of an import have no effect."""
    if op.no_install:
        ctx.info("No-installation mode has no effect during import")
    if "os-image" in op.osparams:
        ctx.info("OS image has no effect during import")


# Exports


def find_export(ctx: Context, op: InstanceCreate, name: str) -> FoundExport:
    """Returns the export that an opcode means; ``name`` is the new instance's.

    Raises ``OpPrereqError``.
    """
    snapshot = ctx.snapshot()
    path = (op.src_path or name).rstrip("/")
    named = op.src_node_uuid or op.src_node
    if named is not None:
        node = snapshot.node(named).uuid
        if snapshot.nodes[node].offline:
            raise prereq(f"Can't use offline node: {snapshot.nodes[node].name}", ECODE_STATE)
    else:
        found = exports.exports_on(ctx, snapshot.nodes)
        names = sorted(
            (snapshot.nodes[uuid].name, uuid)
            for uuid, there in found.items()
            if path.split("/")[0] in there
        )
        if not names:
            raise prereq(f"No export found for relative path {path}", ECODE_INVAL)
        node = names[0][1]
    if not path.startswith("/"):
        path = exports.path_of(ctx, path)
    return read_export(ctx, node, path)


def read_export(ctx: Context, node: str, path: str) -> FoundExport:
    """Returns an export of a node (its uuid); raises ``OpPrereqError``."""
    text = ctx.call_one(node, calls.EXPORT_INFO, (path,)).or_refuse(
        f"No export or invalid export found in dir {path}", ECODE_NOENT
    )
    document = exports.read_document(text)
    for disk in document.disks:
        if disk.dump is not None and ("/" in disk.dump or disk.dump in ("", ".", "..")):
            raise prereq(
                f"No export or invalid export found in dir {path}: '{disk.dump}' is no name of a "
                "file",
                ECODE_NOENT,
            )
    return FoundExport(node=node, path=path, document=document)


def completed(
    op: InstanceCreate, document: ExportDocument, name: str, cluster: Cluster
) -> InstanceCreate:
    """Returns an opcode that has from an export what it doesn't say itself. Pure.

    ``name`` is the new instance's. Raises ``OpPrereqError``.
    """
    template: Any = op.disk_template
    if template is None and document.disk_template in cluster.enabled_disk_templates:
        template = document.disk_template
    disks: Sequence[Any] = op.disks
    if not disks:
        disks = [
            {"size": disk.size, **({} if disk.name is None else {"name": disk.name})}
            for disk in document.disks
        ]
        if not disks and template != "diskless":
            raise prereq(
                "No disk info specified and the export is missing the disk information",
                ECODE_INVAL,
            )
    hypervisor = op.hypervisor or document.hypervisor
    same = hypervisor == document.hypervisor
    given = [
        key for kind in (op.osparams, op.osparams_private, op.osparams_secret) for key in kind or ()
    ]
    return replace(
        op,
        os_type=op.os_type or document.os or None,
        force_variant=True,
        disk_template=template,
        disks=tuple(disks),
        nics=tuple(_nics(op, document, same_name=document.name == name)),
        instance_communication=op.instance_communication
        or any(map(_communicates, document.nics if not op.nics else ())),
        tags=op.tags or document.tags,
        hypervisor=hypervisor,
        hvparams={**(_known(document.hvparams, HYPERVISOR) if same else {}), **op.hvparams},
        beparams={**_backend(document, op.beparams), **op.beparams},
        osparams={**_others(document.osparams, given), **op.osparams},
        osparams_private={
            **_others(document.osparams_private, given),
            **(op.osparams_private or {}),
        },
    )


def _known(params: Mapping[str, str | None], types: Mapping[Any, str]) -> dict[str, Any]:
    """Returns parameters that an instance can have; None only where that is a value."""
    return {
        name: value
        for name, value in params.items()
        if name in types
        and name not in effective.NODE_WIDE
        and (value is not None or types[name] == "maybe-string")
    }


def _backend(document: ExportDocument, given: Params) -> dict[str, Any]:
    own = _known(document.beparams, BACKEND)
    if "memory" in given:
        own = {key: value for key, value in own.items() if key not in ("maxmem", "minmem")}
    return own


def _others(params: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """Returns OS parameters that the opcode doesn't say, whatever their visibility there."""
    return {key: value for key, value in params.items() if key not in given}


def _communicates(nic: Mapping[str, str | None]) -> bool:
    return (nic.get("name") or "").startswith(COMMUNICATION_PREFIX)


def _nics(
    op: InstanceCreate, document: ExportDocument, *, same_name: bool
) -> Iterator[Mapping[str, str | None]]:
    """Yields the NICs; an instance of the export's name keeps the addresses of its devices."""
    before = [nic for nic in document.nics if not _communicates(nic)]
    if not op.nics:
        yield from before
        return
    for index, nic in enumerate(op.nics):
        mac = nic.get("mac")
        kept = before[index].get("mac") if same_name and index < len(before) else None
        if kept is not None and (mac is None or mac.lower() in GENERATED):
            yield {**nic, "mac": kept}  # type: ignore[dict-item]
        else:
            yield nic  # type: ignore[misc]


def warn_of_sizes(ctx: Context, source: FoundExport, disks: Sequence[Disk]) -> None:
    """Warns of disks that don't match those of the export."""
    exported = source.document.disks
    for index, disk in enumerate(disks):
        if source.image(index) is None:
            ctx.warning(f"The export has no disk {index}: it stays empty")
        elif disk.size < exported[index].size:
            ctx.warning(
                f"Disk {index} ({disk.size} MiB) is smaller than that of the export "
                f"({exported[index].size} MiB)"
            )
    for index in range(len(disks), len(exported)):
        ctx.warning(f"Disk {index} of the export is not imported")


def import_disks(
    ctx: Context,
    instance: Instance,
    disks: Sequence[Disk],
    source: FoundExport,
    *,
    compress: str,
    osparams: Params,
) -> None:
    """Fills the disks of a new instance from an export; raises ``OpExecError`` if one fails."""
    ctx.feedback("* running the instance OS import scripts...")
    transfers = [
        DiskTransfer(
            label=f"disk/{index}",
            index=index,
            source=TransferEnd(source.node, IEIO_FILE, [image]),
            target=system_end(ctx, instance, disk, index),
        )
        for index, disk in enumerate(disks)
        if (image := source.image(index)) is not None
    ]
    with UndoStack(ctx) as undo:
        transferring = Transferring(ctx, undo, instance, compress=compress, osparams=osparams)
        good = transferring.run(transfers)
        _require(instance, transfers, good)
        undo.keep()


def run_rename_script(ctx: Context, instance: Instance, before: str, *, debug: int) -> None:
    """Tells the operating system that the instance had another name; a failure is a warning."""
    if not instance.os:
        return
    ctx.feedback(f"Running rename script for {instance.name}")
    primary = instance.primary_node
    sent = node_objects.instance(ctx.snapshot(), instance, primary)
    answer = ctx.call_one(primary, calls.INSTANCE_RUN_RENAME, (sent, before, debug))
    if answer.failed:
        ctx.warning(
            f"Failed to run rename script for {instance.name} on node {answer.node}: {answer.error}"
        )


# Another cluster


def sending_cluster(ctx: Context, op: InstanceCreate) -> SendingCluster:
    """Returns the cluster that an instance comes from; raises ``OpPrereqError`` for a stranger."""
    secret = signing.domain_secret(ctx.root)
    try:
        signing.check_handshake(secret, op.source_handshake or ())
    except signing.Untrusted as error:
        raise prereq(f"Invalid handshake: {error}", ECODE_INVAL)
    try:
        authority = signing.certificate_of(secret, op.source_x509_ca or "")
    except signing.Untrusted as error:
        raise prereq(f"Invalid source X509 CA ({error})", ECODE_INVAL)
    return SendingCluster(
        authority=authority, instance=op.source_instance_name or "", secret=secret
    )


def receive_disks(
    ctx: Context,
    instance: Instance,
    disks: Sequence[Disk],
    source: SendingCluster,
    *,
    compress: str,
    shutdown_timeout: int,
    osparams: Params,
) -> None:
    """Fills the disks of a new instance with what another cluster sends.

    That cluster learns from the job's log where each is awaited. ``shutdown_timeout`` are the
    seconds that it gives the instance to stop there, before it sends anything. Raises
    ``OpExecError`` if a disk doesn't arrive.
    """
    ctx.feedback("* preparing remote import...")
    primary = instance.primary_node
    node = ctx.snapshot().nodes[primary]
    with UndoStack(ctx) as undo:
        with ctx.shielded():
            key, certificate = ctx.call_one(
                primary, calls.X509_CERT_CREATE, (signing.VALIDITY,)
            ).or_fail(f"Can't create X509 key and certificate on {node.name}")
            undo.push(
                f"remove the key {key} from node {node.name}",
                lambda: ctx.call_one(primary, calls.X509_CERT_REMOVE, (key,)).or_fail(
                    "the node refuses"
                ),
            )

        def announce(listening: dict[int, tuple[int, str]]) -> None:
            salt = signing.new_salt()
            places = [
                signing.signed_place(source.secret, index, node.primary_ip, *listening[index], salt)
                for index in sorted(listening)
            ]
            value = {
                "disks": places,
                "x509_ca": signing.signed_certificate(source.secret, certificate),
            }
            ctx.feedback("", kind=ANNOUNCEMENT, value=value)

        transferring = Transferring(
            ctx,
            undo,
            instance,
            compress=compress,
            protection=Protection(key, source.authority),
            connect_in=REMOTE_CONNECT_TIMEOUT + shutdown_timeout,
            osparams=osparams,
        )
        transfers = [
            DiskTransfer(
                label=f"Disk {index}", index=index, target=system_end(ctx, instance, disk, index)
            )
            for index, disk in enumerate(disks)
        ]
        good = transferring.run(transfers, listening=announce)
        _require(instance, transfers, good)
        undo.run()


def _require(instance: Instance, transfers: Sequence[DiskTransfer], good: Sequence[bool]) -> None:
    failed = [
        str(transfer.index) for transfer, well in zip(transfers, good, strict=True) if not well
    ]
    if failed:
        raise OpExecError(
            f"Instance {instance.name} is not made: its disk(s) {', '.join(failed)} could not be "
            "imported"
        )
