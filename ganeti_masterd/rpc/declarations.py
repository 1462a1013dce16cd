"""The declaration of a node call: its arguments, its time-out, its payload.

:mod:`ganeti_masterd.rpc.calls` is the table of declarations. A declaration also says how an
argument is converted before it is sent to a real node (:class:`ArgumentForm`), and which arguments
must never be logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

from msgspec import Struct

from ganeti_masterd.constants import (
    RPC_TMO_1DAY,
    RPC_TMO_4HRS,
    RPC_TMO_FAST,
    RPC_TMO_NORMAL,
    RPC_TMO_SLOW,
    RPC_TMO_URGENT,
)
from ganeti_masterd.errors import ProgrammerError

P = TypeVar("P")

# Time-out classes, in seconds over the whole call (protocol/rpc.rst, HTTP).
URGENT = RPC_TMO_URGENT
FAST = RPC_TMO_FAST
NORMAL = RPC_TMO_NORMAL
SLOW = RPC_TMO_SLOW
FOUR_HOURS = RPC_TMO_4HRS
DAY = RPC_TMO_1DAY


class Reach(Enum):
    """Whether callers call one node or several at once."""

    ONE = "one"
    MANY = "many"


ONE = Reach.ONE
MANY = Reach.MANY


class ArgumentForm(Enum):
    """The kinds of arguments that differ in how they are sent and logged."""

    PLAIN = "plain"
    #: A path that is sent as a virtual path in a virtual cluster.
    PATH = "path"
    #: A list of pairs of such paths.
    PATHS = "paths"
    #: A file's content: ``[0, text]`` or ``[1, base64 of zlib]``.
    CONTENT = "content"
    #: A list of path, content, mode, owner, group and times.
    UPLOAD = "upload"
    #: A dict whose key ``filelist`` holds paths, in the payload too.
    FILELIST = "filelist"
    #: An instance, a disk or the like, which may hold secret parameters.
    OBJECT = "object"
    #: Never to be logged in any form.
    SECRET = "secret"


class CallArgument(Struct, frozen=True):
    """One positional argument of a call."""

    name: str
    form: ArgumentForm = ArgumentForm.PLAIN


class Call(Struct, Generic[P], frozen=True):
    """One node call with a payload of type P.

    ``timeout`` is None if it depends on the arguments.

    ``bare``: the only argument is sent as the request's body, not in a list. ``offline_too``: nodes
    that are marked offline are called as well. ``result`` is P, or None if nothing reads the
    payload. ``whole``: the call changes disks or devices, so a caller that has to give up waits
    for it: a node that goes on with it would spoil what undoes it.
    """

    name: str
    timeout: float | None
    reach: Reach
    arguments: tuple[CallArgument, ...]
    result: Any = None
    offline_too: bool = False
    bare: bool = False
    whole: bool = False

    def seconds(self, arguments: Sequence[Any]) -> float:
        """Returns how long a call with these arguments may take."""
        if self.timeout is not None:
            return self.timeout
        return float(int(arguments[0] + 5))  # test_delay: its duration and some slack

    def check(self, arguments: Sequence[Any]) -> None:
        """Raises ``ProgrammerError`` unless there is one value for each argument.

        If the time-out depends on the first argument, that must be a number.
        """
        if len(arguments) != len(self.arguments):
            raise ProgrammerError(
                f"Call {self.name} takes {len(self.arguments)} arguments, not {len(arguments)}"
            )
        if self.timeout is None and not isinstance(arguments[0], (int, float)):
            raise ProgrammerError(f"Call {self.name} takes seconds, not {arguments[0]!r}")


class CallTable:
    """All calls by name."""

    def __init__(self) -> None:
        self._calls: dict[str, Call[Any]] = {}

    def declare(
        self,
        name: str,
        timeout: float | None,
        reach: Reach,
        *arguments: str | CallArgument,
        result: Any = None,
        offline_too: bool = False,
        bare: bool = False,
        whole: bool = False,
    ) -> Call[Any]:
        """Adds a call and returns it; an argument given as a string is a plain one."""
        if name in self._calls:
            raise ProgrammerError(f"The call {name!r} is declared twice")
        declared = tuple(CallArgument(arg) if isinstance(arg, str) else arg for arg in arguments)
        call: Call[Any] = Call(name, timeout, reach, declared, result, offline_too, bare, whole)
        self._calls[name] = call
        return call

    def __getitem__(self, name: str) -> Call[Any]:
        """Returns the call; raises ``ProgrammerError`` for a name that isn't one."""
        try:
            return self._calls[name]
        except KeyError:
            raise ProgrammerError(f"There is no node call {name!r}")

    def __contains__(self, name: object) -> bool:
        return name in self._calls

    def __iter__(self) -> Iterator[Call[Any]]:
        return iter(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)


def path(name: str) -> CallArgument:
    """A path that may be virtual."""
    return CallArgument(name, ArgumentForm.PATH)


def paths(name: str) -> CallArgument:
    """Pairs of paths that may be virtual."""
    return CallArgument(name, ArgumentForm.PATHS)


def content(name: str) -> CallArgument:
    """The content of a file."""
    return CallArgument(name, ArgumentForm.CONTENT)


def uploaded(name: str) -> CallArgument:
    """A file with its content and attributes, as one list."""
    return CallArgument(name, ArgumentForm.UPLOAD)


def filelist(name: str) -> CallArgument:
    """The checks of ``node_verify``, which include a list of files."""
    return CallArgument(name, ArgumentForm.FILELIST)


def entity(name: str) -> CallArgument:
    """An instance, a disk or a list of them."""
    return CallArgument(name, ArgumentForm.OBJECT)


def secret(name: str) -> CallArgument:
    """A value that must never be logged."""
    return CallArgument(name, ArgumentForm.SECRET)
