"""Which socket ``gnt-luxi`` talks to, and what to say when no daemon is there."""

from __future__ import annotations

import errno
import grp
import os
import shlex
from collections.abc import Mapping

from msgspec import Struct

from ganeti_masterd.startup.paths import Paths, default_root

#: How a daemon on simulated nodes is started in the foreground.
START = "twistd -n gnt-masterd"


class ClusterPlace(Struct, frozen=True):
    """Where the daemon is looked for.

    ``root`` is the folder that stands for ``/``; empty for the system's own, null if only
    the socket is known. ``passed_by`` is a socket that would have been taken before this
    one, had it been there.
    """

    socket: str
    root: str | None = None
    passed_by: str | None = None


def find(root: str | None, socket: str | None, environment: Mapping[str, str]) -> ClusterPlace:
    """Returns where to look: what was named, else where a daemon without options is.

    In this order: ``socket``; ``root``; ``GANETI_ROOTDIR``; the user's own simulation if its
    socket is there; the system's paths. Raises ``ConfigurationError`` for a root that is too
    long for a socket.
    """
    if socket is not None:
        return ClusterPlace(socket)
    named = root if root is not None else default_root(environment, simulate=False)
    if named:
        return ClusterPlace(Paths(named).socket, os.path.abspath(named))
    simulation = default_root(environment, simulate=True)
    # Not Paths.socket: a home that is too long for one is no reason to fail.
    simulated = Paths(simulation).sockets + "/ganeti-query"
    if os.path.exists(simulated):
        return ClusterPlace(simulated, simulation)
    return ClusterPlace(Paths().socket, "", simulated)


def absence(place: ClusterPlace, error: OSError) -> str:
    """Returns in one sentence or two: where no daemon was met, why, and what to start."""
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
            f"No right to use the socket {place.socket}: permission denied. "
            f"Run this as root or as a member of {_group(place.socket)}."
        )
    return f"The socket {place.socket} can't be used: {error.strerror or error}."


def _start(place: ClusterPlace) -> str:
    if place.root is None:
        return f"Name another socket, or start a daemon: {START} --root DIR --simulate 3"
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
