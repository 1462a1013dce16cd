"""The root of simulated nodes: creates a whole new cluster if there is none.

The daemon creates configuration and ssconf only in such roots; on a real one they exist before it
starts (protocol/startup.rst, Files and their owners).
"""

from __future__ import annotations

import os
import time
from typing import Any

from ganeti_masterd import safely
from ganeti_masterd.config.document import encode
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import file_content, ssconf_values
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.files import replace_file, replace_files
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.startup import simulated_keys
from ganeti_masterd.startup.paths import Paths

CLUSTER_NAME = "cluster"

#: The mode of ssconf files: any user may read them, and only noded makes new ones.
SS_FILE_PERMS = 0o444


def make_folders(paths: Paths) -> None:
    """Makes the folders that the daemon writes to, with Ganeti's modes."""
    for folder, mode in (*paths.folders, (paths.hooks, 0o755)):
        if not os.path.isdir(folder):
            made = safely.open_folder(folder, make=True)
            try:
                safely.give(made, folder, -1, -1, mode)
            finally:
                os.close(made)


def prepare(paths: Paths, simulated: int | Description) -> None:
    """Makes the root ready; a root without a configuration gets a new cluster.

    ``simulated`` is the number of its nodes, or their description. Raises ``ConfigurationError`` if
    the root can't be made ready.
    """
    paths.socket  # noqa: B018 - a root that is too long is refused before anything is made
    try:
        make_folders(paths)
        if not os.path.exists(paths.config):
            files, disk = paths.queue_files, RealDisk()
            replace_file(disk, files.version, b"1\n")
            disk.sync_directory(paths.queue)
            snapshot = _new(paths, simulated)
            write_ssconf(paths, snapshot)
            for name, content, mode in simulated_keys.files(time.time()):
                replace_file(disk, f"{paths.data}/{name}", content, mode)
            disk.sync_directory(paths.data)
            # Last, as its presence says that the root is complete.
            replace_file(disk, files.config, encode(snapshot))
            disk.sync_directory(files.config_directory)
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
    values = ssconf_values(snapshot)
    files = [(paths.ssconf(key), file_content(lines)) for key, lines in values.items()]
    for _ in replace_files(RealDisk(), files, SS_FILE_PERMS):
        pass
