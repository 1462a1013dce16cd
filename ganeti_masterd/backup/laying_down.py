"""Lays a backup down on a machine that has no cluster's master yet. Blocking.

Everything is checked first. The configuration is written last: without it no daemon starts, and
the same command may be run again (a mark says that what is there is its own).
"""

from __future__ import annotations

import contextlib
import os

from ganeti_masterd import safely
from ganeti_masterd.backup.archive import check_backup, read_files
from ganeti_masterd.backup.contents import CONFIG, MANIFEST, BackupFault, BackupManifest, mode_of
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import make_folders

#: The mark of a restoration that has not ended, in the data folder: it names the cluster.
MARK = "restoring-backup"


def lay_down(path: str, paths: Paths) -> BackupManifest:
    """Restores the backup at ``path``; returns what it was.

    Raises :class:`BackupFault` if the backup can't be used, or the machine isn't empty, and then
    nothing was changed; ``OSError``.
    """
    with open(safely.open_file(path, os.O_RDONLY), "rb") as file:
        manifest = check_backup(file)
        _check_empty(paths, manifest)
        file.seek(0)
        make_folders(paths)
        mark = f"{paths.data}/{MARK}"
        _write(mark, manifest.cluster.encode(), 0o600)
        config = b""
        for name, content in read_files(file):
            if name == CONFIG:
                config = content
            elif name != MANIFEST:
                mode = mode_of(name, content)
                if manifest.files.get(name) is None:
                    raise BackupFault(f"{path} was changed while it was read")
                _write(f"{paths.data}/{name}", content, mode)
    os.sync()
    _write(paths.config, config, mode_of(CONFIG, config))
    os.unlink(mark)
    _sync(paths.data)
    return manifest


def _check_empty(paths: Paths, manifest: BackupManifest) -> None:
    if os.path.lexists(paths.config):
        raise BackupFault(f"{paths.config} exists: this machine has a cluster's master already")
    with contextlib.suppress(FileNotFoundError):
        if safely.read(f"{paths.data}/{MARK}").decode() != manifest.cluster:
            raise BackupFault(f"{paths.data} has half a backup of another cluster: remove it")
        return
    for folder in (paths.queue, os.path.dirname(paths.journal)):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder):
                if name not in ("lock", "archive"):
                    raise BackupFault(f"{folder}/{name} exists: the machine must have no queue")


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
