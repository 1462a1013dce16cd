"""wconfd's lock on the whole configuration, for tools that change it themselves.

While a client holds it, the daemon's own changes wait (:meth:`ConfigStore.hold
<ganeti_masterd.config.store.ConfigStore.hold>`), so that the document that the client writes back
is the one that it read. That is bounded in time: a client that has died loses the lock, and so does
one that lives once a change has waited for :data:`PATIENCE`.

As with real wconfd, a client keeps a file in the folder ``livelocks`` locked while it lives.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.errors import DaemonStopping, GenericError
from ganeti_masterd.jobs.takeover import is_locked
from ganeti_masterd.locking.levels import LockMode
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: The lock's name where locks are listed.
CONFIG_LOCK = "cluster/config"

#: Seconds that changes of the daemon's own wait for a client that holds the lock.
PATIENCE = 30.0

#: Seconds between two looks at whether those who hold the lock live.
LOOK = 5.0


class WconfdClient(Struct, frozen=True):
    """The holder of locks in wconfd's form: ``[who, lock file, pid]``.

    ``who`` is a job id, or a tool's name for itself. The process ``pid`` keeps the lock file locked
    while it lives.
    """

    who: int | str
    lock_file: str
    pid: int

    @property
    def sent(self) -> list[int | str]:
        """The client as it is sent in JSON."""
        return [self.who, self.lock_file, self.pid]

    def __str__(self) -> str:
        return f"{self.who} (process {self.pid})"


class LiveLocks:
    """Whether clients live, by the lock files in ``folder``."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, client: WconfdClient) -> bool:
        """Whether a client's lock file is in the folder and locked by a process."""
        folder, name = os.path.split(client.lock_file)
        if folder != self._folder or name in ("", ".", ".."):
            return False
        try:
            return is_locked(client.lock_file)
        except PermissionError:
            # A file that this user may not read is root's; its process tells as much.
            return _runs(client.pid)
        except OSError:
            return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


class ConfigLockState(Struct, frozen=True):
    """The lock as monitors see it: who holds it, and how many changes wait for them.

    ``since`` is when the first of the holders got it, in seconds since the epoch.
    """

    holders: list[str]
    since: float
    changes_waiting: int


