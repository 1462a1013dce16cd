"""The checks before the process detaches, in the order in which they are made.

See protocol/startup.rst, Checks before the start, points 1 to 6.

The checks leave nothing open, because neither a lock nor a database survives a fork. They come
before the fork so that the user sees the whole message: of a later failure twistd passes on only a
hundred bytes and one of two exit codes. The vote and the master's address come after the checks
(:mod:`.agreement`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from ganeti_masterd import safely
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import EXIT_FAILURE, EXIT_NODESETUP_ERROR, EXIT_NOTMASTER
from ganeti_masterd.errors import ConfigurationError, GenericError
from ganeti_masterd.jobs.files import QueueFolder, load
from ganeti_masterd.jobs.takeover import is_locked, living
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.recovery import Identity, check_journal
from ganeti_masterd.startup.accounts import Account, acting_as, find_account
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.locks import patiently, queue_locked, refuse_held
from ganeti_masterd.startup.paths import Paths

#: The exit code of a daemon for wconfd's socket alone while processes of luxid run jobs, by which
#: daemon-util's hook knows that the real wconfd is to be started.
EXIT_LUXIDS_JOBS = 13


class StartRefused(Exception):
    """The daemon must not start; has the exit code, the message and the stream to print it on."""

    def __init__(self, message: str, code: int = EXIT_FAILURE, *, on_stdout: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.on_stdout = on_stdout


class IMachine(Protocol):
    """What the checks need to know about the machine."""

    def uid(self) -> int:
        """Returns the effective user id of this process."""

    def host_name(self) -> str:
        """Returns the full name of this host."""

    def resolves(self, name: str) -> bool:
        """Whether a name has an address."""

    def account(self, user: str | None, group: str | None) -> Account | None:
        """See :func:`ganeti_masterd.startup.accounts.find_account`."""


class Machine:
    """The real machine. ``GANETI_HOSTNAME`` overrides the host name, as for Ganeti's own tools."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def uid(self) -> int:
        """See :meth:`IMachine.uid`."""
        return os.geteuid()

    def host_name(self) -> str:
        """See :meth:`IMachine.host_name`."""
        return self._environment.get("GANETI_HOSTNAME") or socket.getfqdn()

    def resolves(self, name: str) -> bool:
        """See :meth:`IMachine.resolves`."""
        try:
            return bool(socket.getaddrinfo(name, None))
        except (OSError, UnicodeError):
            return False

    def account(self, user: str | None, group: str | None) -> Account | None:
        """See :meth:`IMachine.account`."""
        return find_account(user, group)


class SimulatedMachine(Machine):
    """The machine in a simulation: its name is the master's unless ``GANETI_HOSTNAME`` is set.

    Names of simulated nodes need no address.
    """

    def __init__(self, environment: Mapping[str, str], paths: Paths) -> None:
        super().__init__(environment)
        self._paths = paths

    def host_name(self) -> str:
        """See :meth:`IMachine.host_name`."""
        return self._environment.get("GANETI_HOSTNAME") or named_master(self._paths)

    def resolves(self, name: str) -> bool:
        """See :meth:`IMachine.resolves`."""
        return True


class WantedStart(Struct, frozen=True):
    """What is to be started: on which root, as which account, with which kind of nodes.

    ``user`` and ``group`` are None if the daemon keeps its account.
    """

    paths: Paths
    simulated: bool
    user: str | None = None
    group: str | None = None


class Passed(Struct, frozen=True):
    """The results of the checks: the configuration, and the account to run as."""

    snapshot: Snapshot
    account: Account | None


def check(
    wanted: WantedStart,
    machine: IMachine,
    set_right: Callable[[Paths, Account], None] | None = None,
    *,
    anywhere: bool = False,
) -> Passed:
    """Checks all that needs no other node; raises :class:`StartRefused`.

    Configuration and journal are opened as the account that the daemon will run as, never as
    root. ``set_right`` is called first to give that account its files, if root starts the daemon.
    ``anywhere``: this node need not be the master; then its journal, if any, doesn't matter.
    """
    paths = wanted.paths
    account = wanted_account(wanted, machine)
    try:
        refuse_others(paths, simulated=wanted.simulated)
        master = check_master(paths, machine, anywhere=anywhere)
        check_account(wanted, account)
        if set_right is not None and account is not None and machine.uid() == 0:
            set_right(paths, account)
        with acting_as(account):
            return Passed(_check_files(paths, journal=master), account)
    except OSError as error:
        raise StartRefused(f"The daemon can't work below {paths.data}: {error}") from None
    except GenericError as error:
        raise StartRefused(str(error)) from None


