"""Reads the files of the node that becomes master, and writes those with which it continues.

Blocking; the queue's lock must be held. Root does all of this as the account that owns the queue's
folder, so what is written belongs to that account, in the groups of what stands there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ganeti_masterd.config.document import apply_rows, encode
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ConfigurationError, PidFileLockError
from ganeti_masterd.failover.holdings import OwnFiles
from ganeti_masterd.failover.newest import Newest
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import decode_job_of, merge_log
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.examination import examine
from ganeti_masterd.journal.faults import JournalSetAside
from ganeti_masterd.journal.files import replace_file
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import ARCHIVE_DIRECTORY_PERMS, encode_serial, parse_serial
from ganeti_masterd.journal.setaside import resolve, set_aside, set_damaged_aside, standing
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.startup.accounts import acting_as
from ganeti_masterd.startup.checks import StartRefused
from ganeti_masterd.startup.locks import queue_locked
from ganeti_masterd.startup.ownership import queue_owner
from ganeti_masterd.startup.paths import Paths


@contextmanager
def queue_held(paths: Paths) -> Iterator[None]:
    """Within the body no master daemon, and no call to noded, can change this node's queue.

    Raises :class:`StartRefused` while another process holds it.
    """
    with ExitStack() as held:
        try:
            with _as_owner(paths):
                held.enter_context(queue_locked(paths.queue_lock))
        except PidFileLockError as error:
            raise StartRefused(f"{error}; stop the master daemon on this node first") from None
        yield


@contextmanager
def _as_owner(paths: Paths) -> Iterator[RealDisk]:
    """Within the body root is the queue's owner; yields the disk with the groups of its files."""
    owner = queue_owner(paths)
    with acting_as(owner.account, owner.groups.values()):
        yield RealDisk(owner.groups)


def read_own(paths: Paths) -> OwnFiles:
    """Reads what this node holds; raises ``ConfigurationError`` without a config.data."""
    with _as_owner(paths) as disk:
        return _read_own(paths, disk)


def _read_own(paths: Paths, disk: IDisk) -> OwnFiles:
    config = disk.read(paths.config)
    if config is None:
        raise ConfigurationError(f"{paths.config} is missing")
    folder = QueueFolder(paths.queue)
    jobs = {}
    for job_id in folder.live_ids():
        body = disk.read(folder.job(job_id))
        if body is not None:
            jobs[job_id] = body
    return OwnFiles(config, parse_serial(disk.read(folder.serial)) or 0, jobs)


def archived_here(paths: Paths) -> Callable[[int], bool]:
    """Returns what says whether a job is in this node's archive."""
    files = paths.queue_files
    return lambda job_id: os.path.exists(files.archived_job(job_id))


def forget_journal(paths: Paths, old: str, now: float) -> list[str]:
    """Renames a journal that this node has left from a time when it was the master.

    What it holds never reached the later master, whose files this node now has. Returns the new
    names of such journals. An empty journal stays in place.
    """
    with _as_owner(paths) as disk:
        return _forget_journal(paths, old, now, disk)


def _forget_journal(paths: Paths, old: str, now: float, disk: IDisk) -> list[str]:
    files = paths.queue_files
    kept: list[str] = []

    def drop(aside: JournalSetAside) -> None:
        resolved = resolve(
            aside.path,
            "files",
            disk=disk,
            files=files,
            merge_log=merge_log,
            check_job=decode_job_of,
            merge_config=apply_rows,
        )
        assert resolved.kept is not None
        kept.append(resolved.kept)

    while (waiting := standing(paths.journal, disk)) is not None:
        drop(waiting)
    examined = examine(paths.journal)
    if examined.losses:
        drop(set_damaged_aside(paths.journal, examined, disk, now))
    elif examined.entries:
        reason = f"{old} was the master after it was written"
        drop(set_aside(SQLiteStore(paths.journal), disk, reason, now))
    return kept


def adopt(paths: Paths, own: OwnFiles, newest: Newest, snapshot: Snapshot) -> None:
    """Writes the newer files of other nodes, and last the configuration; can be repeated.

    ``snapshot`` is the configuration with this node as master.
    """
    with _as_owner(paths) as disk:
        _adopt(paths, own, newest, snapshot, disk)


def _adopt(paths: Paths, own: OwnFiles, newest: Newest, snapshot: Snapshot, disk: IDisk) -> None:
    files = paths.queue_files
    if newest.serial > own.serial:
        replace_file(disk, files.serial, encode_serial(newest.serial))
    for job_id, body in newest.jobs.items():
        replace_file(disk, files.job(job_id), body)
    for job_id, body in newest.archived.items():
        for folder in (files.archive, files.archive_directory(job_id)):
            if not os.path.isdir(folder):
                disk.make_directory(folder, ARCHIVE_DIRECTORY_PERMS)
                disk.sync_directory(os.path.dirname(folder))
        replace_file(disk, files.archived_job(job_id), body)
        disk.sync_directory(files.archive_directory(job_id))
        disk.unlink(files.job(job_id))
    disk.sync_directory(paths.queue)
    replace_file(disk, paths.config, encode(snapshot))
    disk.sync_directory(files.config_directory)
