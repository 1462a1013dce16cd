"""Exports of instances on their nodes: where they are, and what is written in them.

An export is a directory below :data:`EXPORT_DIR` with a file for each disk and ``config.ini``.
Until it is complete its name ends with :data:`UNFINISHED`.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.base import Params
from ganeti_masterd.constants import EXPORT_VERSION
from ganeti_masterd.errors import ECODE_ENVIRON, OpExecError, OpPrereqError, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult

EXPORT_DIR = "/var/lib/ganeti/export"

#: What the name of an export ends with that isn't complete.
UNFINISHED = ".new"

#: What stands for no value in ``config.ini``.
_NOTHING = "none"

#: What a node says that never had an export.
_NO_DIRECTORY = "No exports directory"


class ExportedDisk(Struct, frozen=True):
    """A disk of an export: MiB, its name, and the file that holds it (None: there is none)."""

    size: int
    name: str | None
    dump: str | None


class ExportDocument(Struct, frozen=True, kw_only=True):
    """What ``config.ini`` says of an instance; parameters are text, or None for no value.

    ``nics`` have the keys that an opcode may give a NIC.
    """

    name: str
    os: str
    disk_template: str | None
    hypervisor: str | None
    tags: tuple[str, ...]
    nics: tuple[dict[str, str | None], ...]
    disks: tuple[ExportedDisk, ...]
    hvparams: dict[str, str | None]
    beparams: dict[str, str | None]
    osparams: dict[str, str]
    osparams_private: dict[str, str]

    def __repr__(self) -> str:
        return f"ExportDocument(name={self.name!r})"


def read_document(text: str) -> ExportDocument:
    """Returns what a ``config.ini`` says. Pure. Raises ``OpPrereqError``."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
        version = parser.getint("export", "version")
        if version != EXPORT_VERSION:
            raise prereq(f"Wrong export version {version} (wanted {EXPORT_VERSION})", ECODE_ENVIRON)
        about = {key: _value(value) for key, value in parser.items("instance")}
        return ExportDocument(
            name=about["name"] or "",
            os=_value(parser.get("export", "os")) or "",
            disk_template=about.get("disk_template"),
            hypervisor=about.get("hypervisor"),
            tags=tuple((about.get("tags") or "").split()),
            nics=tuple(_nics(about)),
            disks=tuple(_disks(about)),
            hvparams=_section(parser, "hypervisor"),
            beparams=_backend(parser, about),
            osparams=_texts(parser, "os"),
            osparams_private=_texts(parser, "os_private"),
        )
    except (configparser.Error, ValueError, KeyError) as error:
        raise prereq(f"The export's config.ini can't be read: {error}", ECODE_ENVIRON)


def _value(text: str) -> str | None:
    """Returns a value; None for what stands for that.

    3.0.2 writes and reads a percent sign as two.
    """
    return None if text.lower() == _NOTHING else text.replace("%%", "%")


def _section(parser: configparser.RawConfigParser, name: str) -> dict[str, str | None]:
    if not parser.has_section(name):
        return {}
    return {key: _value(value) for key, value in parser.items(name)}


def _texts(parser: configparser.RawConfigParser, name: str) -> dict[str, str]:
    # "None" is a text like others here: no parameter of an operating system lacks a value.
    if not parser.has_section(name):
        return {}
    return {key: value.replace("%%", "%") for key, value in parser.items(name)}


