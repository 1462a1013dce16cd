"""A root for simulated nodes: a whole new cluster where there is none.

Only such roots get their configuration and ssconf from this daemon itself; on
a real one they are there before it (protocol/startup.rst, Files and their owners).
"""

from __future__ import annotations

import os
import time
from typing import Any

from ganeti_masterd.config.document import encode
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import file_content, ssconf_values
from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.files import ARCHIVE_DIRECTORY_PERMS
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.startup import simulated_keys
from ganeti_masterd.startup.paths import Paths

CLUSTER_NAME = "cluster"


def make_folders(paths: Paths) -> None:
    """Makes the folders that the daemon writes to, with Ganeti's modes."""
    for folder, mode in (
        (paths.data, 0o755),
        (paths.queue, 0o750),
        (paths.queue_files.archive, ARCHIVE_DIRECTORY_PERMS),
        (paths.run, 0o775),
        (paths.sockets, 0o770),
        (paths.live_locks, 0o750),
        (os.path.dirname(paths.log), 0o770),
        (paths.hooks, 0o755),
    ):
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, mode)


def prepare(paths: Paths, simulated: int | Description) -> None:
    """Makes the root ready; a root without a configuration gets a new cluster.

    That has so many nodes, or those that are described. Raises
    ``ConfigurationError`` where that can't be done.
    """
    paths.socket  # noqa: B018 - a root that is too long is refused before anything is made
    try:
        make_folders(paths)
        if not os.path.exists(paths.config):
            _write(paths.queue_files.version, b"1\n", JOB_QUEUE_FILES_PERMS)
            snapshot = _new(paths, simulated)
            write_ssconf(paths, snapshot)
            for name, content, mode in simulated_keys.files(time.time()):
                _write(f"{paths.data}/{name}", content, mode)
            # Last, as its presence says that the root is complete.
            _write(paths.config, encode(snapshot), 0o640)
    except OSError as error:
        raise ConfigurationError(
            f"The simulated root {paths.root} can't be made ready: {error}"
        ) from None


def _new(paths: Paths, simulated: int | Description) -> Snapshot:
    """Returns the configuration of a new cluster."""
    settings: dict[str, Any] = {
        "name": CLUSTER_NAME,
        "file_storage_dir": os.path.join(paths.root, "srv/ganeti/file-storage"),
    }
    nodes: int | dict[str, str]
    if isinstance(simulated, Description):
        settings.update(simulated.settings)
        nodes = {name: node.group for name, node in simulated.nodes.items()}
    else:
        nodes = simulated
    return new_cluster(settings.pop("name"), nodes, time.time(), **settings)


def write_ssconf(paths: Paths, snapshot: Snapshot) -> None:
    """Writes all ssconf files; noded does it on real nodes."""
    for key, lines in ssconf_values(snapshot).items():
        _write(paths.ssconf(key), file_content(lines), 0o444)


def _write(path: str, content: bytes, mode: int) -> None:
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
