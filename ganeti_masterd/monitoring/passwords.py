"""The file of ``--monitoring-users``: names, and passwords as scrypt makes them (RFC 7914). Pure.

A line is ``NAME:$scrypt$ln=15,r=8,p=1$SALT$HASH``; salt and hash are base64 without padding. Empty
lines and those that begin with ``#`` are skipped.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re

from msgspec import Struct

#: What new passwords cost: 2**15 blocks of 8 * 128 bytes are 32 MiB, and about 0.1 s.
_LN, _R, _P = 15, 8, 1
_SALT, _HASH = 16, 32

#: Bounds of what a file may ask for, so that a login can take neither all memory nor minutes.
_CHEAPEST, _DEAREST = 14, 18
_MOST_R, _MOST_P = 8, 4

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_STORED = re.compile(
    r"\$scrypt\$ln=(?P<ln>[0-9]{1,2}),r=(?P<r>[0-9]{1,2}),p=(?P<p>[0-9]{1,2})"
    r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<hash>[A-Za-z0-9+/]+)"
)


class StoredPassword(Struct, frozen=True):
    """A password as it is kept: ``ln`` (a power of two), ``r`` and ``p`` are what it costs."""

    ln: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, password: bytes) -> bool:
        """Whether it is this one; takes about 0.1 s and much memory, so never in the reactor."""
        made = _scrypt(password, self.salt, self.ln, self.r, self.p, len(self.digest))
        return hmac.compare_digest(made, self.digest)


#: Stands for the password of names that don't exist, so that these take as long.
NOBODY = StoredPassword(_LN, _R, _P, bytes(_SALT), bytes(_HASH))


def password_line(name: str, password: str) -> str:
    """Returns a line for the file; raises ``ValueError`` for a name that can't stand in it."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: letters, digits, and any of _.@- may be in it")
    if not password:
        raise ValueError("The password is empty")
    salt = os.urandom(_SALT)
    digest = _scrypt(password.encode("utf-8"), salt, _LN, _R, _P, _HASH)
    return f"{name}:$scrypt$ln={_LN},r={_R},p={_P}${_text(salt)}${_text(digest)}"


def read_users(text: str) -> dict[str, StoredPassword]:
    """Returns the passwords in a file, by name; ``ValueError`` names the line that is wrong."""
    found: dict[str, StoredPassword] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, stored = _read_line(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if name in found:
            raise ValueError(f"line {number}: {name} has a line already")
        found[name] = stored
    if not found:
        raise ValueError("has no user: `gnt-luxi monitoring-password NAME` makes a line")
    return found


def _read_line(line: str) -> tuple[str, StoredPassword]:
    name, colon, rest = line.strip().partition(":")
    if not colon:
        raise ValueError("is not NAME:$scrypt$...")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:70]!r} is no name: letters, digits, and any of _.@- may be in it")
    parts = _STORED.fullmatch(rest)
    if parts is None:
        raise ValueError(f"the password of {name} is not in the form $scrypt$ln=...,r=...,p=...$")
    ln, r, p = (int(parts[each]) for each in ("ln", "r", "p"))
    if not (_CHEAPEST <= ln <= _DEAREST and 1 <= r <= _MOST_R and 1 <= p <= _MOST_P):
        raise ValueError(
            f"the password of {name} has ln={ln}, r={r}, p={p}; ln may be {_CHEAPEST} to "
            f"{_DEAREST}, r up to {_MOST_R}, p up to {_MOST_P}"
        )
    salt, digest = _bytes(parts["salt"]), _bytes(parts["hash"])
    if salt is None or digest is None or len(salt) < 8 or not 16 <= len(digest) <= 64:
        raise ValueError(f"salt or hash of {name} is cut off or isn't base64")
    return name, StoredPassword(ln, r, p, salt, digest)


def _scrypt(password: bytes, salt: bytes, ln: int, r: int, p: int, size: int) -> bytes:
    memory = 128 * r * (2**ln + p + 2)
    return hashlib.scrypt(
        password, salt=salt, n=2**ln, r=r, p=p, dklen=size, maxmem=memory + (1 << 20)
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=")


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
