"""The last steps of a stop, one after the other: :func:`end_in_order`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.logger import Logger

from ganeti_masterd.errors import GenericError

log = Logger()

#: A part's name in the log, and the function that ends it: returns a Deferred, or None.
TearDownStep = tuple[str, Callable[[], object]]


@inlineCallbacks
def end_in_order(steps: Sequence[TearDownStep]) -> Generator[Any, Any, list[str]]:
    """Ends each part once the one before has ended; fires with the names of those that failed.

    If a part raises or fails, the others are still ended: a door to the nodes that can't be closed
    must not keep the journal open. Ganeti's errors are logged as one line, others with their
    traceback.
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
