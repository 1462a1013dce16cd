"""config.data in pages: after a change only the page with the changed object is made anew.

A page holds a run of adjacent objects of a section, as bytes of the file and
compressed. Where a page ends depends on the uuids alone, so that adding or removing an
object affects no other page's limits.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ganeti_masterd.config.base import ConfigObject
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot

#: The average number of objects in a page: with fewer, pages compress worse; with more,
#: a change costs more.
PAGE = 64

#: zlib's fastest compression level; it shrinks the file to about a tenth.
LEVEL = 1

#: The document's keys in the real file's order.
USUAL_ORDER = ("version", "cluster", *SECTIONS, "ctime", "mtime", "serial_no")

_MODULUS = 65521
_ZLIB_HEADER = b"\x78\x01"
#: An empty deflate block, and the final one of a stream.
_NO_BLOCK = b"\x00\x00\x00\xff\xff"
_LAST_BLOCK = b"\x03\x00"


class ConfigPage:
    """A part of the file's bytes; also compressed, once that has been asked for."""

    __slots__ = ("_checksum", "_compressed", "content")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._compressed: str | None = None
        self._checksum = 0

    @property
    def compressed(self) -> str:
        """Complete deflate blocks in base64, which can be concatenated with other pages' blocks."""
        compressed = self._compressed
        if compressed is None:
            deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            blocks = deflate.compress(self.content) + deflate.flush(zlib.Z_FULL_FLUSH)
            compressed = self._compressed = _in_base64(blocks)
        return compressed

    def follows(self, checksum: int) -> int:
        """Returns the Adler-32 checksum up to this page's end, given the one up to its start."""
        own = self._checksum
        if not own:
            own = self._checksum = zlib.adler32(self.content)
        low, high = checksum & 0xFFFF, checksum >> 16
        sums = (low + (own & 0xFFFF) - 1) % _MODULUS
        weighted = (high + (own >> 16) + len(self.content) * (low - 1)) % _MODULUS
        return weighted << 16 | sums


_COMMA = ConfigPage(b",")


class _Part(Struct, frozen=True):
    """A section in pages, and the objects of each page."""

    section: Section[Any]
    keys: list[str]
    runs: list[list[Any]]
    pages: list[ConfigPage]


class Pages:
    """Encodes snapshots as config.data, and caches the pages of the last one.

    May be used from several threads at once: the cache is replaced as a whole, and only
    saves work.
    """

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        #: Pages of what lies between the sections, by content.
        self._around: dict[bytes, ConfigPage] = {}

    def content(self, snapshot: Snapshot) -> bytes:
        """Returns the file's content, uncompressed."""
        return b"".join([page.content for page in self.of(snapshot)])

    def size(self, snapshot: Snapshot) -> int:
        """Returns the length of :meth:`content` in bytes."""
        return sum([len(page.content) for page in self.of(snapshot)])

    def compressed(self, snapshot: Snapshot) -> str:
        """Returns the file as a zlib stream in base64."""
        checksum = 1
        stream = [_in_base64(_ZLIB_HEADER)]
        for page in self.of(snapshot):
            checksum = page.follows(checksum)
            stream.append(page.compressed)
        stream.append(_in_base64(_LAST_BLOCK + checksum.to_bytes(4, "big")))
        return "".join(stream)

    def of(self, snapshot: Snapshot) -> list[ConfigPage]:
        """Returns the whole file in pages."""
        header = msgspec.json.decode(snapshot.header.encoded, type=dict[str, Raw])
        order = snapshot.order or (*USUAL_ORDER, *snapshot.header.rest)
        late = [key for key in SECTIONS if key not in order and snapshot.section(key)]
        pages: list[ConfigPage] = []
        around: dict[bytes, ConfigPage] = {}
        between = b"{"
        for key in (*order, *late):
            between += msgspec.json.encode(key) + b":"
            if key == "cluster":
                between += snapshot.cluster.encoded
            elif key not in SECTIONS:
                between += bytes(header[key])
            else:
                own = self._pages(key, snapshot.section(key))
                pages += (self._page(between + b"{", around), *own)
                between = b"}"
            between += b","
        pages.append(self._page(between[:-1] + b"}", around))
        self._around = around
        return pages

    def _page(self, content: bytes, around: dict[bytes, ConfigPage]) -> ConfigPage:
        """Returns a page of what lies between sections, from the cache if possible.

        Adds it to ``around``.
        """
        page = around[content] = self._around.get(content) or ConfigPage(content)
        return page

    def _pages(self, key: str, section: Section[Any]) -> list[ConfigPage]:
        """Returns the pages of a section's objects, with commas in between."""
        known = self._parts.get(key)
        part = _part(section, known)
        if part is not known:
            self._parts[key] = part
        pages = [_COMMA] * (2 * len(part.pages) - 1)
        pages[::2] = part.pages
        return pages


def _in_base64(blocks: bytes) -> str:
    """Encodes deflate blocks, padded with empty ones so that more base64 can be appended."""
    while len(blocks) % 3:
        blocks += _NO_BLOCK
    return base64.b64encode(blocks).decode("ascii")


def _part(section: Section[Any], known: _Part | None) -> _Part:
    if known is not None and known.section is section:
        return known
    keys, objects = list(section.keys()), list(section.values())
    if known is not None and known.keys == keys:
        keys, lengths = known.keys, list(map(len, known.runs))
    else:
        lengths = _lengths(keys)
    # Known pages by their first object, which no two pages share.
    before = {} if known is None else {id(run[0]): place for place, run in enumerate(known.runs)}
    runs: list[list[Any]] = []
    pages: list[ConfigPage] = []
    start = 0
    for length in lengths:
        run = objects[start : start + length]
        place = before.get(id(run[0]))
        if known is not None and place is not None and known.runs[place] == run:
            run, page = known.runs[place], known.pages[place]
        else:
            page = ConfigPage(_joined(keys[start : start + length], run))
        runs.append(run)
        pages.append(page)
        start += length
    return _Part(section, keys, runs, pages)


def _lengths(keys: Sequence[str]) -> list[int]:
    """Returns how many objects each page has."""
    ends = [place for place, key in enumerate(keys, 1) if not hash(key) % PAGE]
    if keys and (not ends or ends[-1] != len(keys)):
        ends.append(len(keys))
    return [end - start for start, end in pairwise((0, *ends))]


def _joined(keys: Sequence[str], objects: Sequence[ConfigObject]) -> bytes:
    encode = msgspec.json.encode
    pairs = zip(keys, objects, strict=True)
    return b",".join([encode(key) + b":" + obj.encoded for key, obj in pairs])
