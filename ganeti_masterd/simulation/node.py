"""One simulated node, and how the calls it answers are declared.

A module of calls has one :class:`Implementations` and writes::

    calls = Implementations()

    @calls("node_info")
    def node_info(node, storage_units, hypervisors): ...

The function gets the node and the call's arguments, and returns the payload or a Deferred of it. It
raises :class:`NodeFailure` for a failure that noded expects, :class:`Unexpected` for one that it
doesn't. Any other exception is a bug in the simulation and is logged as such. A function must
neither change its arguments nor keep references to them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred

from ganeti_masterd.journal.layout import QueuePaths
from ganeti_masterd.simulation.mirrors import Mirrors
from ganeti_masterd.simulation.shelves import Shelf
from ganeti_masterd.simulation.state import Hardware, NodeState, SharedState, StoredFile
from ganeti_masterd.simulation.transfers import Transfers
from ganeti_masterd.simulation.watching import Watch

F = TypeVar("F", bound=Callable[..., Any])

VIRTUAL = "/###-VIRTUAL-PATH-###,"
DATA_DIR = "/var/lib/ganeti"
RUN_DIR = "/var/run/ganeti"
CONFIG_FILE = DATA_DIR + "/config.data"
QUEUE = QueuePaths(DATA_DIR + "/queue")
QUEUE_DIR = QUEUE.queue
SSCONF_PREFIX = DATA_DIR + "/ssconf_"


class NodeFailure(Exception):
    """A failure that noded answers with exactly this message."""


class Unexpected(Exception):
    """A failure that noded doesn't expect: it puts its standard prefix before the message."""


def member(mapping: Mapping[str, Any], key: str) -> Any:
    """Returns a dict's value; for a missing key raises ``Unexpected`` with noded's ``KeyError``."""
    try:
        return mapping[key]
    except KeyError as error:
        raise Unexpected(str(error))


class Implementations:
    """The functions of one module, by the name of the call that each answers."""

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}

    def __call__(self, *names: str) -> Callable[[F], F]:
        """Declares that the decorated function answers these calls."""

        def declared(function: F) -> F:
            for name in names:
                self.functions[name] = function
            return function

        return declared


class Finished(Struct, frozen=True):
    """A program that has ended; ``reason`` is None if it succeeded, else why it failed.

    ``output`` is all that it wrote, in order; ``stdout`` only its standard output.
    """

    output: bytes
    reason: str | None
    stdout: bytes = b""


class Failing(Struct, frozen=True, forbid_unknown_fields=True):
    """When a script of an operating system or a storage provider fails.

    It fails if ``parameter`` has one of ``values``, or none of ``unless``; without both, always.
    ``output`` may contain the parameter's ``{value}``.
    """

    script: str
    parameter: str | None = None
    values: tuple[str, ...] | None = None
    unless: tuple[str, ...] | None = None
    exit_code: int = 1
    output: str = ""

    def fails(self, script: str, parameters: Mapping[str, Any]) -> str | None:
        """Returns what a script prints before it fails; None if it doesn't fail."""
        if script != self.script:
            return None
        value = "" if self.parameter is None else str(parameters.get(self.parameter) or "")
        if self.values is not None and value not in self.values:
            return None
        if self.unless is not None and value in self.unless:
            return None
        return self.output.replace("{value}", value)


def failing(
    rules: Sequence[Failing], script: str, parameters: Mapping[str, Any]
) -> tuple[int, str] | None:
    """Returns exit code and output of a script that fails, or None."""
    for rule in rules:
        output = rule.fails(script, parameters)
        if output is not None:
            return rule.exit_code, output
    return None


class OSDefinition(Struct, frozen=True):
    """An operating system definition that is installed on simulated nodes.

    ``writes`` and ``renames`` are the lines that its create and rename scripts write on a disk.
    One that isn't ``trusted`` has only a create script for a helper VM.
    Names in braces (``{instance}``, ``{index}``, ``{os}``, ``{variant}``, ``{old}``, or a
    parameter's name) are replaced by values.
    """

    name: str
    variants: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    api_versions: tuple[int, ...] = (20,)
    directory: str = "/usr/share/ganeti/os"
    fails: tuple[Failing, ...] = ()
    writes: str | None = None
    renames: str | None = None
    trusted: bool = True

    @property
    def path(self) -> str:
        """Its directory."""
        return f"{self.directory}/{self.name}"


class BootImage(Struct, frozen=True):
    """An image that nodes have under a path, or get from a URL, and what boots from it.

    ``size`` is in MiB. A machine that boots from it is up at once, unless it never ``boots``; it
    does its work (``zeroes`` the other disks' free space, ``installs`` the operating system of
    the package that it gets) and shuts itself down after so many ``seconds``; None: never.
    """

    place: str
    size: int
    boots: bool = True
    seconds: float | None = 10.0
    zeroes: bool = False
    installs: bool = False