def _backend(
    parser: configparser.RawConfigParser, about: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Returns the backend parameters; exports of old have them among those of the instance."""
    found = _section(parser, "backend")
    if not parser.has_section("backend"):
        known = ("maxmem", "minmem", "vcpus", "memory", "auto_balance", "always_failover")
        found = {key: about[key] for key in (*known, "spindle_use") if key in about}
    memory = found.pop("memory", None)
    if memory is not None:
        found.setdefault("maxmem", memory)
        found.setdefault("minmem", memory)
    return found


def _nics(about: Mapping[str, str | None]) -> Iterable[dict[str, str | None]]:
    index = 0
    while f"nic{index}_mac" in about:

        def of(key: str, place: int = index) -> str | None:
            return about.get(f"nic{place}_{key}")

        keys = ("network",) if of("network") else ("mode", "link", "vlan")
        nic = {key: of(key) for key in ("mac", "ip", "name", *keys)}
        yield {key: value for key, value in nic.items() if value is not None}
        index += 1


def _disks(about: Mapping[str, str | None]) -> Iterable[ExportedDisk]:
    index = 0
    while (size := about.get(f"disk{index}_size")) is not None:
        yield ExportedDisk(
            int(size), about.get(f"disk{index}_name"), about.get(f"disk{index}_dump")
        )
        index += 1


def writable(sent: dict[str, Any], *, private: bool) -> dict[str, Any]:
    """Returns an instance, as sent to a node, in the form in which it goes into ``config.ini``.

    A percent sign is doubled: node daemons refuse a single one. Private parameters of the
    operating system are left out unless they are wanted. Pure.
    """
    kept = sent.get("osparams_private", {}) if private else {}
    nics = [
        {**_doubled(nic), "nicparams": _doubled(nic.get("nicparams", {}))}
        for nic in sent.get("nics", ())
    ]
    return {
        **sent,
        "hvparams": _doubled(sent.get("hvparams", {})),
        "osparams": _doubled(sent.get("osparams", {})),
        "osparams_private": _doubled(kept),
        "nics": nics,
    }


def writable_disk(sent: dict[str, Any]) -> dict[str, Any]:
    """Returns a disk, as sent to a node, in the form in which its name can be written. Pure."""
    return {**sent, "name": sent["name"].replace("%", "%%")} if sent.get("name") else sent


def _doubled(params: Params) -> dict[str, Any]:
    return {
        key: value.replace("%", "%%") if isinstance(value, str) else value
        for key, value in params.items()
    }


# Where they are


def has_none(answer: NodeResult[Any]) -> bool:
    """Whether a node failed to list its exports because it never had one."""
    return answer.failed and _NO_DIRECTORY in str(answer.error)


def exports_on(
    ctx: Context, nodes: Iterable[str], *, quiet: bool = False
) -> dict[str, frozenset[str]]:
    """Asks nodes (uuids) for their exports; returns the names by node.

    A node that can't say is left out, with a warning unless ``quiet``; one that is marked
    offline without.
    """
    known = ctx.snapshot().nodes
    asked = [node for node in nodes if not known[node].offline]
    found: dict[str, frozenset[str]] = {}
    for node, answer in ctx.call(asked, calls.EXPORT_LIST).items():
        if has_none(answer):
            found[node] = frozenset()
        elif answer.failed and quiet:
            continue
        elif answer.failed:
            ctx.warning(f"Failed to query node {answer.node} (continuing): {answer.error}")
        else:
            found[node] = frozenset(answer.payload)
    return found


def names_on(ctx: Context, node: str) -> frozenset[str]:
    """Returns the names of the exports on one node; raises ``OpExecError`` if it can't say."""
    answer = ctx.call_one(node, calls.EXPORT_LIST)
    if has_none(answer):
        return frozenset()
    return frozenset(answer.or_fail(f"Can't list the exports on node {answer.node}"))


def remove_export(ctx: Context, node: str, name: str) -> None:
    """Removes an export from a node, complete or not, if it is there; raises ``OpExecError``."""
    if name in names_on(ctx, node):
        answer = ctx.call_one(node, calls.EXPORT_REMOVE, (name,))
        answer.or_fail(f"Could not remove export {name} from node {answer.node}")


def remove_unfinished(ctx: Context, node: str, name: str) -> None:
    """Removes what an export of an instance has left on a node that broke off.

    Raises ``OpExecError``, also for the complete export of an instance that is called so.
    """
    unfinished = name + UNFINISHED
    if unfinished not in names_on(ctx, node):
        return
    if is_anothers(ctx, node, unfinished):
        where = ctx.snapshot().nodes[node].name
        raise OpExecError(
            f"Export {unfinished} on node {where} is that of instance {unfinished}, and in the way"
        )
    remove_export(ctx, node, unfinished)


def is_anothers(ctx: Context, node: str, unfinished: str) -> bool:
    """Whether what looks unfinished is the complete export of an instance with that very name."""
    answer = ctx.call_one(node, calls.EXPORT_INFO, (path_of(ctx, unfinished),))
    if answer.failed:
        return False
    try:
        return read_document(answer.payload).name == unfinished
    except OpPrereqError:
        return False


def path_of(ctx: Context, *parts: str) -> str:
    """Returns the path of an export, or of a file of one, as nodes are told it."""
    return "/".join((ctx.root.rstrip("/") + EXPORT_DIR, *parts))