def wanted_account(wanted: WantedStart, machine: IMachine) -> Account | None:
    """Returns the account to run as; None if it doesn't exist, or none is wanted.

    Raises :class:`StartRefused` unless this user may become it.
    """
    if wanted.user is None and wanted.group is None:
        return None
    account = machine.account(wanted.user, wanted.group)
    if account is not None:
        check_may_become(account, machine.uid())
    return account


def check_account(wanted: WantedStart, account: Account | None) -> None:
    """Raises :class:`StartRefused` if an account is wanted and doesn't exist."""
    if account is None and not (wanted.user is None and wanted.group is None):
        raise StartRefused(
            f"The user {wanted.user!r} or the group {wanted.group!r}, as which the daemon is"
            " to run (--user, --group), doesn't exist"
        )


def check_may_become(account: Account, uid: int) -> None:
    """Raises :class:`StartRefused` unless ``uid`` is that account's, or may switch to it."""
    if uid not in (0, account.uid):
        raise StartRefused(
            f"The daemon runs as {account.user} (uid {account.uid}), and uid {uid}, which starts"
            " it, may not become that user"
        )


def refuse_others(paths: Paths, *, simulated: bool) -> None:
    """Raises ``PidFileLockError`` if another master daemon runs: one of ours, or luxid."""
    refuse_held([paths.pid])
    if not simulated:
        refuse_held(paths.peers_pids)
    patiently(lambda: refuse_held([paths.queue_lock]))


def check_master(paths: Paths, machine: IMachine, *, anywhere: bool = False) -> bool:
    """Returns whether ssconf names this node as the master.

    Raises :class:`StartRefused` if ssconf names none, this host's name has no address, or, unless
    ``anywhere``, this node isn't the master.
    """
    master = named_master(paths)
    name = machine.host_name()
    if not name or not machine.resolves(name):
        raise StartRefused(
            f"The name of this host, {name!r}, does not resolve to an address",
            EXIT_NODESETUP_ERROR,
        )
    if name != master and not anywhere:
        raise StartRefused("Not master", EXIT_NOTMASTER, on_stdout=True)
    return name == master


def named_master(paths: Paths) -> str:
    """Returns the master's name from ssconf; raises :class:`StartRefused` if it has none."""
    path = paths.ssconf("master_node")
    try:
        master = safely.read(path).decode("utf-8").strip()
    except UnicodeDecodeError:
        reason = "is no text"
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
    else:
        if master:
            return master
        reason = "names no node"
    raise StartRefused(f"Cluster configuration incomplete: {path} {reason}", EXIT_NODESETUP_ERROR)


def refuse_jobs_of_luxid(paths: Paths) -> None:
    """Raises :class:`StartRefused` with :data:`EXIT_LUXIDS_JOBS` while a job of luxid's runs.

    Such a job ends by the help of the real wconfd only.
    """
    alive = living(load(QueueFolder(paths.queue)).jobs.values(), is_locked)
    if alive:
        raise StartRefused(
            f"Processes of luxid still run jobs: {', '.join(map(str, alive))}; they need Ganeti's"
            " own ganeti-wconfd for their end",
            EXIT_LUXIDS_JOBS,
        )


def _check_files(paths: Paths, *, journal: bool) -> Snapshot:
    """Returns the configuration; the journal, if it is looked at, fits it, or is set aside."""
    if not os.path.isdir(paths.queue):
        raise ConfigurationError(f"{paths.queue}, the folder of the job queue, is missing")
    configuration = read_config(paths)
    if not journal:
        return configuration
    with queue_locked(paths.queue_lock):
        check_journal(
            paths.journal,
            identity=Identity(configuration.cluster.uuid, configuration.master.name),
            files=paths.queue_files,
            disk=RealDisk(),
            now=time.time,
        )
    return configuration
