"""The checks of a start without the start (``--check-only``): below the root nothing changes.

Meant for the moment before a take-over, so daemons that live are noted, not refused.
The journal is checked on a copy: to open a database, even to read it, is to write beside it.
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

#: How often the queue is read while jobs vanish from it.
_TRIES = 10


class Rehearsed(Struct, frozen=True):
    """What was found: as of a start, and what stands in its way only for now.

    ``own`` tells that a daemon of this kind runs there.
    """

    passed: Passed
    notes: list[str]
    own: bool


def rehearse(wanted: WantedStart, machine: IMachine) -> Rehearsed:
    """Checks what :func:`.checks.check` does, and the jobs; changes nothing, takes no lock.

    Raises :class:`.checks.Refused` as a start would.
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
    """Gives a root elsewhere with a copy of the simulated nodes, which write as they answer."""
    with tempfile.TemporaryDirectory(prefix="gnt-masterd-") as root:
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(f"{paths.root}/simulation", f"{root}/simulation", ignore=_not_files)
        copy = Paths(root)
        os.makedirs(copy.data)
        # What a node was not sent yet, it has as the master has it.
        for path in glob.glob(glob.escape(paths.ssconf("")) + "*"):
            shutil.copy(path, copy.data)
        yield copy


def _not_files(folder: str, names: list[str]) -> set[str]:
    """Names what can't be copied, such as the socket that a killed daemon left."""
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
            shutil.copytree(folder, copy, dirs_exist_ok=True)
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
    """Reads all job files again if one is archived meanwhile: the queue may be luxid's."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return job_files.load(folder)
    return job_files.load(folder)


def _look_at_jobs(paths: Paths, *, luxid: bool) -> list[str]:
    """Returns what is worth a note about jobs; raises where luxid has gone and one of its runs."""
    loaded = _load_jobs(job_files.QueueFolder(paths.queue))
    notes = [f"Job {job_id} can't be read, and would be set aside" for job_id in loaded.corrupt]
    alive = ", ".join(map(str, living(loaded.jobs.values(), is_locked)))
    if alive and not luxid:
        raise StartRefused(f"Processes of luxid still run jobs: {alive}")
    if alive:
        notes.append(f"To end before the start: {alive}")
    return notes
