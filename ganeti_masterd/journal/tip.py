"""The mark of how far the journal reached: ``journal.tip``, beside the journal.

SQLite ends its write-ahead log at the first frame whose checksum is wrong, without a word: a
damaged log looks like one whose last write was cut off. So each commit that has returned is
noted here, outside the log. A journal that reaches the mark lost nothing; one that ends before
it did. The mark is written after the commit and isn't synced: after a power failure it may lag
behind, but it is never ahead of what is durable.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b

from msgspec import Struct
from twisted.logger import Logger

log = Logger()

_NUMBERS = struct.Struct("<QQ")
_DIGEST_SIZE = 8
_SIZE = _NUMBERS.size + _DIGEST_SIZE


class Tip(Struct, frozen=True):
    """How far a journal reached.

    ``reached`` is the last number that was committed; ``empty`` the last one at which the
    files held everything and the journal nothing.
    """

    reached: int = 0
    empty: int = 0


def tip_path(journal: str) -> str:
    """Returns where the mark of a journal is."""
    return journal.removesuffix(".db") + ".tip"


def encode_tip(reached: int, empty: int) -> bytes:
    """Returns the content of the file."""
    numbers = _NUMBERS.pack(reached, empty)
    return numbers + blake2b(numbers, digest_size=_DIGEST_SIZE).digest()


def decode_tip(content: bytes) -> Tip | None:
    """Returns the mark; None for a content that is none."""
    numbers = content[: _NUMBERS.size]
    if len(content) != _SIZE:
        return None
    tip = Tip(*_NUMBERS.unpack(numbers))
    return tip if content == encode_tip(tip.reached, tip.empty) else None


class TipFile:
    """The mark of an open journal, made where it is missing; mode 0600. Only goes up.

    Raises ``OSError`` where it can't be made. One that can't be written later is logged, and
    lags behind.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(path, flags, 0o600)
        self._failed = False
        content = os.pread(self._descriptor, _SIZE + 1, 0)
        found = decode_tip(content) or Tip()
        self._reached, self._empty = found.reached, found.empty

    def advance(self, reached: int, empty: int = 0) -> None:
        """Notes numbers that are durable; smaller ones than before change nothing."""
        self._reached = reached = max(self._reached, reached)
        self._empty = empty = max(self._empty, empty)
        try:
            os.pwrite(self._descriptor, encode_tip(reached, empty), 0)
        except OSError as error:
            if not self._failed:
                log.error(
                    "The journal's mark {path} can't be written: {error}",
                    path=self._path,
                    error=error,
                )
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        """Makes the mark durable, as far as the disk lets."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            log.error(
                "The journal's mark {path} can't be synced: {error}", path=self._path, error=error
            )
        finally:
            os.close(self._descriptor)
