"""The last steps of a stop, one after the other: :func:`end_in_order`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.logger import Logger

from ganeti_masterd.errors import GenericError

log = Logger()

#: What a part is called in the log, and what ends it: returns a Deferred, or nothing to wait for.
TearDownStep = tuple[str, Callable[[], object]]


@inlineCallbacks
def end_in_order(steps: Sequence[TearDownStep]) -> Generator[Any, Any, list[str]]:
    """Ends each part once the one before has ended; fires with the names of those that failed.

    A part that raises or fails keeps none of the others from their end: a node that can't be
    closed must not keep the journal open. Ganeti's errors are a line in the log, others come
    with their traceback.
    """
    failed: list[str] = []
    for name, end in steps:
        try:
            yield maybeDeferred(end)
        except GenericError as error:
            failed.append(name)
            log.error("{error}", error=error)
        except Exception:
            failed.append(name)
            log.failure("At the stop, {part} could not be ended in order", part=name)
    return failed
