"""What is said to an allocator script and what it says back (iallocator, version 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ganeti_masterd.errors import ECODE_NORES, OpExecError, OpPrereqError
from ganeti_masterd.rpc.interfaces import NodeResult


class AllocatorAnswer(msgspec.Struct, frozen=True):
    """A script's answer: whether it found a place, a sentence, and the place."""

    success: bool
    info: str
    result: Any = None


def request_text(request: Mapping[str, Any]) -> str:
    """Returns the request as the script reads it."""
    return msgspec.json.encode(request).decode()


def read_answer(name: str, answer: NodeResult) -> Any:
    """Returns the allocator's result; raises if it found none or can't be understood."""
    text = answer.require(f"Can't run the allocator {name}")
    try:
        parsed = msgspec.json.decode(text, type=AllocatorAnswer)
    except (msgspec.MsgspecError, TypeError) as error:
        raise OpExecError(f"The allocator {name} gave an answer that makes no sense: {error}")
    if not parsed.success:
        raise OpPrereqError(f"The allocator {name} found no place: {parsed.info}", ECODE_NORES)
    return parsed.result
