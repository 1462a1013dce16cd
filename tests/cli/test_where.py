"""Finding the daemon, and the messages if there is none."""

from __future__ import annotations

import errno
import os
import socket

from ganeti_masterd.cli.where import ClusterPlace, absence, find
from ganeti_masterd.errors import ConfigurationError
from tests.cli.doubles import FolderCase

BELOW = "/var/run/ganeti/socket/ganeti-query"


class FindTests(FolderCase):
    """The order in which places are tried."""

    def test_socket(self) -> None:
        """A given socket takes precedence over everything."""
        place = find(None, "/a/socket", {"GANETI_ROOTDIR": "/other"})
        self.assertEqual(place, ClusterPlace("/a/socket"))

    def test_root(self) -> None:
        """A given root takes precedence over the environment's."""
        environment = {"GANETI_ROOTDIR": "/other"}
        self.assertEqual(find("/a", None, environment), ClusterPlace("/a" + BELOW, "/a"))
        self.assertEqual(find(None, None, environment), ClusterPlace("/other" + BELOW, "/other"))

    def test_simulation(self) -> None:
        """Without either, the user's own simulation is used if it has a socket."""
        environment = {"XDG_STATE_HOME": self.folder}
        simulated = self.path("gnt-masterd") + BELOW
        self.assertEqual(find(None, None, environment), ClusterPlace(BELOW, "", simulated))
        os.makedirs(os.path.dirname(simulated))
        open(simulated, "w").close()
        self.assertEqual(
            find(None, None, environment), ClusterPlace(simulated, self.path("gnt-masterd"))
        )

    def test_too_long(self) -> None:
        """A root too long for a socket is refused; a home too long for one is skipped."""
        self.assertRaises(ConfigurationError, find, "/long" * 30, None, {})
        self.assertEqual(find(None, None, {"HOME": "/long" * 30}).socket, BELOW)


class AbsenceTests(FolderCase):
    """The messages have a reason, the path, and what to start."""

    def test_no_file(self) -> None:
        """Without a socket: the path, and how to start a daemon in that root."""
        text = absence(ClusterPlace("/r x/s", "/r x"), OSError(errno.ENOENT, "no"))
        self.assertIn("at /r x/s: there is no such socket", text)
        self.assertIn("twistd -n gnt-masterd --root '/r x' --simulate 3", text)

    def test_system(self) -> None:
        """At the system's paths: also the path of a simulation that was tried."""
        text = absence(ClusterPlace(BELOW, "", "/home/x"), OSError(errno.ENOENT, "no"))
        self.assertIn("nor a simulation's at /home/x", text)
        self.assertIn("on the master node", text)
        self.assertIn("twistd -n gnt-masterd --simulate 3", text)

    def test_refused(self) -> None:
        """A socket without a daemon has a different message than a missing one."""
        text = absence(ClusterPlace("/s"), OSError(errno.ECONNREFUSED, "no"))
        self.assertIn("at /s: the socket is there, but nothing listens", text)
        self.assertIn("--root DIR", text)

    def test_no_permission(self) -> None:
        """Without permission: the group that has it, if that is known."""
        path = self.path("socket")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        error = OSError(errno.EACCES, "no")
        self.assertRegex(absence(ClusterPlace(path), error), "Permission denied.*the group [a-z]+")
        self.assertIn("the group that owns it", absence(ClusterPlace(self.path("none")), error))

    def test_other(self) -> None:
        """Any other reason is the system's message, or Python's."""
        self.assertIn("strange", absence(ClusterPlace("/s"), OSError(errno.EIO, "strange")))
        self.assertIn("too long", absence(ClusterPlace("/s"), OSError("AF_UNIX path too long")))
