"""Owner, group and mode of every file.

See protocol/startup.rst, Files and their owners; as real ensure-dirs 3.0.2 sets them.

On a real root a daemon that is started by root creates missing folders (the run folder is empty
after each boot) and corrects the owners of files that luxid and others left, before it drops root's
privileges. Files written later get their mode from the code that writes them, and their group from
:func:`groups_of`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from ganeti_masterd import safely
from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS
from ganeti_masterd.journal.layout import (
    FLAG_MODE,
    PRIVATE_JOB_PERMS,
    job_file_mode,
    job_number,
)
from ganeti_masterd.startup.accounts import (
    OWN_GROUP,
    READERS_GROUP,
    Account,
    account_of,
    group_id,
    may_give_to,
)
from ganeti_masterd.startup.paths import Paths


class OwnedPlace(Struct, frozen=True):
    """A file or folder with the mode and the group that it should have."""

    path: str
    mode: int
    gid: int


def folders_of(paths: Paths, account: Account) -> list[OwnedPlace]:
    """Returns the folders that the daemon needs, parents before children."""
    own = _group(OWN_GROUP, account)
    ours = (paths.data, os.path.dirname(paths.log))
    return [
        OwnedPlace(path, mode, own if path in ours else account.gid) for path, mode in paths.folders
    ]


def files_of(paths: Paths, account: Account) -> Iterator[OwnedPlace]:
    """Yields the files that the daemon reads and writes, including those that may not exist."""
    own = _group(OWN_GROUP, account)
    yield OwnedPlace(paths.config, 0o640, _group(READERS_GROUP, account))
    yield OwnedPlace(paths.server_certificate, 0o440, own)
    yield OwnedPlace(paths.client_certificate, 0o440, own)
    yield OwnedPlace(paths.watcher_pause, 0o644, own)
    yield OwnedPlace(paths.pid, 0o644, account.gid)
    yield OwnedPlace(paths.log, 0o600, own)
    files = paths.queue_files
    for path in (files.lock, files.serial, files.version):
        yield OwnedPlace(path, JOB_QUEUE_FILES_PERMS, account.gid)
    yield OwnedPlace(files.drain, FLAG_MODE, account.gid)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(paths.queue):
            if job_number(name) is not None:
                yield OwnedPlace(f"{paths.queue}/{name}", JOB_QUEUE_FILES_PERMS, account.gid)


def set_right(paths: Paths, account: Account) -> None:
    """Creates missing folders and sets every file's owner, group and mode. Must run as root.

    No link is followed that another account made or could make. A name in the run folder that is
    no file of its own is left for the daemon, which replaces it. Raises ``OSError``.
    """
    for place in folders_of(paths, account):
        folder = safely.open_folder(place.path, make=True)
        try:
            safely.give(folder, place.path, account.uid, place.gid, place.mode)
        finally:
            os.close(folder)
    for place in files_of(paths, account):
        try:
            file = safely.open_file(place.path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except OSError:
            if place.path != paths.pid:
                raise
            continue
        try:
            mode = place.mode
            if stat.S_IMODE(os.fstat(file).st_mode) == PRIVATE_JOB_PERMS and _is_job(place.path):
                mode = job_file_mode(_content(file))
            safely.give(file, place.path, account.uid, place.gid, mode)
        except safely.UnsafePath:
            if place.path != paths.pid:
                raise
        finally:
            os.close(file)


def _is_job(path: str) -> bool:
    return job_number(os.path.basename(path)) is not None


def _content(descriptor: int) -> bytes:
    with open(os.dup(descriptor), "rb") as file:
        return file.read()


class QueueOwner(Struct, frozen=True):
    """The account that the queue's folder belongs to, and the groups of what is written anew.

    ``groups`` are gids by path, for :class:`.journal.disk.RealDisk`.
    """

    account: Account
    groups: dict[str, int]


def queue_owner(paths: Paths) -> QueueOwner:
    """Returns whose files a queue has, so that root's commands write them as that account.

    Raises ``OSError``, also if the queue's folder is reached by a link that root didn't make.
    """
    folder = safely.open_folder(paths.queue)
    try:
        found = os.fstat(folder)
    finally:
        os.close(folder)
    groups = {paths.queue: found.st_gid}
    with contextlib.suppress(FileNotFoundError):
        config = safely.open_file(paths.config, os.O_RDONLY)
        groups[paths.config] = os.fstat(config).st_gid
        os.close(config)
    return QueueOwner(account_of(found.st_uid, found.st_gid), groups)


def groups_of(paths: Paths, account: Account | None) -> dict[str, int]:
    """Returns group ids by path, for files and folders, if this process may set that group."""
    if account is None:
        return {}
    wanted = {
        paths.data: _group(READERS_GROUP, account),
        paths.watcher_pause: _group(OWN_GROUP, account),
        paths.queue: account.gid,
        os.path.dirname(paths.journal): _group(OWN_GROUP, account),
    }
    return {place: gid for place, gid in wanted.items() if may_give_to(gid)}


def _group(name: str, account: Account) -> int:
    gid = group_id(name)
    return account.gid if gid is None else gid
