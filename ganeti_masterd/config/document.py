"""config.data: from bytes to a :class:`Snapshot` and back.

An unchanged object is written with the bytes that were read, and earlier output is cached
in pages (:mod:`ganeti_masterd.config.pages`), so a big configuration is written mostly by
joining bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec
from msgspec import DecodeError, Raw, ValidationError

from ganeti_masterd.config.base import ConfigObject, load
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.pages import USUAL_ORDER, Pages
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import DocumentHeader, Snapshot
from ganeti_masterd.constants import CONFIG_VERSION, CONFIG_VERSION_NEXT
from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import ConfigurationError, ConfigVersionMismatch
from ganeti_masterd.journal.rows import ConfigRow

#: Versions that the daemon can work with: 3.0 and 3.1 differ in two hypervisor
#: parameters only.
VERSIONS = (CONFIG_VERSION, CONFIG_VERSION_NEXT)


def version_text(version: int) -> str:
    """Returns a configuration version as major.minor.revision: 3000000 is 3.0.0."""
    return f"{version // 1000000}.{version // 10000 % 100}.{version % 10000}"


class UnknownVersion(ConfigVersionMismatch):
    """The configuration is of a version that the daemon can't work with.

    args: expected, found (numbers, as the real error has them).
    """

    def __str__(self) -> str:
        expected, found = self.args
        return (
            f"the configuration has version {version_text(found)}, this daemon works with"
            f" {' and '.join(map(version_text, VERSIONS))} (the nearest is"
            f" {version_text(expected)}): upgrade the cluster's configuration first"
            " (gnt-cluster upgrade, or cfgupgrade), or run the daemon that belongs to it"
        )


def parse(content: bytes, source: str = "config.data") -> Snapshot:
    """Returns the configuration that a file holds; ``source`` is what errors call it.

    Raises :class:`UnknownVersion`, or ``ConfigurationError`` naming the file,
    the section, the object, the key and the fault.
    """
    document = _split(content, source)
    header = _header(document, source)
    if "cluster" not in document:
        raise ConfigurationError(f"{source}: the key 'cluster' is missing")
    cluster = _object(Cluster, bytes(document["cluster"]), f"{source}: cluster")
    sections: dict[str, Section[Any]] = {}
    for key, kind in SECTIONS.items():
        if key in document:
            where = f"{source}: {key}"
            sections[key] = Section(
                {
                    uuid: _object(kind.objects, bytes(raw), where, uuid)
                    for uuid, raw in _split(document[key], where).items()
                }
            )
    keys = tuple(document)
    usual = (*USUAL_ORDER, *header.rest)
    return Snapshot(header, cluster, sections, () if keys == usual else keys)


def parse_cluster(content: bytes, source: str) -> Cluster:
    """Returns a cluster object; raises ``ConfigurationError`` like :func:`parse`."""
    cluster: Cluster = _object(Cluster, content, source)
    return cluster


def encode(snapshot: Snapshot) -> bytes:
    """Returns the whole of config.data."""
    return Pages().content(snapshot)


class ConfigImage:
    """The content of config.data for a snapshot, encoded on demand and in any thread.

    ``pages`` caches parts of earlier images, so that this one is made cheaply.
    """

    __slots__ = ("_pages", "_snapshot")

    def __init__(self, snapshot: Snapshot, pages: Pages | None = None) -> None:
        self._snapshot = snapshot
        self._pages = Pages() if pages is None else pages

    @property
    def serial_no(self) -> int:
        """The configuration's serial number."""
        return self._snapshot.header.serial_no

    def encode(self) -> bytes:
        """Returns the content of the file."""
        return self._pages.content(self._snapshot)

    def size(self) -> int:
        """Returns how many bytes the content has."""
        return self._pages.size(self._snapshot)

    def compressed(self) -> str:
        """Returns the content as a zlib stream in base64."""
        return self._pages.compressed(self._snapshot)


def apply_rows(content: bytes, rows: Iterable[ConfigRow]) -> bytes:
    """Returns config.data with the journal's rows applied (see :func:`merge_rows`).

    Raises ``ConfigurationError`` as that does, and if the result can't be loaded.
    """
    result = merge_rows(content, rows)
    parse(result, "config.data with the journal's changes")
    return result


def merge_rows(content: bytes, rows: Iterable[ConfigRow]) -> bytes:
    """Returns a document with rows put into it; the last row of an object wins.

    Objects that no row names keep their bytes. Applying the same rows to the
    result again changes nothing. Raises ``ConfigurationError`` if ``content``
    isn't an object of objects or a row's section is unknown; it doesn't look into the objects.
    """
    source = "config.data"
    document: dict[str, bytes] = {k: bytes(v) for k, v in _split(content, source).items()}
    sections: dict[str, dict[str, bytes]] = {}
    for row in rows:
        if row.section == "" and row.body is not None:
            document.update({k: bytes(v) for k, v in _split(row.body, "the journal").items()})
        elif row.section == "cluster" and row.body is not None:
            document["cluster"] = row.body
        elif row.section in SECTIONS:
            if row.section not in sections:
                raw = document.get(row.section, b"{}")
                where = f"{source}: {row.section}"
                sections[row.section] = {k: bytes(v) for k, v in _split(raw, where).items()}
            section = sections[row.section]
            if row.body is None:
                section.pop(row.uuid, None)
            else:
                section[row.uuid] = row.body
        else:
            raise ConfigurationError(f"the journal has a row for the section '{row.section}'")
    for key, section in sections.items():
        document[key] = _joined({uuid: section[uuid] for uuid in sorted(section)})
    return _joined(document)


def _joined(parts: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(msgspec.json.encode(k) + b":" + v for k, v in parts.items()) + b"}"


def _split(content: bytes | Raw, where: str) -> dict[str, Raw]:
    try:
        return decode_json(content, dict[str, Raw])
    except DecodeError as error:
        _refuse(error, where)


def _header(document: dict[str, Raw], source: str) -> DocumentHeader:
    parts = {
        key: bytes(raw) for key, raw in document.items() if key != "cluster" and key not in SECTIONS
    }
    plain: dict[str, Any] = {}
    for key, raw in parts.items():
        try:
            plain[key] = decode_json(raw, object)
        except DecodeError as error:
            raise ConfigurationError(f"{source}: {key}: {error}")
    version = plain.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version not in VERSIONS:
        nearest = CONFIG_VERSION if version < CONFIG_VERSION_NEXT else CONFIG_VERSION_NEXT
        raise UnknownVersion(nearest, version)
    try:
        return load(DocumentHeader, plain, _joined(parts))
    except ValidationError as error:
        _refuse(error, source)


def _object(cls: type[Any], raw: bytes, where: str, uuid: str | None = None) -> Any:
    if uuid is not None:
        where = f"{where}/{uuid}"
    try:
        obj: ConfigObject = load(cls, decode_json(raw, dict[str, Any]), raw)
    except DecodeError as error:
        _refuse(error, where)
    if uuid is not None and obj.uuid != uuid:  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"{where}: uuid: the object says '{obj.uuid}'"  # type: ignore[attr-defined]
        )
    return obj


def _refuse(error: Exception, where: str) -> NoReturn:
    """Raises msgspec's error as a ``ConfigurationError`` that says where in the file to look."""
    fault, _, path = str(error).partition(" - at `")
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    raise ConfigurationError(": ".join(part for part in (where, path, fault) if part)) from None
