"""Makes the checks of a start without starting (``--check-only``); changes nothing below the root.

Meant for the moment before a take-over, so running daemons are reported as notes, not as refusals.
The journal is checked on a copy, because SQLite writes files beside a database even to read it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator

from msgspec import Struct

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import ConfigurationError, GenericError, PidFileLockError
from ganeti_masterd.jobs import files as job_files
from ganeti_masterd.jobs.takeover import is_locked, living
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.faults import JournalError, JournalSetAside
from ganeti_masterd.journal.recovery import Identity, check_journal
from ganeti_masterd.startup.checks import (
    IMachine,
    Passed,
    StartRefused,
    WantedStart,
    check_account,
    check_master,
    wanted_account,
)
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.locks import patiently, refuse_held
from ganeti_masterd.startup.paths import Paths

#: How often reading the queue is tried while jobs are being archived.
_TRIES = 10


class Rehearsed(Struct, frozen=True):
    """The results of the checks, and notes on what must be done before a start succeeds.

    ``own`` is whether a daemon of this project runs there.
    """

    passed: Passed
    notes: list[str]
    own: bool


def rehearse(wanted: WantedStart, machine: IMachine) -> Rehearsed:
    """Makes the checks of :func:`.checks.check`, and checks the jobs; locks and changes nothing.

    Raises :class:`.checks.StartRefused` as a start would.
    """
    paths = wanted.paths
    account = wanted_account(wanted, machine)
    own = _held(paths.pid)
    notes = [] if own is None else [f"This daemon runs already: {own}; its journal is not checked"]
    peers = [] if wanted.simulated else list(filter(None, map(_held, paths.peers_pids)))
    notes += [f"To be stopped before the start: {held}" for held in peers]
    try:
        if not notes:
            queue = _held(paths.queue_lock, patient=True)
            if queue is not None:
                notes.append(f"The job queue is another daemon's: {queue}")
        check_master(paths, machine)
        check_account(wanted, account)
        if not os.path.isdir(paths.queue):
            raise ConfigurationError(f"{paths.queue}, the folder of the job queue, is missing")
        snapshot = read_config(paths)
        notes += [f"The configuration has a fault: {fault}" for fault in verify(snapshot)]
        if own is None:
            _check_journal_copy(paths, snapshot)
            notes += _look_at_jobs(paths, luxid=bool(peers))
    except OSError as error:
        raise StartRefused(f"The daemon can't work below {paths.data}: {error}") from None
    except GenericError as error:
        raise StartRefused(str(error)) from None
    return Rehearsed(Passed(snapshot, account), notes, own is not None)


@contextlib.contextmanager
def copied_simulation(paths: Paths) -> Iterator[Paths]:
    """Yields a temporary root with a copy of the simulated nodes, which write when they answer."""
    with tempfile.TemporaryDirectory(prefix="gnt-masterd-") as root:
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(f"{paths.root}/simulation", f"{root}/simulation", ignore=_not_files)
        copy = Paths(root)
        os.makedirs(copy.data)
        # A file that a node was not sent yet is as on the master.
        for path in glob.glob(glob.escape(paths.ssconf("")) + "*"):
            shutil.copy(path, copy.data, follow_symlinks=False)
        yield copy


def _not_files(folder: str, names: list[str]) -> set[str]:
    """Returns the names that can't be copied, such as a socket left by a killed daemon."""
    return {
        name
        for name in names
        if not stat.S_ISREG(mode := os.lstat(os.path.join(folder, name)).st_mode)
        and not stat.S_ISDIR(mode)
    }


def _held(path: str, *, patient: bool = False) -> str | None:
    try:
        if patient:
            patiently(lambda: refuse_held([path]))
        else:
            refuse_held([path])
    except PidFileLockError as error:
        return str(error)
    return None


def _check_journal_copy(paths: Paths, snapshot: Snapshot) -> None:
    folder, name = os.path.split(paths.journal)
    with tempfile.TemporaryDirectory(prefix="gnt-masterd-") as copy:
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(folder, copy, ignore=_not_files, dirs_exist_ok=True)
        try:
            check_journal(
                f"{copy}/{name}",
                identity=Identity(snapshot.cluster.uuid, snapshot.master.name),
                files=paths.queue_files,
                disk=RealDisk(),
                now=time.time,
            )
        except JournalError as error:
            text = str(error).replace(copy, folder)
            if isinstance(error, JournalSetAside):
                aside = os.path.basename(error.path)
                if not os.path.exists(f"{folder}/{aside}"):
                    text = f"A start would set the journal {paths.journal} aside: {error.reason}"
            raise StartRefused(text) from None


def _load_jobs(folder: job_files.QueueFolder) -> job_files.LoadedJobs:
    """Reads all job files, again if one is archived meanwhile: luxid may be running."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return job_files.load(folder)
    return job_files.load(folder)


def _look_at_jobs(paths: Paths, *, luxid: bool) -> list[str]:
    """Returns notes about jobs; raises if luxid has stopped and one of its jobs still runs."""
    loaded = _load_jobs(job_files.QueueFolder(paths.queue))
    notes = [f"Job {job_id} can't be read, and would be set aside" for job_id in loaded.corrupt]
    alive = ", ".join(map(str, living(loaded.jobs.values(), is_locked)))
    if alive and not luxid:
        raise StartRefused(f"Processes of luxid still run jobs: {alive}")
    if alive:
        notes.append(f"To end before the start: {alive}")
    return notes
