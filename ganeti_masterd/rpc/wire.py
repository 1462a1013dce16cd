r"""Requests and answers as bytes: ASCII JSON, virtual paths, contents of files.

Real noded counts a body's length in characters, so everything beyond ASCII is sent as ``\u``
escapes (protocol/rpc.rst, HTTP). In a virtual cluster the paths of some calls are sent without the
node's root (protocol/rpc.rst, Addresses and recipients); which ones is declared with the call
(:class:`~ganeti_masterd.rpc.declarations.ArgumentForm`). Errors never quote a body, as it may
contain secrets.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import msgspec

from ganeti_masterd.decoding import deeper_than
from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc.declarations import ArgumentForm, Call

VIRTUAL = "/###-VIRTUAL-PATH-###,"

#: Paths that mean the same file on all nodes of a virtual cluster.
SHARED = frozenset({"/etc/hosts"})

#: Most values that an answer may have, as commas and brackets tell: they cost far more memory and
#: time than their bytes. Those in texts count as well. A node with 10,000 disks sends 100,000.
MAX_VALUES = 1_000_000

#: How deep an answer may be nested. It goes into job files, whose encoder has such a limit, too.
MAX_DEPTH = 64

_BEYOND_ASCII = re.compile("[^\x00-\x7f]")


def file_content(data: bytes) -> list[Any]:
    """Returns a file's content as it is sent: ``[0, text]`` for ASCII, else ``[1, base64]``.

    ASCII text isn't compressed: on a LAN that costs more time than it saves (protocol/rpc.rst,
    HTTP).
    """
    try:
        return [0, data.decode("ascii")]
    except UnicodeDecodeError:
        # With other text the node would have to guess the encoding.
        return compressed_content(base64.b64encode(zlib.compress(data, 3)).decode("ascii"))


def compressed_content(stream: str) -> list[Any]:
    """Returns a file's content as it is sent, given its zlib stream in base64."""
    return [1, stream]


def encode(value: Any) -> bytes:
    """Returns ``value`` as ASCII JSON; raises ``ProgrammerError`` if it can't be encoded."""
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # This error's message is harmless, but those of its causes may have secrets.
        raise ProgrammerError(f"Arguments are no JSON: {type(error).__name__}") from None
    if encoded.isascii():
        return encoded
    return _BEYOND_ASCII.sub(_escaped, encoded.decode("utf-8")).encode("ascii")


def _plain(value: Any) -> Any:
    """Turns the configuration's read-only mappings into dictionaries."""
    if hasattr(value, "keys"):
        return dict(value)
    raise TypeError(type(value).__name__)


def _escaped(match: re.Match[str]) -> str:
    point = ord(match.group())
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"


def decode(
    body: bytes | bytearray, decode_json: Callable[[bytes | bytearray], Any] = msgspec.json.decode
) -> Any:
    """Decodes an answer; raises ``ValueError``, which says only where it is malformed.

    One of more than :data:`MAX_VALUES` values or nested deeper than :data:`MAX_DEPTH` is malformed.
    A newline at the end, as noded sends it, is allowed. noded's Python sends bytes that are not
    UTF-8, such as those of odd file names, as lone surrogates; these become U+FFFD, so that one odd
    name doesn't make the whole answer unreadable.
    """
    if len(body) > MAX_VALUES and sum(map(body.count, _VALUE_SIGNS)) > MAX_VALUES:
        raise ValueError(f"malformed answer: more than {MAX_VALUES} values")
    try:
        return _shallow(body, decode_json(body))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except msgspec.DecodeError as error:
        fault = f"malformed answer: {error}"
    except ValueError as error:
        fault = f"malformed answer: {type(error).__name__}"
    if body.isascii() and b"\\u" in body:
        try:
            value = json.loads(body, parse_constant=_refuse, parse_float=_finite)
            return _whole(_shallow(body, value))
        except RecursionError:
            fault = _TOO_DEEP
        except ValueError:
            pass
    raise ValueError(fault)


_VALUE_SIGNS = (b",", b"[", b"{")
_TOO_DEEP = f"malformed answer: nested more than {MAX_DEPTH} deep"


def _shallow(body: bytes | bytearray, value: Any) -> Any:
    """Returns the value of an answer; raises ``RecursionError`` if it is nested too deep."""
    if deeper_than(body, value, MAX_DEPTH):
        raise RecursionError
    return value


def _whole(value: Any) -> Any:
    """Returns the value with lone surrogates replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _refuse(text)


class VirtualPaths:
    """Converts between paths below one node's root and the form in which they are sent.

    ``root`` is empty in a real cluster; then nothing is changed.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root.rstrip("/")

    def outward(self, path: Any) -> Any:
        """Returns a path in the form in which it is sent.

        Raises ``ProgrammerError`` for one that isn't below the root. Values that aren't strings are
        returned unchanged, for the node to refuse.
        """
        if not self.root or not isinstance(path, str) or path in SHARED:
            return path
        if path.startswith(VIRTUAL):
            return path
        if not path.startswith(self.root + "/"):
            raise ProgrammerError(f"Path {path} is not below the node's root {self.root}")
        return VIRTUAL + path[len(self.root) :]

    def inward(self, path: str) -> str:
        """Returns a received path as one below this node's root."""
        if self.root and path.startswith(VIRTUAL):
            return self.root + path[len(VIRTUAL) :]
        return path

    def arguments(self, call: Call[Any], arguments: Sequence[Any]) -> list[Any]:
        """Returns a call's arguments with paths as they are sent; raises like :meth:`outward`."""
        if not self.root:
            return list(arguments)
        return [
            _OUTWARD[declared.form](self, value) if declared.form in _OUTWARD else value
            for declared, value in zip(call.arguments, arguments, strict=True)
        ]

    def payload(self, call: Call[Any], payload: Any) -> Any:
        """Returns an answer's payload with paths below this node's root."""
        if not self.root or not any(one.form is ArgumentForm.FILELIST for one in call.arguments):
            return payload
        if isinstance(payload, dict) and isinstance(payload.get("filelist"), dict):
            files = {self.inward(path): sum_ for path, sum_ in payload["filelist"].items()}
            return {**payload, "filelist": files}
        return payload

    def _pairs(self, pairs: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [[self.outward(path) for path in pair] for pair in pairs]

    def _upload(self, file: Sequence[Any]) -> list[Any]:
        return [self.outward(file[0]), *file[1:]]

    def _filelist(self, checks: Any) -> Any:
        if "filelist" not in checks:
            return checks
        return {**checks, "filelist": [self.outward(path) for path in checks["filelist"]]}


_OUTWARD: dict[ArgumentForm, Callable[[VirtualPaths, Any], Any]] = {
    ArgumentForm.PATH: VirtualPaths.outward,
    ArgumentForm.PATHS: VirtualPaths._pairs,
    ArgumentForm.UPLOAD: VirtualPaths._upload,
    ArgumentForm.FILELIST: VirtualPaths._filelist,
}


def request_body(call: Call[Any], arguments: Sequence[Any], paths: VirtualPaths) -> bytes:
    """Returns the body of a request; raises ``ProgrammerError`` for arguments that don't fit."""
    call.check(arguments)
    try:
        travelling = paths.arguments(call, arguments)
    except (TypeError, IndexError, AttributeError):
        raise ProgrammerError(f"Call {call.name}: an argument hasn't the declared form") from None
    try:
        return encode(travelling[0] if call.bare else travelling)
    except ProgrammerError as error:
        raise ProgrammerError(f"Call {call.name}: {error}") from None
