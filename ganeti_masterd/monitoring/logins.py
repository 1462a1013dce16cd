"""Passwords of requests: checked away from the reactor, and only so many of them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum

from twisted.internet.defer import Deferred

from ganeti_masterd.monitoring.passwords import NOBODY, StoredPassword

#: Passwords that are checked or wait for that, at most.
MAX_CHECKS = 8
#: Wrong passwords that one host may try within so many seconds, and hosts that are remembered.
MAX_WRONG, WITHIN, MAX_HOSTS = 10, 60.0, 1000
#: The longest password, in bytes.
_LONGEST = 1024


class Login(Enum):
    """What comes of a request's password."""

    GOOD = "good"
    #: Missing or wrong.
    REFUSED = "refused"
    #: Too many wrong ones came from that host.
    TOO_MANY = "too many"
    #: Too many are being checked.
    BUSY = "busy"


class Logins:
    """Checks passwords against those of ``users``.

    ``check`` runs a function in a thread; ``seconds`` is a clock. A password that was right is
    known again without another check, as long as this runs: by a digest with a random key.
    """

    def __init__(
        self,
        users: Mapping[str, StoredPassword],
        check: Callable[[Callable[[], bool]], Deferred[bool]],
        seconds: Callable[[], float],
    ) -> None:
        self._users = users
        self._check = check
        self._seconds = seconds
        self._key = os.urandom(32)
        self._known: dict[str, bytes] = {}
        self._checks = 0
        #: When wrong passwords came, by host; the host that has been quiet the longest first.
        self._wrong: dict[str, deque[float]] = {}

    def login(self, header: str | None, host: str) -> Login | Deferred[Login]:
        """Judges the header Authorization of a request from a host; None if it has none."""
        given = None if header is None else basic(header)
        if given is None:
            return Login.REFUSED
        name, password = given
        digest = hashlib.blake2b(password, key=self._key).digest()
        if hmac.compare_digest(self._known.get(name, b""), digest):
            return Login.GOOD
        now = self._seconds()
        if self._tries(host, now) >= MAX_WRONG:
            return Login.TOO_MANY
        if self._checks >= MAX_CHECKS:
            return Login.BUSY
        stored = self._users.get(name)
        asked = NOBODY if stored is None else stored
        # It counts as wrong until it is known to be right: else many could be tried at once.
        self._note(host, now)
        self._checks += 1

        def checked(matches: bool) -> Login:
            if not matches or stored is None:
                return Login.REFUSED
            self._forget(host, now)
            self._known[name] = digest
            return Login.GOOD

        return (
            self._check(lambda: asked.matches(password)).addBoth(self._ended).addCallback(checked)
        )

    def _ended(self, result: bool) -> bool:
        self._checks -= 1
        return result

    def _tries(self, host: str, now: float) -> int:
        times = self._wrong.get(host)
        if times is None:
            return 0
        while times and times[0] <= now - WITHIN:
            times.popleft()
        if not times:
            del self._wrong[host]
        return len(times)

    def _note(self, host: str, now: float) -> None:
        times = self._wrong.pop(host, deque())
        times.append(now)
        self._wrong[host] = times
        if len(self._wrong) > MAX_HOSTS:
            del self._wrong[next(iter(self._wrong))]

    def _forget(self, host: str, at: float) -> None:
        times = self._wrong.get(host)
        if times is not None and at in times:
            times.remove(at)


def basic(header: str) -> tuple[str, bytes] | None:
    """Returns name and password of a header in the Basic scheme (RFC 7617), None for any other."""
    scheme, _, encoded = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        data = base64.b64decode(encoded.strip(), validate=True)
        name, colon, password = data.partition(b":")
        return (name.decode("utf-8"), password) if colon and len(password) <= _LONGEST else None
    except (binascii.Error, ValueError):
        return None
