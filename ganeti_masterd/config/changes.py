"""Changes to the configuration, and how a transaction applies them. Pure.

An update names an object and gives a function from its current value to the
new one, so that it is valid whatever else changed in between. Serial numbers are
increased as in the real daemon 3.0.2 (seen in its files and answers):

- updating an object changes its own serial and time, if it has them;
- adding, removing or renaming an object changes the cluster's serial;
  updating a node changes the cluster's serial and time (filter rules: neither);
- each transaction changes the document's serial and time;
- a document that a tool has changed keeps the serials of its objects as they were sent.

Two things aren't Ganeti's: an earlier configuration can be restored, and another master raises the
document's serial by :data:`SERIAL_STEP`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import ConfigObject, defaults_of
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    ConfigurationError,
    GenericError,
    OpExecError,
    ProgrammerError,
)
from ganeti_masterd.journal.rows import ConfigRow

#: How much the document's serial grows when another node becomes the master. The old master may
#: have made changes that no other node got; none of their serials must be used again.
SERIAL_STEP = 1000

#: Keys that Ganeti's tools leave out, as they are derived from other objects.
_DERIVED = frozenset({("nodegroups", "members")})


class Update(Struct, frozen=True):
    """Replaces an object, or the cluster, by a new value.

    ``function`` is called with the current object and returns another with the same
    uuid; if it returns the very same object, nothing changes. ``serial`` is the serial
    that the object must still have, None for any.
    """

    uuid: str
    function: Callable[[Any], ConfigObject]
    serial: int | None = None


class Add(Struct, frozen=True):
    """Adds an object to a section of the file; its serial starts at 1, its times are now."""

    section: str
    object: ConfigObject


class Remove(Struct, frozen=True):
    """Removes an object from a section of the file; ``serial`` as for :class:`Update`."""

    section: str
    uuid: str
    serial: int | None = None


class Restore(Struct, frozen=True):
    """Puts the objects of an earlier configuration in the place of those that are there now.

    Serials go on: an object that is there has its next one, and one that comes back has a higher
    one than it ever had. The document's header stays.
    """

    earlier: Snapshot


class Rewrite(Struct, frozen=True):
    """Puts a document that was changed elsewhere in the place of the one that it was read from.

    Serials and times of its objects stay as they are sent. Objects that say the same as before keep
    their bytes. ``document`` must have the serial and the version of the present one, be of the
    same cluster, and have the same objects by the same names. No object may lack what it said (see
    :func:`completed`) or have an earlier serial.
    """

    document: Snapshot


Change = Update | Add | Remove | Restore | Rewrite


class Draft(NamedTuple):
    """The result of changes: the new configuration, and the rows that make it durable."""

    after: Snapshot
    rows: list[ConfigRow]


def draft(before: Snapshot, changes: Sequence[Change], now: float) -> Draft:
    """Applies all of ``changes``, in order, to ``before`` at the time ``now``.

    All or nothing: raises ``ConfigurationError`` if an object is gone, its serial
    has changed, or a uuid or name is taken. If an update's function raises, one of
    Ganeti's errors is passed on, and any other becomes an ``OpExecError``.
    """
    work = _Work(before, now)
    for change in changes:
        if isinstance(change, Update):
            work.update(change)
        elif isinstance(change, Add):
            work.add(change)
        elif isinstance(change, Restore):
            work.restore(change.earlier)
        elif isinstance(change, Rewrite):
            work.rewrite(change.document)
        else:
            work.remove(change)
    return work.finish()


class _Work:
    """One transaction in the making."""

    def __init__(self, before: Snapshot, now: float) -> None:
        self.before = before
        self.after = before
        self.now = now
        self.touched: dict[tuple[str, str], None] = {}
        self.cluster_serial = False
        self.cluster_time = False

    def update(self, change: Update) -> None:
        """Runs the function of one change on the object's current value."""
        found = self.after.locate(change.uuid)
        if found is None:
            raise ConfigurationError(f"the object '{change.uuid}' is gone from the configuration")
        section, current = found
        what = describe(section, current)
        self._check_serial(section, change.uuid, change.serial, what)
        try:
            changed = change.function(current)
        except GenericError:
            raise
        except Exception as error:
            raise OpExecError(f"changing {what} failed: {type(error).__name__}: {error}") from error
        if changed is current:
            return
        if type(changed) is not type(current) or _uuid(changed) != change.uuid:
            raise ProgrammerError(f"the change of {what} returned another object: {changed!r}")
        if section != "cluster" and _name(changed) != _name(current):
            self._check_name(section, changed)
            self.cluster_serial = True
        if section == "cluster" or SECTIONS[section].counts_for_cluster:
            self.cluster_serial = self.cluster_time = True
        self._put(section, changed)

    def add(self, change: Add) -> None:
        """Adds one object."""
        expected = SECTIONS.get(change.section)
        added = change.object
        if expected is None or type(added) is not expected.objects:
            raise ProgrammerError(
                f"a {type(added).__name__} does not belong in the section '{change.section}'"
            )
        what = describe(change.section, added)
        if self.after.locate(_uuid(added)) is not None:
            raise ConfigurationError(f"{what}: the uuid '{_uuid(added)}' is taken")
        self._check_name(change.section, added)
        if "serial_no" in added.__struct_fields__:
            added = replace(added, serial_no=1, ctime=self.now, mtime=self.now)
        self._put(change.section, added)
        self._moved(change.section)

    def remove(self, change: Remove) -> None:
        """Removes one object."""
        current = self.after.section(change.section).get(change.uuid)
        if current is None:
            raise ConfigurationError(
                f"the object '{change.uuid}' is gone from the section '{change.section}'"
            )
        what = describe(change.section, current)
        self._check_serial(change.section, change.uuid, change.serial, what)
        self.after = self.after.without(change.section, change.uuid)
        self.touched[change.section, change.uuid] = None
        self._moved(change.section)

    def restore(self, earlier: Snapshot) -> None:
        """Takes over all objects of an earlier configuration."""
        # Since then no object can have been changed more often than the document.
        passed = max(0, self.after.header.serial_no - earlier.header.serial_no)
        sections: dict[str, Section[Any]] = {}
        for key in SECTIONS:
            current, wanted = self.after.section(key), earlier.section(key)
            objects = {}
            for uuid, obj in wanted.items():
                known = current.get(uuid)
                objects[uuid] = known if _same(known, obj) else self._put_back(known, obj, passed)
                if objects[uuid] is not known:
                    self.touched[key, uuid] = None
            gone = [uuid for uuid in current if uuid not in wanted]
            self.touched.update({(key, uuid): None for uuid in gone})
            sections[key] = Section(objects) if gone or objects != dict(current) else current
        cluster = self.after.cluster
        if not _same(cluster, earlier.cluster):
            self.touched["cluster", cluster.uuid] = None
            cluster = replace(earlier.cluster, ctime=cluster.ctime)
        if self.touched:
            self.after = Snapshot(self.after.header, cluster, sections, self.after.order)
            self.cluster_serial = self.cluster_time = True

    def _put_back(self, known: Any, obj: Any, passed: int) -> Any:
        if "serial_no" not in obj.__struct_fields__:
            return obj
        serial = obj.serial_no + passed if known is None else known.serial_no
        return replace(obj, serial_no=serial + 1, mtime=self.now)

    def rewrite(self, document: Snapshot) -> None:
        """Takes over all objects of a document that was changed elsewhere."""
        current = self.after
        _check_descent(current, document)
        sections: dict[str, Section[Any]] = {}
        for key in SECTIONS:
            known, sent = current.section(key), document.section(key)
            _check_members(key, known, sent)
            whole = {uuid: completed(key, known[uuid], obj) for uuid, obj in sent.items()}
            changed = {uuid: obj for uuid, obj in whole.items() if _differs(known[uuid], obj)}
            for uuid, obj in changed.items():
                _check_successor(key, known[uuid], obj)
            self.touched.update({(key, uuid): None for uuid in changed})
            sections[key] = Section({**known, **changed}) if changed else known
        cluster = current.cluster
        written = completed("cluster", cluster, document.cluster)
        if _differs(cluster, written):
            _check_successor("cluster", cluster, written)
            cluster = written
            self.touched["cluster", cluster.uuid] = None
        self.after = Snapshot(current.header, cluster, sections, current.order)

    def finish(self) -> Draft:
        """Increases the serials of cluster and document; returns the result with its rows."""
        if not self.touched:
            return Draft(self.before, [])
        if self.cluster_serial:
            cluster = replace(
                self.after.cluster,
                serial_no=self.before.cluster.serial_no + 1,
                mtime=self.now if self.cluster_time else self.before.cluster.mtime,
            )
            self.after = self.after.with_object("cluster", cluster)
        moved = self.after.cluster.master_node != self.before.cluster.master_node
        self.after = self.after.with_serial(self.now, SERIAL_STEP if moved else 1)
        rows = [
            ConfigRow(section, uuid, None if current is None else current.encoded)
            for section, uuid in self.touched
            if section != "cluster"
            for current in (self.after.section(section).get(uuid),)
        ]
        if self.after.cluster is not self.before.cluster:
            rows.append(ConfigRow("cluster", "", self.after.cluster.encoded))
        rows.append(ConfigRow("", "", self.after.header.encoded))
        return Draft(self.after, rows)

    def _put(self, section: str, obj: ConfigObject) -> None:
        """Puts an object into the configuration; increases its serial unless it is new."""
        original = None if section == "cluster" else self.before.section(section).get(_uuid(obj))
        if original is not None and hasattr(original, "serial_no"):
            obj = replace(obj, serial_no=original.serial_no + 1, mtime=self.now)
        self.after = self.after.with_object(section, obj)
        self.touched[section, _uuid(obj)] = None

    def _moved(self, section: str) -> None:
        if section != "filters":
            self.cluster_serial = True

    def _check_serial(self, section: str, uuid: str, serial: int | None, what: str) -> None:
        """Compares with the serial before the transaction, whose own changes don't count."""
        if serial is None:
            return
        if section == "cluster":
            found: int | None = self.before.cluster.serial_no
        else:
            found = getattr(self.before.section(section).get(uuid), "serial_no", None)
        if found != serial:
            raise ConfigurationError(
                f"{what} was changed in the meantime (its serial is {found}, not {serial})"
            )

    def _check_name(self, section: str, obj: ConfigObject) -> None:
        name = _name(obj)
        if name is None or not SECTIONS[section].unique_names:
            return
        other = self.after.section(section).named(name)
        if other is not None and other.uuid != _uuid(obj):
            raise ConfigurationError(f"{describe(section, obj)}: the name is taken")


