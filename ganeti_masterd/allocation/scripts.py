"""Installed allocator scripts: how one is run on the master, and reading its output.

A script is given the document as a file and writes one JSON object with ``success``,
``info`` (a sentence) and ``result``, which old scripts call ``nodes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.rpc.interfaces import NodeResult

#: Part of noded's message if a script doesn't exist (3.0.2).
_MISSING = "not found in the search path"


class AllocatorMissing(OpExecError):
    """There is no such allocator on the master. Clients see it as ``OpExecError``."""


class AllocatorAnswer(msgspec.Struct, frozen=True):
    """An allocator's answer: whether it succeeded, a sentence about it, and the result."""

    success: bool
    info: str
    result: Any
    #: What the user should know; scripts have no such thing.
    warnings: list[str] = []


def document_text(document: Mapping[str, Any]) -> str:
    """Returns a document in the text form that scripts read."""
    return msgspec.json.encode(document).decode()


def arguments(
    name: str,
    document: Mapping[str, Any],
    defaults: Mapping[str, Any],
    options: Mapping[str, str | None],
) -> tuple[str, str, dict[str, Any]]:
    """Returns the arguments of the node call ``iallocator_runner``.

    ``defaults`` are the cluster's options; ``options`` take precedence over them.
    """
    return name, document_text(document), {**defaults, **options}


def output(name: str, answer: NodeResult[str]) -> str:
    """Returns a script's output.

    Raises :class:`AllocatorMissing`, and ``OpExecError`` if it could not be run or failed.
    """
    if answer.error is not None and answer.error.endswith(_MISSING):
        raise AllocatorMissing(f"The iallocator '{name}' is not installed on node {answer.node}")
    return answer.require("Failure while running the iallocator script")


def read_answer(text: str) -> AllocatorAnswer:
    """Returns a script's answer; raises ``OpExecError`` if it can't be parsed."""
    try:
        found = decode_json(text, dict[str, Any])
        if "result" not in found and "nodes" in found:
            found["result"] = found.pop("nodes")
        return msgspec.convert(found, AllocatorAnswer)
    except (msgspec.MsgspecError, TypeError) as error:
        raise OpExecError(f"Can't parse iallocator results: {error}")
