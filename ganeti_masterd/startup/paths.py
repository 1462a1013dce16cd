"""Paths of Ganeti's files below a root; without one, the system's own paths."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.layout import ARCHIVE_DIRECTORY_PERMS, QueueFiles

#: The longest path that a UNIX socket can have on Linux.
SOCKET_PATH_MAX = 107


class Paths:
    """The paths of one cluster's master node."""

    def __init__(self, root: str = "") -> None:
        self.root = os.path.abspath(root) if root else ""

    def _below(self, path: str) -> str:
        return self.root + path

    @property
    def data(self) -> str:
        """The folder of the configuration, the queue and the keys."""
        return self._below("/var/lib/ganeti")

    @property
    def config(self) -> str:
        """The cluster's configuration."""
        return self.data + "/config.data"

    @property
    def queue(self) -> str:
        """The job queue's folder."""
        return self.data + "/queue"

    @property
    def queue_lock(self) -> str:
        """The file that is locked while a daemon owns the queue."""
        return self.queue_files.lock

    @property
    def queue_files(self) -> QueueFiles:
        """The files that follow the journal."""
        return QueueFiles(queue=self.queue, config=self.config)

    @property
    def journal(self) -> str:
        """This daemon's own journal."""
        return self.data + "/masterd/journal.db"

    @property
    def history(self) -> str:
        """The versions of the configuration that this daemon keeps."""
        return self.data + "/masterd/history.db"

    @property
    def watcher_pause(self) -> str:
        """The file with the time until which the watcher pauses."""
        return self.data + "/watcher.pause"

    @property
    def run(self) -> str:
        """The folder of PID files and sockets."""
        return self._below("/var/run/ganeti")

    @property
    def sockets(self) -> str:
        """The folder of sockets."""
        return self.run + "/socket"

    @property
    def live_locks(self) -> str:
        """The folder in which each tool holds a lock on a file while it runs, for wconfd to see."""
        return self.run + "/livelocks"

    @property
    def socket(self) -> str:
        """The socket on which clients look for the master daemon.

        Raises ``ConfigurationError`` if its path is too long to be one.
        """
        path = self.sockets + "/ganeti-query"
        # Other sockets' names are a byte longer, and are first bound under a longer temporary name.
        if len(os.fsencode(path)) + len("?.new") > SOCKET_PATH_MAX:
            raise ConfigurationError(
                f"The root {self.root} is too long: its socket would be {path}, and a socket's "
                f"path has at most {SOCKET_PATH_MAX} bytes"
            )
        return path

    @property
    def wconfd_socket(self) -> str:
        """The socket on which tools look for wconfd.

        One byte longer than :attr:`socket`, which checks the path's length for both.
        """
        return self.sockets + "/ganeti-wconfd"

    @property
    def pid(self) -> str:
        """This daemon's PID file."""
        return self.run + "/ganeti-masterd.pid"

    @property
    def peers_pids(self) -> tuple[str, ...]:
        """The PID files of the daemons whose place this one takes: luxid and wconfd."""
        return (self.run + "/ganeti-luxid.pid", self.wconfd_pid)

    @property
    def wconfd_pid(self) -> str:
        """The PID file of wconfd."""
        return self.run + "/ganeti-wconfd.pid"

    @property
    def server_certificate(self) -> str:
        """The cluster's key and certificate, the same on every node."""
        return self.data + "/server.pem"

    @property
    def client_certificate(self) -> str:
        """This node's own key and certificate, which it shows to node daemons."""
        return self.data + "/client.pem"

    @property
    def certificates(self) -> dict[str, str]:
        """All files with certificates that a node may have, by what administrators call them."""
        return {
            "server": self.server_certificate,
            "client": self.client_certificate,
            "rapi": self.data + "/rapi.pem",
            "spice": self.data + "/spice.pem",
            "spice-ca": self.data + "/spice-ca.pem",
        }

    @property
    def log(self) -> str:
        """This daemon's log file."""
        return self._below("/var/log/ganeti") + "/master-daemon.log"

    @property
    def folders(self) -> tuple[tuple[str, int], ...]:
        """The folders that the daemon writes to and their modes, those above first."""
        return (
            (self.data, 0o755),
            (self.queue, 0o750),
            (self.queue_files.archive, ARCHIVE_DIRECTORY_PERMS),
            (self.run, 0o775),
            (self.sockets, 0o770),
            (self.live_locks, 0o750),
            (os.path.dirname(self.log), 0o770),
        )

    @property
    def hooks(self) -> str:
        """The folder of the administrators' hooks."""
        return self._below("/etc/ganeti/hooks")

    def ssconf(self, key: str) -> str:
        """One file of the simple configuration."""
        return f"{self.data}/ssconf_{key}"


def default_root(environment: Mapping[str, str], *, simulate: bool) -> str:
    """Returns the root for a daemon that was started without one.

    This is ``GANETI_ROOTDIR``, as for Ganeti's own tools. Without it a simulation uses a folder of
    the user's (XDG base directories), so that it needs no permissions; a real daemon uses the
    system's paths.
    """
    root = environment.get("GANETI_ROOTDIR", "")
    if root or not simulate:
        return root
    state = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        home = environment.get("HOME") or os.path.expanduser("~")
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, "gnt-masterd")