class ConfigLock:
    """The lock on the configuration. Reactor thread only.

    ``lives`` says whether a client still lives.
    """

    def __init__(
        self, store: ConfigStore, timers: Timers, lives: Callable[[WconfdClient], bool]
    ) -> None:
        self._store = store
        self._timers = timers
        self._lives = lives
        self._holders: dict[WconfdClient, LockMode] = {}
        self._since = 0.0
        #: Clients from whom the lock was taken back, until they ask for it or give it up.
        self._deprived: set[WconfdClient] = set()
        #: Clients whose change under the lock was made, until they ask for the lock again.
        self._written: set[WconfdClient] = set()
        #: Whether the configuration is about to be held, or a change is being made under the lock.
        self._busy = False
        self._closed = False
        self._looking: Timer | None = None
        self._patience: Timer | None = None

    @property
    def holders(self) -> list[tuple[WconfdClient, LockMode]]:
        """Those who hold the lock, in the order in which they got it."""
        return list(self._holders.items())

    @property
    def state(self) -> ConfigLockState | None:
        """The lock as monitors see it; None if nobody holds it."""
        if not self._holders:
            return None
        names = [str(client) for client in self._holders]
        return ConfigLockState(names, self._since, self._store.changes_waiting)

    def acquire(self, client: WconfdClient, mode: LockMode) -> bool | Deferred[bool]:
        """Takes the lock unless others have it; answers whether the client has it then.

        It is granted once all changes begun before are published. Who has it already keeps it; who
        alone shares it may have it exclusively. Raises ``DaemonStopping``.
        """
        if self._closed:
            raise DaemonStopping("The master daemon stops")
        self.clean_up()
        if self._busy:
            return False
        self._deprived.discard(client)
        self._written.discard(client)
        held = self._holders.get(client)
        if held is LockMode.EXCLUSIVE or held is mode:
            return True
        others = {each for one, each in self._holders.items() if one != client}
        if others and (mode is LockMode.EXCLUSIVE or LockMode.EXCLUSIVE in others):
            return False
        if self._holders:
            self._holders[client] = mode
            return True
        return self._hold().addCallback(lambda _: self._grant(client, mode))

    def release(self, client: WconfdClient) -> None:
        """Gives a client's lock up; nothing happens if it has none."""
        self._deprived.discard(client)
        if self._holders.pop(client, None) is not None and not self._holders:
            self._free()

    def owned(self, client: WconfdClient) -> bool:
        """Whether a client holds the lock exclusively; false for one whose change was made.

        Raises ``GenericError`` if the client shares it, or if it doesn't have it: it may have lost
        it, also with a restart of this daemon. Ganeti's clients take false for success.
        """
        if client in self._deprived:
            raise GenericError(
                f"The lock on the configuration was taken from {client}, as others waited for"
                f" {PATIENCE:.0f} s to change it: nothing is written; read it again"
            )
        mode = self._holders.get(client)
        if mode is LockMode.SHARED:
            raise GenericError("Requested lock OwnExclusive on the configuration missing")
        if mode is None and client not in self._written:
            raise GenericError(
                f"The configuration is not locked by {client}: nothing is written; lock it and"
                " read it again"
            )
        return mode is not None

    def begin(self) -> Deferred[None] | None:
        """Begins a change under the lock, for no client in particular; None if anybody has it.

        Fires when nothing else changes any more. :meth:`end` follows.
        """
        self.clean_up()
        if self._holders or self._busy or self._closed:
            return None
        return self._hold()

    def begin_as(self, client: WconfdClient) -> None:
        """Begins a change by the client that :attr:`owned` the lock; :meth:`end` follows."""
        self._busy = True
        del self._holders[client]

    def end(self, written: WconfdClient | None = None) -> None:
        """Ends a change: the lock is free, and changes that waited are made.

        ``written`` is the client whose change was made, None for none.
        """
        if written is not None:
            self._written.add(written)
        self._free()

    def clean_up(self) -> None:
        """Frees what dead clients hold."""
        for client in [one for one in self._holders if not self._lives(one)]:
            log.warn(
                "{client} has died and left the configuration locked: it is free again",
                client=str(client),
            )
            self.release(client)
        self._deprived = set(filter(self._lives, self._deprived))
        self._written = set(filter(self._lives, self._written))

    def close(self) -> None:
        """Takes the lock from everybody, for good: the daemon stops."""
        self._closed = True
        if self._holders:
            self._holders.clear()
            self._free()

    def _hold(self) -> Deferred[None]:
        self._busy = True
        return self._store.hold(self._change_waits)

    def _grant(self, client: WconfdClient, mode: LockMode) -> bool:
        if self._closed:
            self._free()
            raise DaemonStopping("The master daemon stops")
        self._busy = False
        self._holders[client] = mode
        self._since = self._timers.now()
        self._looking = self._timers.every(LOOK, self.clean_up)
        if self._store.changes_waiting:
            self._change_waits()
        return True

    def _free(self) -> None:
        self._busy = False
        for timer in (self._looking, self._patience):
            if timer is not None:
                timer.cancel()
        self._looking = self._patience = None
        self._store.let_go()

    def _change_waits(self) -> None:
        if self._patience is None and self._holders:
            self._patience = self._timers.later(PATIENCE, self._deprive)

    def _deprive(self) -> None:
        self._patience = None
        if not self._holders or not self._store.changes_waiting:
            return
        log.warn(
            "The configuration was locked by {holders} while {count} changes waited for it: "
            "the lock is taken back",
            holders=", ".join(map(str, self._holders)),
            count=self._store.changes_waiting,
        )
        self._deprived.update(self._holders)
        self._holders.clear()
        self._free()