class StorageProvider(Struct, frozen=True):
    """A provider of external storage; ``device`` is a volume's device path, with ``{name}``."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()
    directory: str = "/usr/share/ganeti/extstorage"
    device: str = "/dev/ext/{name}"
    fails: tuple[Failing, ...] = ()

    @property
    def path(self) -> str:
        """Its directory."""
        return f"{self.directory}/{self.name}"


class NodeSurroundings(Protocol):
    """What a node sees of its cluster: other nodes, and what it shares with them."""

    cluster: SharedState
    mirrors: Mirrors
    transfers: Transfers
    watch: Watch
    providers: tuple[StorageProvider, ...]
    images: Mapping[str, BootImage]
    shared_paths: tuple[str, ...]

    def joined(self, one: str, other: str) -> bool:
        """Returns whether two nodes can reach each other."""

    def migration_speed(self) -> float | None:
        """Returns MiB of an instance's memory per second; None: a migration takes no time."""

    def node(self, name: str) -> SimulatedNode:
        """The node of a name."""

    def nodes(self) -> Sequence[SimulatedNode]:
        """All nodes that were ever called."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def wait(self, seconds: float) -> Deferred[None]:
        """Fires after that time."""

    def reachable(self, name: str) -> bool:
        """Whether a node of that name answers."""

    def holds_address(self, address: str) -> bool:
        """Returns whether some node has the master's address up."""

    def in_disk_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Runs a blocking function in the disk thread."""

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        directory: str = "/",
    ) -> Deferred[Finished]:
        """Runs a program with exactly that environment; stdout and stderr are joined."""


class SimulatedNode:
    """A node: its hardware, its state, and the path of its real files, if any.

    ``root`` is the directory of this node's real files (hooks, scripts), or None. ``master_root``
    is the root of the master's real files: the node that ``is_master`` stores its own files there,
    and the others were set up with copies of them.
    """

    def __init__(
        self,
        name: str,
        hardware: Hardware,
        state: NodeState,
        world: NodeSurroundings,
        *,
        systems: Sequence[OSDefinition],
        root: str | None = None,
        master_root: str | None = None,
        is_master: bool = False,
    ) -> None:
        self.name = name
        self.hardware = hardware
        self.state = state
        self.world = world
        self.systems = systems
        self.master_root = master_root
        self.is_master = is_master
        #: MiB taken of each physical volume, and the version of the devices that hold for it;
        #: kept by :mod:`ganeti_masterd.simulation.volumes`.
        self.taken: tuple[int, Mapping[str, int]] = (-1, {})
        #: The guests that shut themselves down, by name; None until that was looked up.
        self.ending: set[str] | None = None
        self._root = root
        self._prefix = None if not master_root else master_root.rstrip("/") + "/"

    @property
    def root(self) -> str | None:
        """The directory of this node's real files."""
        return self.master_root if self.is_master else self._root

    def directories(self, path: str) -> Shelf[bool]:
        """Returns the shelf of a file storage directory: this node's, or the shared one."""
        shared = any(f"{path}/".startswith(f"{place}/") for place in self.world.shared_paths)
        return self.world.cluster.directories if shared else self.state.directories

    def has_directory(self, path: str) -> bool:
        """Returns whether a directory of file storage exists."""
        return path in self.directories(path)

    def local_path(self, path: str) -> str:
        """Returns a path without the virtual or real root before it."""
        if path.startswith(VIRTUAL):
            path = path[len(VIRTUAL) :]
        elif self._prefix is not None and path.startswith(self._prefix):
            path = path[len(self._prefix) - 1 :]
        # As most are: those of the queue are asked for with each job file.
        plain = path.startswith("/") and "/." not in path and "//" not in path and path[-1] != "/"
        return path if plain or not path else os.path.normpath(path)

    def real_path(self, path: str) -> str | None:
        """Returns the real path of this node's path, or None if it has no real files."""
        return None if self.root is None else self.root.rstrip("/") + path

    def keep(self, files: Mapping[str, StoredFile]) -> Deferred[None] | None:
        """Stores files by local path; if this is the master, on the real disk."""
        if not self.is_master or self.master_root is None:
            for path, file in files.items():
                self.state.files[path] = file
            return None
        root = self.master_root.rstrip("/")
        real = [(root + path, file.content, file.mode) for path, file in files.items()]
        return self.world.in_disk_thread(replace_files, real)

    def discard(self, path: str) -> Deferred[None] | None:
        """Removes a file by its local path, if it exists."""
        self.state.files.pop(path)
        if not self.is_master or self.master_root is None:
            return None
        return self.world.in_disk_thread(remove_file, self.master_root.rstrip("/") + path)

    def read(self, path: str) -> bytes | None:
        """Returns a file's bytes by its local path, or None if the node doesn't have it.

        A file that was never uploaded is read from the master, as the node was set up with copies
        of its files; except for the configuration and the queue, which only candidates get.
        """
        stored = None if self.is_master else self.state.files.get(path)
        if stored is not None:
            return stored.content
        places = [self.root]
        if not self.is_master and path != CONFIG_FILE and not path.startswith(QUEUE_DIR):
            places.append(self.master_root)
        for place in places:
            if place is not None:
                try:
                    with open(place.rstrip("/") + path, "rb") as file:
                        return file.read()
                except OSError:
                    continue
        return None

    def ssconf(self, key: str) -> str | None:
        """Returns a value of the simple configuration, or None if the node doesn't have it."""
        content = self.read(SSCONF_PREFIX + key)
        return None if content is None else content.decode("utf-8").rstrip("\n")


def replace_files(files: Sequence[tuple[str, bytes, int]]) -> None:
    """Writes real files (path, content, mode), each in one step. Blocks; raises ``OSError``.

    Leaves alone those that are as wanted already.
    """
    for path, content, mode in files:
        if _holds(path, content, mode):
            continue
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        fresh = f"{path}.new"
        with open(fresh, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        os.replace(fresh, path)


def _holds(path: str, content: bytes, mode: int) -> bool:
    """Returns whether there is a regular file with that content and mode."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        there = os.fstat(descriptor)
        if there.st_mode != stat.S_IFREG | mode or there.st_size != len(content):
            return False
        with open(descriptor, "rb", closefd=False) as file:
            return file.read() == content
    finally:
        os.close(descriptor)


def remove_file(path: str) -> None:
    """Removes a real file, if it exists. Blocks; raises ``OSError``."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
