"""The table of LUXI methods: declared by decorator, answered by name.

A method is a function ``(daemon, peer, arguments...)``. Its annotations are
the arguments' types, its defaults make trailing ones optional. A wrong count
or type is an ``OpPrereqError`` that names the method and the argument.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.errors import ECODE_INVAL, OpPrereqError, prereq
from ganeti_masterd.luxi.messages import Request
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.arguments import describe, reader
from ganeti_masterd.requests.daemon import Daemon

#: Makes of a request's arguments what the method declares: older clients' forms.
Reshape = Callable[[list[Any]], list[Any]]


class Argument(Struct, frozen=True):
    """One declared argument of a method."""

    name: str
    read: Callable[[Any, str], Any]
    required: bool
    expected: str


class Method(Struct, frozen=True):
    """One LUXI method, with how it is read and whether it changes anything."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Argument, ...]
    changes: bool
    reshape: Reshape | None
    any_arguments: bool

    def read(self, args: Sequence[Any]) -> list[Any]:
        """Returns typed arguments; raises ``OpPrereqError``."""
        if self.any_arguments:
            return []
        if self.reshape is not None:
            args = self.reshape(list(args))
        declared = self.arguments
        if len(args) > len(declared) or (
            len(args) < len(declared) and declared[len(args)].required
        ):
            raise prereq(
                f"{self.name}: expected {self.signature}, not {len(args)} "
                f"argument{'' if len(args) == 1 else 's'}"
            )
        return [
            argument.read(value, f"{self.name}: argument {argument.name}")
            for argument, value in zip(declared, args, strict=False)
        ]

    @property
    def signature(self) -> str:
        """The arguments in words, such as ``[job_id, kill (optional)]``."""
        words = [
            argument.name + ("" if argument.required else " (optional)")
            for argument in self.arguments
        ]
        return f"[{', '.join(words)}]"


#: Every LUXI method by its name.
METHODS: dict[str, Method] = {}

F = typing.TypeVar("F", bound=Callable[..., Any])


def method(
    name: str,
    *,
    changes: bool = False,
    reshape: Reshape | None = None,
    any_arguments: bool = False,
) -> Callable[[F], F]:
    """Declares the decorated function as the answer to a LUXI method.

    ``changes`` marks methods that change something; ``reshape`` takes older
    forms of the arguments; ``any_arguments`` ignores whatever is sent.
    """

    def declare(function: F) -> F:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())[2:]
        METHODS[name] = Method(
            name,
            function,
            tuple(
                Argument(
                    parameter.name,
                    reader(hints[parameter.name]),
                    parameter.default is inspect.Parameter.empty,
                    describe(hints[parameter.name]),
                )
                for parameter in parameters
            ),
            changes,
            reshape,
            any_arguments,
        )
        return function

    return declare


class Answers:
    """Answers requests for one daemon: what the LUXI server is given."""

    def __init__(self, daemon: Daemon, *, read_only: bool = False) -> None:
        self._daemon = daemon
        self._read_only = read_only

    def __call__(self, request: Request, peer: Peer) -> Any:
        """Returns the result or a Deferred of it; raises Ganeti's errors."""
        declared = METHODS.get(request.method)
        if declared is None:
            raise OpPrereqError(f"Unknown LUXI method {request.method!r}", ECODE_INVAL)
        if self._read_only and declared.changes:
            raise OpPrereqError(
                f"{declared.name} changes something, which this socket doesn't allow", ECODE_INVAL
            )
        return declared.function(self._daemon, peer, *declared.read(request.args))
