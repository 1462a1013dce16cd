"""Decoding an object of config.data into a frozen struct and back, without loss.

A struct declares the keys that the daemon knows. Everything else in the file
is kept: unknown keys in ``rest``, an unusual order of keys in ``shape``, and an
object's original bytes until the object is changed. So a file that is loaded and
saved stays the same, even one of a later version.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct, field
from msgspec.structs import fields, force_setattr

EMPTY: Mapping[str, Any] = MappingProxyType({})

#: A JSON number; the file's 0 stays 0 and 0.5 stays 0.5.
Number = int | float

#: Parameters by name, as the file has them.
Params = Mapping[str, Any]

O = TypeVar("O", bound="ConfigObject")  # noqa: E741

_encoder = msgspec.json.Encoder(enc_hook=dict)  # read-only mappings are encoded as dictionaries


class ConfigObject(Struct, frozen=True, kw_only=True, dict=True):
    """An object of config.data: its fields are keys of the file, in the file's usual order.

    A field whose default is None may be absent from the file, and is left out
    when it is None. A field with another default may be absent from a file that is
    read, but is always written. ``rest`` holds the keys that no field has, and,
    with the value None, each optional key that the file spells out as ``null``.
    ``shape`` is the order of the keys in the file, empty for the usual order.
    """

    #: Fields that hold a tuple of other objects, and what these are.
    nested: ClassVar[Mapping[str, type[ConfigObject]]] = EMPTY

    rest: Mapping[str, Any] = field(name="/rest", default=EMPTY)
    shape: tuple[str, ...] = field(name="/shape", default=())

    @property
    def encoded(self) -> bytes:
        """The object as JSON: the bytes that were read, until it is changed."""
        cached: bytes | None = self.__dict__.get("encoded")
        if cached is None:
            cached = self.__dict__["encoded"] = _encoder.encode(self.plain())
        return cached

    def plain(self) -> dict[str, Any]:
        """Returns the object as JSON types, with all that the file holds of it.

        The mappings inside are the object's own: don't change them.
        """
        defaults = defaults_of(type(self))
        if not self.shape:
            values = {
                name: value
                for name, default in defaults.items()
                if (value := getattr(self, name)) is not None
                or default is not None
                or name in self.rest
            }
        else:
            values = {}
            for name in self.shape:
                if name not in defaults:
                    if name in self.rest:
                        values[name] = self.rest[name]
                elif (value := getattr(self, name)) is not None or name in self.rest:
                    values[name] = value
            for name, default in defaults.items():
                if name not in values and (value := getattr(self, name)) != default:
                    values[name] = value
        for name in self.nested:
            if values.get(name):
                values[name] = [item.plain() for item in values[name]]
        for name, value in self.rest.items():
            values.setdefault(name, value)
        return values


class Keys(NamedTuple):
    """How a certain sequence of keys relates to the fields of a class."""

    shape: tuple[str, ...]
    unknown: tuple[str, ...]
    optional: tuple[str, ...]


@cache
def defaults_of(cls: type[ConfigObject]) -> Mapping[str, Any]:
    """Returns the keys that a class knows, in their usual order, with their defaults."""
    own = ConfigObject.__struct_fields__
    return {
        info.name: info.default if info.default_factory is NODEFAULT else info.default_factory()
        for info in fields(cls)
        if info.name not in own
    }


@lru_cache(maxsize=1024)
def keys_of(cls: type[ConfigObject], keys: tuple[str, ...]) -> Keys:
    """Returns what is special about an object's keys; cached, because few sequences occur."""
    defaults = defaults_of(cls)
    unknown = tuple(key for key in keys if key not in defaults)
    optional = tuple(key for key in keys if defaults.get(key, NODEFAULT) is None)
    usual = tuple(name for name, default in defaults.items() if name in keys or default is not None)
    return Keys(() if keys == usual + unknown else keys, unknown, optional)


def load(cls: type[O], plain: Mapping[str, Any], encoded: bytes | None = None) -> O:
    """Returns the object that ``plain`` (JSON types) describes.

    ``encoded`` are the bytes of the file that it comes from, to be written unchanged.
    Raises ``msgspec.ValidationError``, whose text names the key and the fault.
    """
    loaded = msgspec.convert(plain, cls)
    _keep(loaded, plain)
    if encoded is not None:
        loaded.__dict__["encoded"] = encoded
    return loaded


def _keep(loaded: ConfigObject, plain: Mapping[str, Any]) -> None:
    """Sets ``rest`` and ``shape`` of a newly loaded object and of the objects nested in it."""
    keys = keys_of(type(loaded), tuple(plain))
    if keys.shape:
        force_setattr(loaded, "shape", keys.shape)
    rest = {key: plain[key] for key in keys.unknown}
    for key in keys.optional:
        if plain[key] is None:
            rest[key] = None
    if rest:
        force_setattr(loaded, "rest", MappingProxyType(rest))
    for name in loaded.nested:
        for item, described in zip(getattr(loaded, name), plain.get(name, ()), strict=True):
            _keep(item, described)
