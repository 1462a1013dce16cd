"""Putting the files of a queue in order while no master daemon is running. Blocking."""

from __future__ import annotations

import time

from msgspec import Struct

from ganeti_masterd.config.document import apply_rows
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.handback import HandedBack, hand_back
from ganeti_masterd.jobs.model import decode_job_of, merge_log
from ganeti_masterd.jobs.takeover import is_locked
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.faults import JournalSetAside
from ganeti_masterd.journal.recovery import Identity, recover
from ganeti_masterd.journal.setaside import Resolved, SetAsideDecision, resolve
from ganeti_masterd.startup.accounts import acting_as
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.locks import queue_locked
from ganeti_masterd.startup.ownership import queue_owner
from ganeti_masterd.startup.paths import Paths


class PutInOrder(Struct, frozen=True):
    """What was done.

    ``replayed`` is how many rows of the journal were written to the files, ``dropped`` the
    path of a journal that is kept but not read again, ``lost`` what of a damaged one could not
    be written, and ``jobs`` are the jobs that were changed.
    """

    replayed: int
    dropped: str | None
    lost: list[str]
    jobs: HandedBack


def put_in_order(paths: Paths, keep: SetAsideDecision | None) -> PutInOrder:
    """Writes the journal to the files, and leaves only queued and finished jobs there.

    ``keep`` says which to keep if a journal that was set aside and the files
    contradict each other. Raises ``JournalSetAside`` if that has to be decided but
    ``keep`` is None, ``PidFileLockError`` if a master daemon is running, other classes of
    Ganeti's errors for files that make no sense, and ``OSError``.
    """
    owner = queue_owner(paths)
    disk = RealDisk(owner.groups)
    # As the owner, so that the daemon can use what is made here, and links lead root nowhere.
    with (
        acting_as(owner.account, owner.groups.values()),
        queue_locked(paths.queue_lock),  # a running master daemon holds it
    ):
        replayed, resolved = _journal_into_files(paths, keep, disk)
        done = hand_back(QueueFolder(paths.queue), disk, time.time(), is_locked)
    if resolved is None:
        return PutInOrder(replayed, None, [], done)
    return PutInOrder(replayed, resolved.kept, resolved.lost, done)


def _journal_into_files(
    paths: Paths, keep: SetAsideDecision | None, disk: RealDisk
) -> tuple[int, Resolved | None]:
    """Empties the journal; returns how many rows it had, and what became of one set aside."""
    files = paths.queue_files
    resolved: Resolved | None = None
    while True:
        before = read_config(paths)
        try:
            recovered = recover(
                paths.journal,
                identity=Identity(before.cluster.uuid, before.master.name),
                files=files,
                disk=disk,
                merge_log=merge_log,
                check_job=decode_job_of,
                merge_config=apply_rows,
                now=time.time,
            )
        except JournalSetAside as error:
            if keep is None:
                raise
            resolved = resolve(
                error.path,
                keep,
                disk=disk,
                files=files,
                merge_log=merge_log,
                check_job=decode_job_of,
                merge_config=apply_rows,
            )
        else:
            recovered.store.close()
            return recovered.replayed, resolved
