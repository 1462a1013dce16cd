"""What must hold before the process detaches, so that whoever starts it hears why it can't.

twistd passes on no more than a hundred bytes of what fails later. Here nothing
stays open: neither a lock nor a database survives a fork.
"""

from __future__ import annotations

import time

from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.disk import Disk
from ganeti_masterd.journal.files import Files
from ganeti_masterd.journal.recovery import Identity, check_journal
from ganeti_masterd.startup.locks import LockedFile
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import read_config


def check(paths: Paths) -> None:
    """Raises a Ganeti error for what would keep the daemon from starting.

    No other daemon runs, the configuration can be read, and the journal fits
    the files: one that doesn't is set aside. Nothing else on disk is changed.
    """
    try:
        pid = LockedFile(paths.pid, 0o644)
        try:
            queue = LockedFile(paths.queue_lock)
            try:
                _check_files(paths)
            finally:
                queue.release()
        finally:
            pid.release(remove=True)
    except OSError as error:
        raise ConfigurationError(f"The daemon can't work below {paths.data}: {error}") from None


def _check_files(paths: Paths) -> None:
    configuration = read_config(paths)
    check_journal(
        paths.journal,
        identity=Identity(configuration.cluster.uuid, configuration.master.name),
        files=Files(queue=paths.queue, config=paths.config),
        disk=Disk(),
        now=time.time,
    )
