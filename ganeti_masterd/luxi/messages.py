"""Requests and replies of LUXI: from bytes to values and back (protocol/luxi.rst, Framing).

Bytes here are whole messages without their end byte. A reply is compact JSON without
a version, as that of the 3.x server. Text goes out as UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import msgspec

from ganeti_masterd import errors
from ganeti_masterd.constants import CONFIG_VERSION_NEXT, LUXI_VERSION
from ganeti_masterd.errors import ECODE_INVAL, LuxiError, OpPrereqError, ProgrammerError
from ganeti_masterd.luxi.documents import ProtocolError, parse, parse_strictly

#: Versions of LUXI 2.x clients that are served too, in their dialect.
CLASSIC_VERSIONS = range(2050000, 2060000 + 1)
#: What requests may say, besides a classic version.
VERSIONS = frozenset({LUXI_VERSION, CONFIG_VERSION_NEXT})

#: The most bytes that a request may have whose method doesn't say that it takes more.
MAX_REQUEST = 1 << 20

#: The most lists and objects that a request may have. To decode them costs far more than their
#: bytes: 2.7 million empty lists in 8 MiB took 1.8 s, in which nobody else was answered.
MAX_CONTAINERS = 100_000

#: The most commas that a request may have, so about as many values. The decoder holds the
#: interpreter lock until it has all of them: 100 ms for so many keys of one object.
MAX_COMMAS = 500_000

_SUCCESS = b'{"success":true,"result":'
_FAILURE = b'{"success":false,"result":'
_END = b"}"

_encode = msgspec.json.Encoder().encode

#: What encoding raises for a value that has no form in JSON.
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class TypedArguments(msgspec.Struct, frozen=True):
    """What the arguments of a method were read as, or the error that this raised."""

    values: list[Any]
    error: errors.GenericError | None = None

    def result(self) -> list[Any]:
        """Returns the typed arguments, or raises the error."""
        if self.error is not None:
            raise self.error
        return self.values


class LuxiRequest(msgspec.Struct, frozen=True, gc=False):
    """One call: the method's name, its positional arguments, the version sent (if any).

    ``typed`` is set where the arguments were read already, in a thread; ``args`` is empty then.
    """

    method: str
    args: list[Any]
    version: int | None = None
    typed: TypedArguments | None = None

    @property
    def classic(self) -> bool:
        """Whether a 2.x client asks, which gets what 2.x gave."""
        # A range is walked when asked for what is no number.
        return self.version is not None and self.version in CLASSIC_VERSIONS


class Encoded:
    """A result that is JSON already: it is put into the reply as it is.

    ``data`` must be one JSON document without a bare byte 0x03; this is not checked.
    The reply is made once, so that one ``Encoded`` may answer any number of requests.
    """

    __slots__ = ("reply",)

    def __init__(self, data: bytes) -> None:
        self.reply = b"".join((_SUCCESS, data, _END))

    @classmethod
    def of_parts(cls, before: bytes, parts: Iterable[bytes], after: bytes) -> Self:
        """Returns the result ``before``, all parts with commas between them, and ``after``.

        Empty parts are left out. Each byte of a part is copied once, however many there are.
        """
        rows = [part for part in parts if part] or [b""]
        rows[0] = b"".join((_SUCCESS, before, rows[0]))
        rows[-1] = b"".join((rows[-1], after, _END))
        made = cls.__new__(cls)
        made.reply = b",".join(rows)
        return made

    @property
    def data(self) -> bytes:
        """The JSON bytes of the result."""
        return self.reply[len(_SUCCESS) : -len(_END)]


class _Head(msgspec.Struct):
    """The method of a request, all else being passed over without making values of it."""

    method: Any = None


_decode_head = msgspec.json.Decoder(_Head).decode


class RequestBound(msgspec.Struct, frozen=True):
    """How many bytes a request may have, None for as many as any message.

    Unless ``counted`` it may have any number of values as well.
    """

    size: int | None
    counted: bool = True


SMALL = RequestBound(MAX_REQUEST)
LARGE = RequestBound(None)

#: Says what requests of a method may have.
SizeBound = Callable[[str], RequestBound]


def _one_mib(method: str) -> RequestBound:
    return SMALL


def decode_request(message: bytes, largest: SizeBound = _one_mib) -> LuxiRequest:
    """Returns the request that a message holds. Keys it doesn't know are ignored.

    Of a message above :data:`MAX_REQUEST` first only the method is read, and ``OpPrereqError``
    raised if ``largest`` says that its requests may not be as large. So it is, unless ``largest``
    says that they aren't counted, for one of more than :data:`MAX_CONTAINERS` brackets that open
    something, or more than :data:`MAX_COMMAS` commas; those in texts count as well.

    Raises ``ProtocolError`` if the message can't be understood: answer, then close.
    Raises ``LuxiError`` for a version that isn't spoken here, and ``OpPrereqError`` for
    a method or arguments of the wrong type: answer, and go on.
    """
    bound = SMALL if len(message) <= MAX_REQUEST else _bound_of(message, largest)
    if bound.counted and len(message) > MAX_CONTAINERS:
        _refuse_if_too_many(message)
    document = parse_strictly(message)
    if type(document) is not dict:
        raise ProtocolError(f"A request must be a JSON object, not {_kind(document)}")
    try:
        method = document["method"]
        args = document["args"]
    except KeyError as missing:
        raise ProtocolError(f"A request must have the key {missing}") from None
    version = document.get("version")
    if version is not None and (
        type(version) is not int or (version not in VERSIONS and version not in CLASSIC_VERSIONS)
    ):
        raise LuxiError(
            f"LUXI version mismatch: the server speaks {LUXI_VERSION}, "
            f"the request says {_shown(version)}"
        )
    if type(method) is not str:
        raise OpPrereqError(f"The method must be a string, not {_kind(method)}", ECODE_INVAL)
    if type(args) is not list:
        raise OpPrereqError(
            f"{_shown(method)}: the arguments must be a list, not {_kind(args)}", ECODE_INVAL
        )
    return LuxiRequest(method, args, version)


def _bound_of(message: bytes, largest: SizeBound) -> RequestBound:
    """Returns what a large message is allowed; raises ``OpPrereqError`` if it is too large."""
    try:
        method = _decode_head(message).method
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ProtocolError(f"Not a request: {error}") from None
    bound = largest(method) if type(method) is str else SMALL
    if bound.size is not None and len(message) > bound.size:
        raise OpPrereqError(
            f"{_shown(method)}: the request has {len(message)} bytes, and may have {bound.size}",
            ECODE_INVAL,
        )
    return bound


def _refuse_if_too_many(message: bytes) -> None:
    found = message.count(b"[") + message.count(b"{")
    if found > MAX_CONTAINERS:
        raise OpPrereqError(
            f"The request has {found} lists and objects, and may have {MAX_CONTAINERS}",
            ECODE_INVAL,
        )
    if len(message) > MAX_COMMAS and (found := message.count(b",")) > MAX_COMMAS:
        raise OpPrereqError(
            f"The request has {found} values, and may have {MAX_COMMAS}", ECODE_INVAL
        )


def encode_reply(result: Any) -> bytes:
    """Returns the reply to a request that was answered with ``result``.

    ``result`` is what msgspec can encode, or an :class:`Encoded`. Integers are exact;
    a float that isn't finite becomes null.

    Raises ``ProgrammerError`` if ``result`` has no form in JSON.
    """
    if type(result) is Encoded:
        return result.reply
    try:
        return b"".join((_SUCCESS, _encode(result), _END))
    except _UNENCODABLE as error:
        raise ProgrammerError(f"A result can't be sent as JSON: {error}") from error


def encode_error(error: BaseException) -> bytes:
    """Returns the reply that makes the client raise ``error``. Never raises.

    Arguments that have no form in JSON travel as their text.
    """
    try:
        name, args = errors.encode_error(error)
    except Exception:  # its own __str__ raised
        name, args = "OpExecError", [type(error).__name__]
    try:
        data = _encode([name, args])
    except _UNENCODABLE:
        data = _encode([name, [_encodable(arg) for arg in args]])
    return b"".join((_FAILURE, data, _END))


def encode_request(method: str, args: Any, version: int | None = LUXI_VERSION) -> bytes:
    """Returns the request that calls ``method`` with the list ``args``.

    Raises ``ProgrammerError`` if an argument has no form in JSON.
    """
    document = {"method": method, "args": args}
    if version is not None:
        document["version"] = version
    try:
        return _encode(document)
    except _UNENCODABLE as error:
        raise ProgrammerError(f"{method}: an argument can't be sent as JSON: {error}") from error


def decode_reply(message: bytes, version: int | None = LUXI_VERSION) -> Any:
    """Returns the result that a reply holds; ``version`` is the one that was sent.

    Raises the error that the server answered, as the class that it names
    (:func:`ganeti_masterd.errors.decode_error`), ``LuxiError`` for a reply of another
    version, ``ProtocolError`` for what isn't a reply: then the connection is of no more use.
    """
    document = parse(message)
    if type(document) is not dict:
        raise ProtocolError(f"A reply must be a JSON object, not {_kind(document)}")
    success = document.get("success")
    if type(success) is not bool or "result" not in document:
        raise ProtocolError("A reply must have the keys 'success' (a boolean) and 'result'")
    theirs = document.get("version")
    if theirs is not None and theirs != version:
        raise LuxiError(
            f"LUXI version mismatch: the client speaks {version}, the reply says {_shown(theirs)}"
        )
    if not success:
        raise _decode_error(document["result"])
    return document["result"]


def _decode_error(result: Any) -> Exception:
    try:
        return errors.decode_error(result)
    except Exception:  # arguments that the class named does not take
        return LuxiError(f"The server answered an error that makes no sense: {_shown(result)}")


def _encodable(value: Any) -> Any:
    try:
        _encode(value)
    except _UNENCODABLE:
        try:
            return ascii(value)
        except Exception:
            return f"<{type(value).__name__}>"
    return value


def _kind(value: Any) -> str:
    """The JSON name of a value's type."""
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(
        type(value), "a number"
    )


def _shown(value: Any) -> str:
    """A value from the wire, short enough for a message."""
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 80 else text[:77] + "..."
