"""Where the daemon is looked for, and what is said where there is none."""

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
        """A socket that is named is it, whatever else is."""
        place = find(None, "/a/socket", {"GANETI_ROOTDIR": "/other"})
        self.assertEqual(place, ClusterPlace("/a/socket"))

    def test_root(self) -> None:
        """A root that is named goes before the environment's."""
        environment = {"GANETI_ROOTDIR": "/other"}
        self.assertEqual(find("/a", None, environment), ClusterPlace("/a" + BELOW, "/a"))
        self.assertEqual(find(None, None, environment), ClusterPlace("/other" + BELOW, "/other"))

    def test_simulation(self) -> None:
        """Without either, the user's own simulation is taken if it has a socket."""
        environment = {"XDG_STATE_HOME": self.folder}
        simulated = self.path("gnt-masterd") + BELOW
        self.assertEqual(find(None, None, environment), ClusterPlace(BELOW, "", simulated))
        os.makedirs(os.path.dirname(simulated))
        open(simulated, "w").close()
        self.assertEqual(
            find(None, None, environment), ClusterPlace(simulated, self.path("gnt-masterd"))
        )

    def test_too_long(self) -> None:
        """A root too long for a socket is refused; a home too long is only passed by."""
        self.assertRaises(ConfigurationError, find, "/long" * 30, None, {})
        self.assertEqual(find(None, None, {"HOME": "/long" * 30}).socket, BELOW)


class AbsenceTests(FolderCase):
    """Each reason in a sentence, with the path and what to start."""

    def test_no_file(self) -> None:
        """Without a socket: the path, and a daemon to start in that root."""
        text = absence(ClusterPlace("/r x/s", "/r x"), OSError(errno.ENOENT, "no"))
        self.assertIn("at /r x/s: there is no such socket", text)
        self.assertIn("twistd -n gnt-masterd --root '/r x' --simulate 3", text)

    def test_system(self) -> None:
        """At the system's paths: also that a simulation was looked for."""
        text = absence(ClusterPlace(BELOW, "", "/home/x"), OSError(errno.ENOENT, "no"))
        self.assertIn("nor a simulation's at /home/x", text)
        self.assertIn("on the master node", text)
        self.assertIn("twistd -n gnt-masterd --simulate 3", text)

    def test_refused(self) -> None:
        """A socket without a daemon is told from none."""
        text = absence(ClusterPlace("/s"), OSError(errno.ECONNREFUSED, "no"))
        self.assertIn("at /s: the socket is there, but nothing listens", text)
        self.assertIn("--root DIR", text)

    def test_no_permission(self) -> None:
        """Without the right to use it: which group has it, where that can be told."""
        path = self.path("socket")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        error = OSError(errno.EACCES, "no")
        self.assertRegex(absence(ClusterPlace(path), error), "Permission denied.*the group [a-z]+")
        self.assertIn("the group that owns it", absence(ClusterPlace(self.path("none")), error))

    def test_other(self) -> None:
        """Any other reason is in the system's words, or in Python's."""
        self.assertIn("strange", absence(ClusterPlace("/s"), OSError(errno.EIO, "strange")))
        self.assertIn("too long", absence(ClusterPlace("/s"), OSError("AF_UNIX path too long")))
