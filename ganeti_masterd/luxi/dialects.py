"""The two dialects of LUXI: what 2.x clients send and want where it isn't what 3.x does.

Pure, and the one place that knows. The forms in which jobs are submitted are
accepted from everyone; all else is for those who say a 2.x version in their
request. Methods that aren't in the table are the same in
both.

========================  ==============================  ============================
method                    classic arguments               classic answer
========================  ==============================  ============================
SubmitJob,                the opcodes themselves,         the id as a string
SubmitJobToDrainedQueue   not a list of them
SubmitManyJobs            one level of lists less         ids as strings
WaitForJobChange          ids as strings in the values    the same; "nochange" when the
                          that the client has             time is over; null for a job
                                                          that isn't there
QueryJobs                 (the same)                      ids as strings; null for a
                                                          job that isn't there
QueryExports              (the same)                      {node: [exports] or false}
QueryTags                 null as the cluster's name      (the same)
========================  ==============================  ============================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from ganeti_masterd.constants import JOB_NOTCHANGED
from ganeti_masterd.luxi.messages import LuxiRequest

#: Makes today's form of a request's arguments; what it doesn't understand it leaves alone.
Reshape = Callable[[list[Any]], list[Any]]
#: Makes the dialect's answer of the arguments (today's form) and today's answer.
DialectAnswer = Callable[[Sequence[Any], Any], Any]

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class DialectForm(Struct, frozen=True):
    """How a dialect's form of one method differs.

    ``options`` are keyword arguments for the function that answers it. If
    ``null_if_lost``, the error ``JobLost`` is answered as null.
    """

    arguments: Reshape | None = None
    answer: DialectAnswer | None = None
    options: Mapping[str, Any] = _NO_OPTIONS
    null_if_lost: bool = False


SAME = DialectForm()


class Dialect(Struct, frozen=True):
    """A dialect: its name, and the methods whose form differs."""

    name: str
    forms: Mapping[str, DialectForm]

    def form(self, method: str) -> DialectForm:
        """Returns how the method's form differs; the empty :data:`SAME` if it doesn't."""
        return self.forms.get(method, SAME)


# Arguments


def _one_job(args: list[Any]) -> list[Any]:
    return [args] if args and all(isinstance(arg, dict) for arg in args) else args


def _many_jobs(args: list[Any]) -> list[Any]:
    classic = args and all(
        isinstance(job, list) and job and all(isinstance(op, dict) for op in job) for job in args
    )
    return [args] if classic else args


def _numbered(args: list[Any]) -> list[Any]:
    """The arguments of WaitForJobChange, with numbers for ids in the client's values."""
    if len(args) < 3 or not isinstance(args[1], list) or not isinstance(args[2], list):
        return args
    job, fields, values, *rest = args
    return [job, fields, _at_ids(fields, values, _number), *rest]


def _named(args: list[Any]) -> list[Any]:
    return [args[0], ""] if len(args) == 2 and args[1] is None else args


def _number(value: Any) -> Any:
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20
    return int(value) if digits else value


# Answers


def _at_ids(fields: Sequence[Any], values: Any, change: Callable[[Any], Any]) -> Any:
    """The values of a row, with those of the field ``id`` changed."""
    if "id" not in fields or values is None:
        return values
    row = list(values)
    for place, field in enumerate(fields[: len(row)]):
        if field == "id":
            row[place] = change(row[place])
    return row


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _text_id(args: Sequence[Any], result: int) -> str:
    return str(result)


def _text_ids(args: Sequence[Any], results: Sequence[tuple[bool, Any]]) -> list[tuple[bool, Any]]:
    return [(done, str(result) if done else result) for done, result in results]


def _change(args: Sequence[Any], result: tuple[Any, Any]) -> Any:
    _, fields, previous, *_ = args
    values, entries = result
    # The queue gives back the very values that the client has when the time is over.
    if values is previous and not entries:
        return JOB_NOTCHANGED
    return _at_ids(fields, values, _text), entries


def _rows(args: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    _, fields = args
    return [_at_ids(fields, row, _text) for row in rows]


def _exports(args: Sequence[Any], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {name: [] for name in args[0] or ()}
    for node, export in rows:
        if export is None:
            found[node] = False
        elif found.get(node):
            found[node].append(export)
        else:
            found[node] = [export]
    return found


_JOB = DialectForm(_one_job)
_JOBS = DialectForm(_many_jobs)

#: What 3.x clients speak, and all who say no version.
MODERN = Dialect(
    "3.x",
    {"SubmitJob": _JOB, "SubmitJobToDrainedQueue": _JOB, "SubmitManyJobs": _JOBS},
)

#: What 2.x clients speak.
CLASSIC = Dialect(
    "2.x",
    {
        "SubmitJob": DialectForm(_one_job, _text_id),
        "SubmitJobToDrainedQueue": DialectForm(_one_job, _text_id),
        "SubmitManyJobs": DialectForm(_many_jobs, _text_ids),
        "WaitForJobChange": DialectForm(_numbered, _change, null_if_lost=True),
        "QueryJobs": DialectForm(answer=_rows, options={"null_rows": True}),
        "QueryExports": DialectForm(answer=_exports),
        "QueryTags": DialectForm(_named),
    },
)


def dialect_of(request: LuxiRequest) -> Dialect:
    """Returns the dialect of whoever sent the request."""
    return CLASSIC if request.classic else MODERN
