"""What a job left on nodes when the daemon died: cleared away, then the job ends in error.

A job notes the devices that it makes, renames or removes before it touches any
(:meth:`Context.note_devices <ganeti_masterd.logical_units.context.Context.note_devices>`). Those
that no disk of the configuration has once the job is dead are nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from posixpath import dirname
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import DEFAULT_SHUTDOWN_TIMEOUT, ELOG_MESSAGE
from ganeti_masterd.errors import (
    DaemonStopping,
    OpExecError,
    OpPrereqError,
    ReservationError,
    encode_error,
)
from ganeti_masterd.execution.context import Services
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.devices import INSTANCES, NO_DEVICES, Fate, NotedDevice, by_hand
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.restart import STOPPED_UNCLEANLY, cut_off
from ganeti_masterd.locking.levels import BGL, Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.instances.publishing import WholeInstance, changes_between
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.door import ask_one
from ganeti_masterd.rpc.interfaces import NodeResult, Target

log = Logger()

#: Seconds in which an import daemon may write the last of what another cluster has sent.
LAST_WRITES = 60

_DONE = {Fate.RENAME: "gave its old name back to", Fate.GUEST: "stopped"}
_DOING = {Fate.RENAME: "give its old name back to", Fate.GUEST: "stop"}


def is_owned(snapshot: Snapshot, device: NotedDevice) -> bool:
    """Whether a disk of the configuration has a device, or lies in a directory. Pure."""
    if device.fate in NO_DEVICES:
        return False
    owned = snapshot.disks.grouped(_keys)
    if device.fate is Fate.DIRECTORY:
        return any(("directory", node, device.path) in owned for node in (device.node, ""))
    if device.minor is not None:
        return ("minor", device.node, device.minor) in owned
    kind, name = device.disk.get("dev_type"), device.logical_id
    return any((kind, node, name) in owned for node in (device.node, ""))


def _keys(disk: Disk) -> list[Hashable]:
    """Returns what a disk has: (kind, node or "" for any, name), with all below it."""
    found: list[Hashable] = [("minor", *pair) for pair in disk.minors()]
    found += _names(disk, disk.all_nodes())
    return found


def _names(disk: Disk, nodes: Sequence[str]) -> Iterator[Hashable]:
    if disk.logical_id is not None and not disk.template.port_and_minors:
        for node in ("",) if disk.template.external or not nodes else nodes:
            yield disk.dev_type, node, tuple(disk.logical_id)
            if disk.template.directory is not None:
                yield "directory", node, dirname(str(disk.logical_id[1]))
    for child in disk.children:
        yield from _names(child, nodes)


def _offline(instance: Instance) -> Instance:
    return replace(instance, admin_state="offline")


def _is_writing(status: dict[str, Any] | None) -> bool:
    """Whether an import daemon, by its status, is at work on what it was sent."""
    return status is not None and bool(status.get("connected")) and status["exit_status"] is None


class Aftermath:
    """Clears away after one job that was cut off, and ends it. Reactor thread only.

    An instance whose disks were being filled when the daemon died must not look whole: it goes
    with its disks if they surely lack data, and is marked offline if they may be complete. A
    helper VM is stopped before the disk that it boots from is removed.

    It takes neither a slot nor a thread. It holds the instances that the devices were for, so
    that a second try waits for it, and shares their nodes; the minors and names of the devices
    are reserved until the end. What the configuration has is left alone, and so is what
    can't be removed: the job's log and result name it, with the command that does it.
    """

    def __init__(self, services: Services, forget: Callable[[int], object], job_id: int) -> None:
        """``forget`` is called with the job's id at the end."""
        self.job_id = job_id
        self._services = services
        self._forget = forget
        job = self._job()
        self._devices = job.devices or ()
        self._index = cut_off(job) or 0
        self._done: list[str] = []
        #: Sentences about instances in the making that stay.
        self._kept: list[str] = []
        self._left: list[NotedDevice] = []
        self._told: list[NotedDevice] = []

    def _job(self) -> Job:
        job = self._services.queue.tip(self.job_id)
        assert job is not None
        return job

    def reserve(self) -> None:
        """Reserves the names and minors of the devices that nobody has."""
        services = self._services
        for device in self._devices:
            kind: str
            value: Hashable
            if device.minor is not None:
                kind, value = "minor", (device.node, device.minor)
            elif device.disk.get("dev_type") == "plain":
                kind, value = "volume", "/".join(map(str, device.logical_id))
            else:
                continue
            try:
                services.reservations.reserve(self.job_id, kind, value, services.store.tip)
            except (OpPrereqError, ReservationError):
                log.debug("{device} of job {job} is in use", device=device, job=self.job_id)

    def begin(self) -> None:
        """Begins; the job ends by itself."""
        self._run().addErrback(
            lambda failure: log.failure("Job {job} is stuck", failure, job=self.job_id)
        )

    @inlineCallbacks
    def _run(self) -> Generator[Any, Any, None]:
        services = self._services
        try:
            yield from self._lock()
            yield from self._settle_instances()
            yield gatherResults(
                [self._clear(list(devices)) for devices in self._by_node()], consumeErrors=True
            )
            for sentence in self._kept:
                self._say(f" - WARNING: {sentence}")
            text = self._summary()
        except DaemonStopping:
            # As it is on disk, the next start finds the job again.
            self._leave()
            return
        except Exception:
            log.failure("What job {job} left on nodes can't be cleared away", job=self.job_id)
            text = f"What no disk has of the following is to be removed: {by_hand(self._devices)}"
        services.locks.release_all(self.job_id)
        services.reservations.drop(self.job_id)
        error = encode_error(OpExecError(f"{STOPPED_UNCLEANLY}. {text}"))
        log.info("Job {job} ends: {text}", job=self.job_id, text=text)
        ended = model.fail(self._job(), self._index, error, services.timers.now())
        try:
            yield services.queue.commit_surely([ended])
        except DaemonStopping:
            log.info("The end of job {job} is recorded at the next start", job=self.job_id)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._services.locks.release_all(self.job_id)
        self._services.reservations.drop(self.job_id)
        self._forget(self.job_id)

    def _lock(self) -> Generator[Any, Any, None]:
        locks = self._services.locks
        owners = {device.owner for device in self._devices}
        yield from self._take(Level.CLUSTER, shared(BGL))
        there = owners & locks.members(Level.INSTANCE)
        yield from self._take(Level.INSTANCE, exclusive(there, creating=owners - there))
        nodes = {device.node for device in self._devices} & locks.members(Level.NODE)
        if nodes:
            yield from self._take(Level.NODE, shared(nodes))

    def _take(self, level: Level, wanted: WantedLocks) -> Generator[Any, Any, None]:
        answer = self._services.locks.acquire(self.job_id, level, wanted)
        if isinstance(answer, Deferred):
            yield answer

    # Instances in the making

    def _settle_instances(self) -> Generator[Any, Any, None]:
        """Takes half-filled instances out of the configuration; marks others, and names them.

        The devices of one that is taken out are nobody's then, and are cleared away as such.
        """
        for device in self._devices:
            if device.fate not in INSTANCES:
                continue
            instance = self._services.store.snapshot.instances.get(device.path)
            if instance is None or instance.forthcoming:
                continue
            remove = f"'gnt-instance remove {instance.name}' removes it"
            if instance.admin_state == "up":
                # One that was to run was complete before it was marked so.
                continue
            if device.fate is Fate.CREATION:
                if instance.admin_state == "down":
                    self._kept.append(
                        f"Instance {instance.name} is in the cluster, marked to be down, and may "
                        f"not be complete: {remove}"
                    )
            elif instance.admin_state == "down" and (yield from self._is_incomplete(device)):
                yield from self._remove_instance(instance)
            else:
                # A restart that was cut off itself may have marked it before.
                if instance.admin_state == "down":
                    yield self._services.store.change(instance.uuid, _offline)
                self._kept.append(
                    f"Instance {instance.name} is marked offline, as it isn't known whether its "
                    f"disks are complete: {remove}; if they are, 'gnt-instance modify --online "
                    f"{instance.name}' makes it usable"
                )

    @inlineCallbacks
    def _is_incomplete(self, device: NotedDevice) -> Generator[Any, Any, bool]:
        """Whether a disk of an instance surely lacks data."""
        daemons = {
            each.fills[0]: each
            for each in self._devices
            if each.fate is Fate.DAEMON and each.fills and each.owner == device.owner
        }
        if not daemons.keys() >= set(device.fills):
            # Nobody sends anything before all daemons listen that are to receive it.
            return True
        if device.fate is Fate.RECEIPT:
            # The other cluster may have removed what it has sent: all of it is to be written.
            for _ in range(LAST_WRITES):
                statuses = yield from self._ask_daemons(daemons.values())
                if not any(_is_writing(status) for status in statuses):
                    break
                yield self._services.timers.sleep(1.0)
            return False
        statuses = yield from self._ask_daemons(daemons.values())
        return any(status is not None and status.get("exit_status") != 0 for status in statuses)

    def _ask_daemons(
        self, daemons: Iterable[NotedDevice]
    ) -> Generator[Any, Any, list[dict[str, Any] | None]]:
        """Returns what is known of daemons, None for those of which nothing is."""
        found: list[dict[str, Any] | None] = []
        for daemon in daemons:
            node = self._services.store.snapshot.nodes.get(daemon.node)
            if node is None:
                found.append(None)
                continue
            arguments = ([daemon.path],)
            answer = yield self._ask(Target.of(node), calls.IMPEXP_STATUS, arguments)
            found.append(None if answer.failed or not answer.payload else answer.payload[0])
        return found

    def _remove_instance(self, instance: Instance) -> Generator[Any, Any, None]:
        services = self._services
        snapshot = services.store.tip
        whole = WholeInstance(instance, tuple(snapshot.disks_of(instance)))
        changed = services.store.apply(changes_between(whole, None, snapshot.cluster))
        # Its names and minors are free now, and the devices are still there.
        self.reserve()
        yield changed
        services.locks.remove_lock(self.job_id, Level.INSTANCE, instance.name)
        self._done.append(f"removed instance {instance.name}, whose disks were not complete")
        self._say(f" - INFO: removed instance {instance.name}, whose disks were not complete")

    # Devices

    def _by_node(self) -> Iterable[list[NotedDevice]]:
        found: dict[str, list[NotedDevice]] = {}
        for device in reversed(self._devices):
            if device.fate in INSTANCES:
                continue
            found.setdefault(device.node, []).append(device)
        return found.values()

    @inlineCallbacks
    def _clear(self, devices: list[NotedDevice]) -> Generator[Any, Any, None]:
        """Clears one node, in the order given."""
        for device in devices:
            snapshot = self._services.store.snapshot
            if is_owned(snapshot, device):
                continue
            node = snapshot.nodes.get(device.node)
            if node is None:
                self._not_done(device, "the node is no longer in the cluster")
                continue
            yield from self._treat(device, Target.of(node))

    def _treat(self, device: NotedDevice, target: Target) -> Generator[Any, Any, None]:
        if device.fate is Fate.DIRECTORY:
            yield from self._act(
                device, target, calls.FILE_STORAGE_DIR_REMOVE, (device.path,), quiet=True
            )
            return
        if device.fate is Fate.GUEST:
            yield from self._stop_guest(device, target)
            return
        if device.fate is Fate.DAEMON:
            yield from self._act(device, target, calls.IMPEXP_CLEANUP, (device.path,), quiet=True)
            return
        found: NodeResult[Any] = yield self._ask(target, calls.BLOCKDEV_FIND, (device.disk,))
        if not found.failed and found.payload is None:
            return
        if device.fate is Fate.TELL:
            if found.failed:
                self._not_done(device, str(found.error))
            else:
                self._told.append(device)
                self._say(f" - WARNING: {device} is left, and no disk has it")
                self._hint(device)
        elif device.fate is Fate.RENAME:
            if found.failed:
                self._not_done(device, str(found.error))
            else:
                pair = [device.disk, list(device.old or ())]
                yield from self._act(device, target, calls.BLOCKDEV_RENAME, ([pair],))
        else:
            # A node may not find what it can remove, such as a volume of an external storage.
            yield from self._act(device, target, calls.BLOCKDEV_REMOVE, (device.disk,))

    def _stop_guest(self, device: NotedDevice, target: Target) -> Generator[Any, Any, None]:
        """Stops a helper VM; nothing else can run in its place before the job has forgotten it."""
        snapshot = self._services.store.snapshot
        instance = snapshot.instances.named(device.owner)
        if instance is None:
            return
        sent = node_objects.instance(snapshot, instance, device.node)
        sent["disks_info"] = [device.disk, *sent["disks_info"]]
        arguments: tuple[Any, ...] = (sent, DEFAULT_SHUTDOWN_TIMEOUT, [])
        yield from self._act(device, target, calls.INSTANCE_SHUTDOWN, arguments)

    def _act(
        self,
        device: NotedDevice,
        target: Target,
        call: Call[Any],
        arguments: tuple[Any, ...],
        *,
        quiet: bool = False,
    ) -> Generator[Any, Any, None]:
        """Makes a call that clears a device away; ``quiet`` if it may have had nothing to do."""
        answer: NodeResult[Any] = yield self._ask(target, call, arguments)
        if answer.failed:
            self._not_done(device, str(answer.error))
        elif not quiet:
            verb = _DONE.get(device.fate, "removed")
            self._done.append(f"{verb} {device}")
            self._say(f" - INFO: {verb} {device}")

    def _ask(
        self, target: Target, call: Call[Any], arguments: tuple[Any, ...]
    ) -> Deferred[NodeResult[Any]]:
        return ask_one(self._services.nodes, target, call, arguments)

    def _not_done(self, device: NotedDevice, reason: str) -> None:
        self._left.append(device)
        doing = _DOING.get(device.fate, "remove")
        self._say(f" - WARNING: Could not {doing} {device}: {reason}")
        self._hint(device)

    def _hint(self, device: NotedDevice) -> None:
        if device.command is not None:
            self._say(f"      Hint: {device.command}")

    def _say(self, text: str) -> None:
        def lost(failure: Failure) -> None:
            log.warn(
                "A log line of job {job} is lost: {error}", job=self.job_id, error=failure.value
            )

        queue = self._services.queue
        queue.add_log(self.job_id, self._index, ELOG_MESSAGE, text).addErrback(lost)

    def _summary(self) -> str:
        """Says in one sentence what was cleared away, and what is left and how that goes."""
        parts = []
        if self._done:
            parts.append(f"The restart {', '.join(self._done)}")
        if self._left:
            subject = "it" if parts else "The restart"
            parts.append(f"{subject} could not clear away what may be left: {by_hand(self._left)}")
        if self._told:
            parts.append(f"{'left' if parts else 'Left'} for you to remove: {by_hand(self._told)}")
        if not parts and not self._kept:
            return "Nothing that no disk has is left on nodes"
        return ". ".join(["; ".join(parts)] * bool(parts) + self._kept)

    # From the executor, as of any job that is under way

    def proceed(self) -> None:
        """Does nothing: it needs no slot."""

    def cancel_waiting(self) -> bool:
        """Refuses: what is left on nodes is cleared away in any case."""
        return False

    def kill(self) -> bool:
        """Refuses, as :meth:`cancel_waiting`."""
        return False

    def reprioritize(self, priority: int) -> None:
        """Does nothing."""

    def give_up_waiting(self) -> None:
        """Does nothing: a stop waits for its end."""
