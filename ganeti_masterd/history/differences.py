"""What differs between two configurations, in words. Pure.

Values that must stay private are never shown: :data:`SECRET` says which keys hold them, and DRBD's
shared secret is one by its place. Serial numbers and times are left out, as each change moves them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.objects import hide_secret
from ganeti_masterd.decoding import decode_json
from ganeti_masterd.history.states import CLUSTER, Place

#: Keys whose values, and all that is in them, are hidden.
SECRET = re.compile(r"private|secret|passw|token|credential", re.IGNORECASE)
HIDDEN = "<redacted>"

#: The keys that every change moves.
MOVING = frozenset({"serial_no", "ctime", "mtime"})

#: What keys are called in front of what is in them, as the query fields are.
_SHORT = {"beparams": "be", "hvparams": "hv", "ndparams": "nd", "osparams": "os", "nicparams": ""}

#: What one thing of a list is called.
_ONE_OF = {"tags": "tag", "disks": "disk"}

#: How long a value may be in words.
_LONGEST = 80

_UNSET: Any = object()

#: A state; an object that isn't there may have None.
AnyState = Mapping[Place, bytes | None]

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ConfigDifference(Struct, frozen=True):
    """One difference: of which object, and what.

    ``what`` is "added", "removed" or "changed"; ``key``, ``old`` and ``new`` say what was
    changed, and are empty for whole objects.
    """

    kind: str
    name: str
    what: str
    key: str = ""
    old: str = ""
    new: str = ""

    @property
    def text(self) -> str:
        """The difference as a line, such as ``instance web1: be/maxmem 2048 -> 4096``."""
        whose = f"{self.kind} {self.name}"
        if not self.key:
            return f"{whose} {self.what}"
        if self.what != "changed":
            return f"{whose}: {self.key} {self.new or self.old} {self.what}".replace("  ", " ")
        return f"{whose}: {self.key} {self.old} -> {self.new}"


def differences(
    before: AnyState, after: AnyState, places: Iterable[Place] | None = None
) -> list[ConfigDifference]:
    """Returns what differs; only of the objects at ``places``, if given.

    In the order of the file's sections: the cluster, nodes, groups, instances with their NICs,
    networks, disks, filter rules.
    """
    if places is None:
        places = [place for place, body in after.items() if before.get(place) != body]
        places += [place for place in before if place not in after]
    chosen = set(places)
    order = ["cluster", *SECTIONS]
    names = _Names(before, after)
    found: list[ConfigDifference] = []
    for section, uuid in sorted(
        (place for place in chosen if place[0] in order),
        key=lambda place: (order.index(place[0]), place[1]),
    ):
        found += _Comparison(section, uuid, names).lines()
    return found


def masked(value: Any, key: str = "") -> Any:
    """Returns JSON values without what must stay private."""
    if SECRET.search(key):
        return _hidden(value)
    if isinstance(value, dict):
        drbd = value.get("dev_type") == "drbd"
        return {
            name: _masked_id(item) if drbd and name == "logical_id" else masked(item, name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _hidden(item) for name, item in value.items()}
    return HIDDEN


def _masked_id(value: Any) -> Any:
    return hide_secret(value, HIDDEN) if isinstance(value, list) else value


class _Names:
    """What uuids are called, in either configuration."""

    def __init__(self, before: AnyState, after: AnyState) -> None:
        self.before, self.after = before, after
        self._known: dict[str, str | None] = {}
        self._owners: dict[str, str] | None = None

    def of(self, text: str) -> str:
        """Returns the name of the object with a uuid; any other text as it is."""
        if text not in self._known:
            self._known[text] = self._found(text) if _UUID.fullmatch(text) else None
        return self._known[text] or text

    def _found(self, uuid: str) -> str | None:
        for state in (self.after, self.before):
            for section in SECTIONS:
                body = state.get((section, uuid))
                if body is not None:
                    return self.call(section, uuid, plain(body))
        return None

    def call(self, section: str, uuid: str, values: Mapping[str, Any]) -> str:
        """Returns what people call an object."""
        if section == "cluster":
            return str(values.get("cluster_name", ""))
        if section == "disks":
            owner = self._owner(uuid)
            named = values.get("iv_name") or values.get("name") or uuid
            return f"{named} of instance {owner}" if owner else f"{uuid} (not attached)"
        return str(values.get("name") or uuid)

    def _owner(self, disk: str) -> str | None:
        """Returns the name of the instance that has a disk, in either configuration."""
        if self._owners is None:
            self._owners = {}
            for state in (self.before, self.after):
                for (section, _), body in state.items():
                    if section == "instances" and body is not None:
                        values = plain(body)
                        name = str(values.get("name"))
                        self._owners |= dict.fromkeys(values.get("disks") or (), name)
        return self._owners.get(disk)


def plain(body: bytes | None) -> dict[str, Any]:
    """Returns an object's JSON values; none of an object that isn't there."""
    return {} if body is None else decode_json(body, dict[str, Any])


class _Comparison:
    """One object before and after."""

    def __init__(self, section: str, uuid: str, names: _Names) -> None:
        place = CLUSTER if section == "cluster" else (section, uuid)
        self._was, self._is = names.before.get(place), names.after.get(place)
        self._old, self._new = plain(self._was), plain(self._is)
        self._names = names
        self._kind = SECTIONS[section].noun if section in SECTIONS else section
        self._name = names.call(section, uuid, self._new or self._old)
        if section != "disks" and self._old and self._new:
            # A renamed object is called as it was: the line says what it is called now.
            self._name = names.call(section, uuid, self._old)

    @property
    def _is_drbd(self) -> bool:
        return "drbd" in (self._old.get("dev_type"), self._new.get("dev_type"))

    def lines(self) -> Iterator[ConfigDifference]:
        """Yields what differs."""
        if self._was is None:
            yield ConfigDifference(self._kind, self._name, "added")
        elif self._is is None:
            yield ConfigDifference(self._kind, self._name, "removed")
        else:
            for key in dict.fromkeys((*self._old, *self._new)):
                if key not in MOVING:
                    old, new = self._old.get(key, _UNSET), self._new.get(key, _UNSET)
                    if old != new:
                        yield from self._key(key, old, new)

    def _key(self, key: str, old: Any, new: Any) -> Iterator[ConfigDifference]:
        if key in ("nics", "children"):
            yield from self._items("NIC" if key == "nics" else "child", old or (), new or ())
        elif key == "logical_id" and self._is_drbd:
            shown_old, shown_new = self._shown(_masked_id(old)), self._shown(_masked_id(new))
            if shown_old == shown_new:
                yield self._line("shared secret", HIDDEN, HIDDEN)
            else:
                yield self._line("logical id", shown_old, shown_new)
        elif key in ("reservations", "ext_reservations"):
            yield self._line(
                key.replace("_", " "), f"{_ones(old)} addresses", f"{_ones(new)} addresses"
            )
        else:
            yield from self._values(_SHORT.get(key, key.replace("_", " ")), key, old, new)

    def _values(self, label: str, key: str, old: Any, new: Any) -> Iterator[ConfigDifference]:
        """Compares values, and what is in them."""
        secret = SECRET.search(key) is not None
        if (isinstance(old, dict) and isinstance(new, dict)) or _none_and_dict(old, new):
            olds, news = _dict(old), _dict(new)
            for name in dict.fromkeys((*olds, *news)):
                one, other = olds.get(name, _UNSET), news.get(name, _UNSET)
                if one != other:
                    called = self._names.of(name)
                    inner = f"{label}/{called}" if label else called
                    yield from self._values(inner, key if secret else name, one, other)
        elif secret:
            what = "added" if old is _UNSET else "removed" if new is _UNSET else "changed"
            if what == "changed":
                yield self._line(label, HIDDEN, HIDDEN)
            else:
                yield ConfigDifference(self._kind, self._name, what, label)
        elif _simple_lists(old, new):
            yield from self._members(label, old, new)
        else:
            yield self._line(label, self._shown(masked(old)), self._shown(masked(new)))

    def _members(
        self, label: str, old: Sequence[Any], new: Sequence[Any]
    ) -> Iterator[ConfigDifference]:
        """Compares lists of names; one that only has another order is shown as a whole."""
        label = _ONE_OF.get(label, label)
        gone = [item for item in old if item not in new]
        come = [item for item in new if item not in old]
        for item in gone:
            text = self._shown(item)
            yield ConfigDifference(self._kind, self._name, "removed", label, old=text)
        for item in come:
            text = self._shown(item)
            yield ConfigDifference(self._kind, self._name, "added", label, new=text)
        if not gone and not come:
            yield self._line(label, self._shown(list(old)), self._shown(list(new)))

    def _items(
        self, noun: str, old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]
    ) -> Iterator[ConfigDifference]:
        """Compares objects within the object: NICs, a disk's children."""
        olds = {item.get("uuid", place): (place, item) for place, item in enumerate(old)}
        news = {item.get("uuid", place): (place, item) for place, item in enumerate(new)}
        for uuid, (place, item) in olds.items():
            if uuid not in news:
                yield self._whole("removed", f"{noun} {place}", item)
        for uuid, (place, item) in news.items():
            if uuid not in olds:
                yield self._whole("added", f"{noun} {place}", item)
                continue
            before = olds[uuid][1]
            for key in dict.fromkeys((*before, *item)):
                one, other = before.get(key, _UNSET), item.get(key, _UNSET)
                if key in MOVING or one == other:
                    continue
                label = f"{noun} {place} {key}" if key != "nicparams" else f"{noun} {place}"
                if key == "logical_id":
                    one, other = _masked_id(one), _masked_id(other)
                yield from self._values(label, key, one, other)
            if olds[uuid][0] != place:
                yield self._line(f"{noun} {place} place", str(olds[uuid][0]), str(place))

    def _whole(self, what: str, key: str, item: Mapping[str, Any]) -> ConfigDifference:
        mac = item.get("mac")
        text = f"({mac})" if mac else ""
        return ConfigDifference(self._kind, self._name, what, key, new=text)

    def _line(self, key: str, old: str, new: str) -> ConfigDifference:
        return ConfigDifference(self._kind, self._name, "changed", key, old, new)

    def _shown(self, value: Any) -> str:
        """Returns a value in words, with names in the place of uuids."""
        if value is _UNSET:
            return "unset"
        if value is None:
            return "none"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list):
            text = f"[{', '.join(map(self._shown, value))}]"
        elif isinstance(value, dict):
            pairs = (f"{self._names.of(name)}={self._shown(item)}" for name, item in value.items())
            text = f"{{{', '.join(pairs)}}}"
        else:
            text = self._names.of(str(value)) or "''"
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _none_and_dict(old: Any, new: Any) -> bool:
    """Whether one is a dictionary, and the other isn't there."""
    pair = (old, new)
    return any(isinstance(each, dict) for each in pair) and any(
        each is _UNSET or each is None for each in pair
    )


def _simple_lists(old: Any, new: Any) -> bool:
    return all(
        isinstance(each, list) and all(isinstance(item, str | int) for item in each)
        for each in (old, new)
    )


def _ones(bits: Any) -> int:
    return bits.count("1") if isinstance(bits, str) else 0
