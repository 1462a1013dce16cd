"""Which socket ``gnt-luxi`` connects to, and the message if there is no daemon."""

from __future__ import annotations

import errno
import grp
import os
import shlex
from collections.abc import Mapping

from msgspec import Struct

from ganeti_masterd.startup.paths import Paths, default_root

#: The command that starts a daemon in the foreground, without its options.
START = "twistd -n gnt-masterd"


class ClusterPlace(Struct, frozen=True):
    """Where to find the daemon.

    ``root`` is the folder used as ``/``: empty for the system's own, None if only
    the socket is known. ``passed_by`` is a socket that would have been preferred to this
    one if it existed.
    """

    socket: str
    root: str | None = None
    passed_by: str | None = None


def find(root: str | None, socket: str | None, environment: Mapping[str, str]) -> ClusterPlace:
    """Returns where to find the daemon: as given, else where one without options would be.

    In this order: ``socket``; ``root``; ``GANETI_ROOTDIR``; the user's own simulation if its
    socket exists; the system's paths. Raises ``ConfigurationError`` for a root whose path is
    too long for a socket.
    """
    if socket is not None:
        return ClusterPlace(socket)
    named = root if root is not None else default_root(environment, simulate=False)
    if named:
        return ClusterPlace(Paths(named).socket, os.path.abspath(named))
    simulation = default_root(environment, simulate=True)
    # Not Paths.socket, which would fail if the home directory's path is too long for a socket.
    simulated = Paths(simulation).sockets + "/ganeti-query"
    if os.path.exists(simulated):
        return ClusterPlace(simulated, simulation)
    return ClusterPlace(Paths().socket, "", simulated)


def absence(place: ClusterPlace, error: OSError) -> str:
    """Returns a message: where no daemon was found, why, and what to start."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        also = f", nor a simulation's at {place.passed_by}" if place.passed_by else ""
        return f"No master daemon at {place.socket}: there is no such socket{also}. {_start(place)}"
    if error.errno == errno.ECONNREFUSED:
        return (
            f"No master daemon at {place.socket}: the socket is there, but nothing listens on it; "
            f"the daemon died or is stopping. {_start(place)}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"Permission denied for the socket {place.socket}. "
            f"Run this as root or as a member of {_group(place.socket)}."
        )
    return f"The socket {place.socket} can't be used: {error.strerror or error}."


def _start(place: ClusterPlace) -> str:
    if place.root is None:
        return f"Give another socket, or start a daemon: {START} --root DIR --simulate 3"
    if place.root:
        return f"Start one there: {START} --root {shlex.quote(place.root)} --simulate 3"
    return (
        "On a cluster, run this on the master node, and start the master daemon there; "
        f"to try it out on simulated nodes: {START} --simulate 3"
    )


def _group(path: str) -> str:
    try:
        return f"the group {grp.getgrgid(os.stat(path).st_gid).gr_name}"
    except (OSError, KeyError):
        return "the group that owns it"
