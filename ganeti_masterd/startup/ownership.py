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

from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS
from ganeti_masterd.journal.layout import FLAG_MODE, job_number
from ganeti_masterd.startup.accounts import (
    OWN_GROUP,
    READERS_GROUP,
    Account,
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

    Links are never followed. Raises ``OSError``.
    """
    for place in folders_of(paths, account):
        os.makedirs(place.path, exist_ok=True)
        _set_right(place, account.uid, os.O_DIRECTORY)
    for place in files_of(paths, account):
        _set_right(place, account.uid)


def give_tree(root: str, account: Account) -> None:
    """Changes the owner of a simulated root and everything in it. Must run as root."""
    for folder, _, names in os.walk(root):
        os.chown(folder, account.uid, account.gid)
        for name in names:
            os.chown(os.path.join(folder, name), account.uid, account.gid, follow_symlinks=False)


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


def _set_right(place: OwnedPlace, uid: int, kind: int = 0) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | kind
    try:
        descriptor = os.open(place.path, flags)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(descriptor)
        # A hard link to a file elsewhere must not change that file's owner.
        if not kind and (not stat.S_ISREG(found.st_mode) or found.st_nlink != 1):
            raise PermissionError(f"{place.path} is a link, or no file")
        if (found.st_uid, found.st_gid) != (uid, place.gid):
            os.fchown(descriptor, uid, place.gid)
        if stat.S_IMODE(found.st_mode) != place.mode:
            os.fchmod(descriptor, place.mode)
    finally:
        os.close(descriptor)