def completed(section: str, known: ConfigObject, sent: ConfigObject) -> Any:
    """Returns an object that was sent, with the keys of the present one that must be in a file.

    Ganeti's tools leave out what they derive themselves. Raises ``ConfigurationError`` if what the
    object lacks says anything; only keys that may be absent from any file can be dropped.
    """
    if known == sent:
        return known
    left, defaults = sent.plain(), defaults_of(type(known))
    lacking = [
        key
        for key, value in known.plain().items()
        if key not in left and value is not None and defaults.get(key, value) is not None
    ]
    for key in lacking:
        told = key not in defaults or getattr(known, key) != defaults[key]
        if told and (section, key) not in _DERIVED:
            raise ConfigurationError(f"{describe(section, known)} lacks the key '{key}'")
    if not lacking:
        return sent
    return replace(sent, shape=(), **{key: getattr(known, key) for key in lacking})


def _check_successor(section: str, known: ConfigObject, sent: ConfigObject) -> None:
    """Raises ``ConfigurationError`` if the serial of an object is below that of the present one.

    A serial that comes again would let somebody who read the object long ago write it back.
    """
    present, serial = (getattr(obj, "serial_no", 0) for obj in (known, sent))
    if serial < present:
        raise ConfigurationError(
            f"the document has the serial {serial} of {describe(section, known)}, which has"
            f" {present}"
        )


