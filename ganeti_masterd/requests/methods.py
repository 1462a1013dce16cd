"""Tables of methods, declared by a decorator and called by name; has the table of LUXI.

A method is a function ``(daemon, peer, arguments...)``. Its annotations are the arguments' types;
defaults make trailing arguments optional. A wrong number or type of arguments raises an
``OpPrereqError`` that names the method and the argument. Keyword-only parameters are not sent by
clients: the client's dialect sets them.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.errors import ECODE_INVAL, GenericError, JobLost, OpPrereqError, prereq
from ganeti_masterd.luxi.dialects import DialectForm, dialect_of
from ganeti_masterd.luxi.messages import (
    MAX_REQUEST,
    SMALL,
    LuxiRequest,
    RequestBound,
    SizeBound,
    TypedArguments,
)
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.arguments import describe, reader, shown
from ganeti_masterd.requests.daemon import Daemon

log = Logger()


class MethodArgument(Struct, frozen=True):
    """One declared argument of a method."""

    name: str
    read: Callable[[Any, str], Any]
    required: bool
    expected: str


class Method(Struct, frozen=True):
    """One method of a socket: its arguments, and whether it changes anything.

    A request may have ``largest`` bytes; None for as many as any message. Unless ``counted`` it
    may have any number of values.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[MethodArgument, ...]
    changes: bool
    any_arguments: bool
    largest: int | None = MAX_REQUEST
    counted: bool = True

    def read(self, args: Sequence[Any]) -> list[Any]:
        """Returns typed arguments; raises ``OpPrereqError``."""
        if self.any_arguments:
            return []
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
        """The arguments as a text, such as ``[job_id, kill (optional)]``."""
        words = [
            argument.name + ("" if argument.required else " (optional)")
            for argument in self.arguments
        ]
        return f"[{', '.join(words)}]"


#: Every LUXI method by its name.
METHODS: dict[str, Method] = {}

#: Methods of this daemon's own, which luxid doesn't have.
OWN_METHODS: dict[str, Method] = {}

F = typing.TypeVar("F", bound=Callable[..., Any])


def method(
    name: str,
    *,
    changes: bool = False,
    any_arguments: bool = False,
    largest: int | None = MAX_REQUEST,
    counted: bool = True,
    table: dict[str, Method] = METHODS,
) -> Callable[[F], F]:
    """Declares the decorated function as the answer to a method of ``table``.

    ``changes`` marks methods that change something; with ``any_arguments`` all sent arguments are
    ignored. ``largest`` and ``counted``: see :class:`Method`.
    """

    def declare(function: F) -> F:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())[2:]
        table[name] = Method(
            name,
            function,
            tuple(
                MethodArgument(
                    parameter.name.rstrip("_"),
                    reader(hints[parameter.name]),
                    parameter.default is inspect.Parameter.empty,
                    describe(hints[parameter.name]),
                )
                for parameter in parameters
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            ),
            changes,
            any_arguments,
            largest,
            counted,
        )
        return function

    return declare


def size_bound(table: Mapping[str, Method]) -> SizeBound:
    """Returns the function that says what a request of a method may have."""

    def largest(name: str) -> RequestBound:
        declared = table.get(name)
        return SMALL if declared is None else RequestBound(declared.largest, declared.counted)

    return largest


class LuxiAnswers:
    """Answers requests for one daemon; passed to the LUXI server.

    With ``read_only``, methods that change something are refused. Changes are logged with the peer
    that asked for them, but without arguments, which may be secret. A change that has begun goes on
    if its client disconnects: cancelling its Deferred doesn't stop it.
    """

    def __init__(self, daemon: Daemon, *, read_only: bool = False) -> None:
        self._daemon = daemon
        self._read_only = read_only

    def __call__(self, request: LuxiRequest, peer: Peer) -> Any:
        """Returns the result or a Deferred of it; raises Ganeti's errors."""
        declared = METHODS.get(request.method) or OWN_METHODS.get(request.method)
        if declared is None:
            raise OpPrereqError(f"Unknown LUXI method {shown(request.method)}", ECODE_INVAL)
        if declared.changes:
            log_change(declared.name, peer)
        if self._read_only and declared.changes:
            raise OpPrereqError(
                f"{declared.name} changes something, which this socket doesn't allow", ECODE_INVAL
            )
        form = dialect_of(request).form(declared.name)
        args = request.typed.result() if request.typed else _read(declared, form, request)
        if form.answer is None:
            return self._call(declared, form, peer, args)
        return self._in_dialect(declared, form, peer, args)

    def read_ahead(self, request: LuxiRequest) -> LuxiRequest:
        """Returns the request with its arguments typed, or their error. For any thread."""
        declared = METHODS.get(request.method) or OWN_METHODS.get(request.method)
        if declared is None:
            return request
        form = dialect_of(request).form(declared.name)
        return with_typed(request, lambda: _read(declared, form, request))

    def _call(self, declared: Method, form: DialectForm, peer: Peer, args: list[Any]) -> Any:
        result = declared.function(self._daemon, peer, *args, **form.options)
        if declared.changes and isinstance(result, Deferred):
            return shielded(result)
        return result

    def _in_dialect(self, declared: Method, form: DialectForm, peer: Peer, args: list[Any]) -> Any:
        """Answers a method whose answer has a different form in the client's dialect."""
        answer = form.answer
        assert answer is not None

        def failed(failure: Failure) -> Failure | None:
            return None if form.null_if_lost and failure.check(JobLost) else failure

        try:
            result = self._call(declared, form, peer, args)
        except JobLost:
            if not form.null_if_lost:
                raise
            return None
        if isinstance(result, Deferred):
            return result.addCallbacks(lambda value: answer(args, value), failed)
        return answer(args, result)


def _read(declared: Method, form: DialectForm, request: LuxiRequest) -> list[Any]:
    return declared.read(request.args if form.arguments is None else form.arguments(request.args))


def with_typed(request: LuxiRequest, read: Callable[[], list[Any]]) -> LuxiRequest:
    """Returns the request with what ``read`` returns as its typed arguments, or its error."""
    try:
        typed = TypedArguments(read())
    except GenericError as error:
        typed = TypedArguments([], error)
    return replace(request, args=[], typed=typed)


def shielded(begun: Deferred[Any]) -> Deferred[Any]:
    """Returns a Deferred that fires like ``begun``; cancelling it doesn't cancel that."""
    told: Deferred[Any] = Deferred()
    begun.addCallbacks(told.callback, told.errback)
    return told


def log_change(name: str, peer: Peer) -> None:
    """Logs that a method which changes something was called, and by whom."""
    log.info(
        "{method} from connection {peer.connection}, uid {peer.uid}, pid {peer.pid}",
        method=name,
        peer=peer,
    )
