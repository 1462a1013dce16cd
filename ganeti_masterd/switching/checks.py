"""What is checked before anything is switched. Nothing here changes anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

from ganeti_masterd.errors import GenericError
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.switching.host import DAEMON_UTIL, SwitchedNode
from ganeti_masterd.switching.plan import LUXID, WCONFD, NodeStanding

#: Bytes that must be free where the configuration and the queue are, besides room for three more
#: copies of the configuration: one in the journal, one in its history, one being written.
ROOM = 64 << 20

#: Bytes that must be free where logs are.
LOG_ROOM = 8 << 20

SwitchCheck = Callable[[SwitchedNode, NodeStanding], Iterator[str]]


def daemon_util_is_there(node: SwitchedNode, _: NodeStanding) -> Iterator[str]:
    """Ganeti is installed, with what daemon-util's settings need."""
    if not os.access(DAEMON_UTIL, os.X_OK):
        yield f"{DAEMON_UTIL} is missing: Ganeti 3.0 is not installed here"
    if shutil.which("flock") is None:
        yield "flock is missing (util-linux): daemon-util's settings need it"
    folder = os.path.dirname(node.settings_file)
    if not os.path.isdir(folder):
        yield f"{folder}, the folder of daemon-util's settings, is missing"


def programs_are_there(node: SwitchedNode, _: NodeStanding) -> Iterator[str]:
    """The daemon is installed with all that a switch puts in place."""
    for name in ("twistd", "gnt-luxi"):
        if not os.access(f"{node.programs}/{name}", os.X_OK):
            yield f"{node.programs}/{name} is missing; --programs names the folder that has it"
    for name in ("daemon-util.sh", "gnt-masterd.service"):
        if not os.access(f"{node.share}/{name}", os.R_OK):
            yield f"{node.share}/{name} is missing: the daemon is not installed completely"


def master_runs_it(_: SwitchedNode, now: NodeStanding) -> Iterator[str]:
    """No master daemon runs where another node is the master."""
    if not now.master and (now.own or now.luxid):
        yield "A master daemon runs here, and this node is not the master"


def master_daemon_answers(node: SwitchedNode, now: NodeStanding) -> Iterator[str]:
    """The one that runs does as asked; it has to say which jobs run."""
    if now.master and (now.luxid or now.own):
        try:
            node.client.call("QueryClusterInfo")
        except GenericError as error:
            yield f"The master daemon that runs doesn't answer: {error}"


def disk_has_room(node: SwitchedNode, now: NodeStanding) -> Iterator[str]:
    """There is room for the journal and the log."""
    data, logs = node.paths.data, os.path.dirname(node.paths.log)
    config = os.path.getsize(node.paths.config) if os.path.exists(node.paths.config) else 0
    for folder, wanted in ((data, ROOM + 3 * config), (logs, LOG_ROOM)):
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if free < wanted:
            yield f"{folder} has {free >> 20} MiB free, and {-(-wanted >> 20)} MiB are needed"
        if found.f_files and not found.f_favail:
            yield f"{folder} has no inode free"


def daemon_would_start(node: SwitchedNode, now: NodeStanding) -> Iterator[str]:
    """The daemon's own checks pass: configuration, accounts, journal, jobs, the nodes' votes."""
    if now.master and not now.own and os.access(f"{node.programs}/twistd", os.X_OK):
        done = node.check_only()
        if done.code != 0:
            yield f"{done.command} ended with exit code {done.code}: {done.output.strip()}"


def peers_are_there(node: SwitchedNode, _: NodeStanding) -> Iterator[str]:
    """The daemons to go back to are installed."""
    for name in (LUXID, WCONFD):
        if shutil.which(name, path="/usr/sbin:/usr/local/sbin") is None:
            yield f"{name} is not installed here (Debian's package ganeti-haskell-3.0)"


def configuration_can_be_read(node: SwitchedNode, now: NodeStanding) -> Iterator[str]:
    """The configuration is one."""
    if now.master:
        try:
            read_config(node.paths)
        except (GenericError, OSError) as error:
            yield str(error)


#: The checks before the switch to this daemon, and before the switch back.
TO: tuple[SwitchCheck, ...] = (
    daemon_util_is_there,
    programs_are_there,
    master_runs_it,
    master_daemon_answers,
    disk_has_room,
    daemon_would_start,
)
BACK: tuple[SwitchCheck, ...] = (
    daemon_util_is_there,
    peers_are_there,
    master_runs_it,
    master_daemon_answers,
    configuration_can_be_read,
    disk_has_room,
)


def faults(
    checks: tuple[SwitchCheck, ...], node: SwitchedNode, standing: NodeStanding
) -> list[str]:
    """Returns all that is wrong; empty if the switch may begin."""
    return [fault for check in checks for fault in check(node, standing)]
