"""Allocators that are installed: how one is run on the master, and reading what it says.

A script gets the document as a file and writes one JSON object: ``success``,
``info`` (a sentence) and ``result``. Old ones call the result ``nodes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.rpc.interfaces import NodeResult

#: noded's words for a script that isn't there (3.0.2).
_MISSING = "not found in the search path"


class AllocatorMissing(OpExecError):
    """There is no such allocator on the master. Travels as ``OpExecError``."""


class AllocatorAnswer(msgspec.Struct, frozen=True):
    """What an allocator says: whether it found what was asked for, a sentence, the result."""

    success: bool
    info: str
    result: Any


def document_text(document: Mapping[str, Any]) -> str:
    """Returns a document as a script reads it."""
    return msgspec.json.encode(document).decode()


def arguments(
    name: str,
    document: Mapping[str, Any],
    defaults: Mapping[str, Any],
    options: Mapping[str, str | None],
) -> tuple[str, str, dict[str, Any]]:
    """Returns the arguments of ``iallocator_runner``; ``options`` go before the cluster's."""
    return name, document_text(document), {**defaults, **options}


def output(name: str, answer: NodeResult[str]) -> str:
    """Returns what a script wrote.

    Raises :class:`AllocatorMissing`, and ``OpExecError`` if it could not be run or failed.
    """
    if answer.error is not None and answer.error.endswith(_MISSING):
        raise AllocatorMissing(f"The iallocator '{name}' is not installed on node {answer.node}")
    return answer.require("Failure while running the iallocator script")


def read_answer(text: str) -> AllocatorAnswer:
    """Returns what an allocator says; raises ``OpExecError`` if that can't be understood."""
    try:
        found = decode_json(text, dict[str, Any])
        if "result" not in found and "nodes" in found:
            found["result"] = found.pop("nodes")
        return msgspec.convert(found, AllocatorAnswer)
    except (msgspec.MsgspecError, TypeError) as error:
        raise OpExecError(f"Can't parse iallocator results: {error}")
