"""The backups that clients are fetching, each of one moment."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from twisted.logger import Logger

from ganeti_masterd.errors import ECODE_STATE, OpPrereqError
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: Seconds after which a backup that isn't fetched any further is forgotten; how many there may be.
FORGOTTEN_AFTER = 600.0
MOST = 4


class BackupMoment(Struct):
    """What is durable at one moment, and how much of it has been fetched."""

    about: dict[str, Any]
    files: Iterator[tuple[str, bytes]]
    #: Until it is forgotten; None while a piece is fetched.
    timer: Timer | None = None


class BackupDesk:
    """The backups that clients are fetching."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._moments: dict[str, BackupMoment] = {}

    def keep(self, moment: BackupMoment) -> str:
        """Keeps a moment; returns its token. Raises ``OpPrereqError`` if there are too many."""
        if len(self._moments) >= MOST:
            raise OpPrereqError("Too many backups are being made", ECODE_STATE)
        token = secrets.token_hex(16)
        self._moments[token] = moment
        self._wait(token, moment)
        return token

    def take(self, token: str) -> BackupMoment:
        """Begins to fetch from a moment, until :meth:`put_back` or :meth:`drop`.

        Raises ``OpPrereqError`` for an unknown token, and for one of which a piece is fetched.
        """
        moment = self._moments.get(token)
        if moment is None:
            raise OpPrereqError("There is no such backup (any more)", ECODE_STATE)
        if moment.timer is None:
            raise OpPrereqError("A piece of this backup is being fetched", ECODE_STATE)
        moment.timer.cancel()
        moment.timer = None
        return moment

    def put_back(self, token: str) -> None:
        """Ends a fetch after which there is more to fetch."""
        self._wait(token, self._moments[token])

    def drop(self, token: str) -> None:
        """Forgets a moment: all is fetched, or it can't be."""
        del self._moments[token]

    def _wait(self, token: str, moment: BackupMoment) -> None:
        moment.timer = self._timers.later(FORGOTTEN_AFTER, self._forget, token)

    def _forget(self, token: str) -> None:
        if self._moments.pop(token, None) is not None:
            log.warn("A backup was not fetched to its end, and is forgotten")