def _check_descent(current: Snapshot, document: Snapshot) -> None:
    """Raises ``ConfigurationError`` unless a document was read from the present one."""
    if document.cluster.uuid != current.cluster.uuid:
        raise ConfigurationError(
            f"the document is of cluster '{document.cluster.uuid}', this one is"
            f" '{current.cluster.uuid}'"
        )
    for what, sent, present in (
        ("version", document.header.version, current.header.version),
        ("serial", document.header.serial_no, current.header.serial_no),
    ):
        if sent != present:
            raise ConfigurationError(
                f"the configuration has the {what} {present}, the document that was sent"
                f" has {sent}: it was not read from the present configuration"
            )


def _check_members(key: str, known: Section[Any], sent: Section[Any]) -> None:
    """Raises ``ConfigurationError`` unless a section has the same objects by the same names."""
    for uuid in known:
        if uuid not in sent:
            raise ConfigurationError(
                f"the document lacks {describe(key, known[uuid])}: only a job removes objects"
            )
    for uuid, obj in sent.items():
        if uuid not in known:
            raise ConfigurationError(
                f"the document has {describe(key, obj)}, which is unknown: only a job adds objects"
            )
        if _name(obj) != _name(known[uuid]):
            raise ConfigurationError(
                f"the document calls {describe(key, known[uuid])} '{_name(obj)}': only a job"
                " renames objects"
            )


def _differs(known: ConfigObject, sent: ConfigObject) -> bool:
    """Whether two objects say something different, whatever the order of their keys."""
    return known != sent and known.plain() != sent.plain()


def _same(one: Any, other: Any) -> bool:
    """Whether two objects differ in their serials and times at most."""
    if one is None or "serial_no" not in one.__struct_fields__:
        return bool(one == other)
    return bool(one == replace(other, serial_no=one.serial_no, ctime=one.ctime, mtime=one.mtime))


def describe(section: str, obj: ConfigObject) -> str:
    """Returns what people call an object: its kind, and its name or uuid."""
    noun = SECTIONS[section].noun if section in SECTIONS else section
    return f"{noun} '{_name(obj) or _uuid(obj)}'"


def _name(obj: ConfigObject) -> str | None:
    return getattr(obj, "name", None)


def _uuid(obj: ConfigObject) -> str:
    uuid: str = obj.uuid  # type: ignore[attr-defined]
    return uuid
