"""Lays a backup down on a machine that has no cluster's master yet. Blocking.

Everything is checked first. The configuration is written last: without it no daemon starts, and
the same command may be run again (a mark says that what is there is its own).
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from ganeti_masterd import safely
from ganeti_masterd.journal.layout import QueuePaths
from ganeti_masterd.masterbackup.archive import check_backup, read_files
from ganeti_masterd.masterbackup.contents import (
    CONFIG,
    MANIFEST,
    BackupFault,
    BackupManifest,
    digest,
    mode_of,
)
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import make_folders

#: The mark of a restoration that has not ended, in the data folder: the digest of its manifest.
MARK = "restoring-backup"


def lay_down(path: str, paths: Paths) -> BackupManifest:
    """Restores the backup at ``path``; returns what it was.

    Raises :class:`BackupFault` if the backup can't be used, or the machine isn't empty, and then
    nothing was changed; ``OSError``.
    """
    with open(safely.open_file(path, os.O_RDONLY), "rb") as file:
        manifest = check_backup(file)
        own = digest(msgspec.json.encode(manifest, order="deterministic")).encode("ascii")
        _check_empty(paths, own)
        file.seek(0)
        make_folders(paths)
        mark = f"{paths.data}/{MARK}"
        _write(mark, own, 0o600)
        config = b""
        for name, content in read_files(file):
            if name == MANIFEST:
                continue
            if manifest.files.get(name) != digest(content):
                raise BackupFault(f"{path} was changed while it was read: run this again")
            if name == CONFIG:
                config = content
            else:
                _write(f"{paths.data}/{name}", content, mode_of(name, content))
    os.sync()
    _write(paths.config, config, mode_of(CONFIG, config))
    os.unlink(mark)
    _sync(paths.data)
    return manifest


def _check_empty(paths: Paths, own: bytes) -> None:
    """Refuses a machine that isn't empty, unless a restoration with our mark has begun there."""
    if os.path.lexists(paths.config):
        raise BackupFault(f"{paths.config} exists: this machine has a cluster's master already")
    with contextlib.suppress(FileNotFoundError):
        if safely.read(f"{paths.data}/{MARK}") != own:
            raise BackupFault(f"{paths.data} has half of another backup: remove it")
        return
    for folder in (paths.queue, os.path.dirname(paths.journal)):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder):
                if name not in ("lock", "archive"):
                    raise BackupFault(f"{folder}/{name} exists: the machine must have no queue")
    archived = [name for _, _, names in os.walk(QueuePaths(paths.queue).archive) for name in names]
    if archived:
        raise BackupFault(
            f"{paths.queue} has {len(archived)} archived jobs: the machine must have none"
        )


def _write(path: str, content: bytes, mode: int) -> None:
    """Writes a whole file in the place of whatever an earlier try left."""
    folder = safely.open_folder(os.path.dirname(path), make=True)
    try:
        temporary = f"{path}.restoring"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.basename(temporary), dir_fd=folder)
        descriptor = safely.open_file_in(
            folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(
            os.path.basename(temporary),
            os.path.basename(path),
            src_dir_fd=folder,
            dst_dir_fd=folder,
        )
    finally:
        os.close(folder)


def _sync(path: str) -> None:
    folder = safely.open_folder(path)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
