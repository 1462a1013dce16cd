"""Methods of this daemon's own about the configuration's history; luxid doesn't have them.

See protocol/luxi.rst, Methods of this daemon.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks

from ganeti_masterd.config.changes import Restore
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ChangeAuthor
from ganeti_masterd.errors import (
    ECODE_STATE,
    GenericError,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.execution.targets import targets_of
from ganeti_masterd.history import answers
from ganeti_masterd.history.differences import differences
from ganeti_masterd.history.restoring import (
    DiskClaim,
    PlannedRestore,
    disks_contradict,
    instances_contradict,
    plan_restore,
)
from ganeti_masterd.history.states import state_of
from ganeti_masterd.locking.levels import BGL, Level, all_exclusive, exclusive
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.resources import CONFIGURED
from ganeti_masterd.requests.daemon import Daemon, HistoryParts
from ganeti_masterd.requests.methods import OWN_METHODS, method
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import Target

#: Who holds the locks while a version is restored: no job has this id.
RESTORER = 0

#: Seconds that a restoration waits for the jobs that hold locks.
PATIENCE = 60.0

_MIB = 1 << 20


class RestoreAnswer(Struct, frozen=True):
    """What a restoration did, or would do.

    ``refusals`` say why nothing was done, ``kept`` what stays as it is; ``changes`` are in words.
    ``serial`` is the document's after it, None where it changed nothing.
    """

    refusals: list[str]
    kept: list[str]
    changes: list[str]
    serial: int | None


def _parts(daemon: Daemon) -> HistoryParts:
    parts = daemon.history
    if parts is None:
        raise GenericError("This daemon keeps no history of the configuration")
    return parts


@method("ConfigLog", table=OWN_METHODS)
def config_log(daemon: Daemon, peer: Peer, newest: int | None = None) -> Deferred[list[Any]]:
    """Answers the versions, the oldest first, each with who made it and what it changed."""
    if newest is not None and newest < 1:
        raise prereq("ConfigLog: argument newest: expected a number from 1 up")

    def told(found: list[answers.VersionChanges]) -> list[Any]:
        return [
            {
                **msgspec.structs.asdict(one.version),
                "changes": one.lines,
                "change_count": one.count,
            }
            for one in found
        ]

    return _parts(daemon).history.ask(answers.listing, newest).addCallback(told)


@method("ConfigDiff", table=OWN_METHODS)
def config_diff(
    daemon: Daemon, peer: Peer, old: int, new: int | None = None
) -> Deferred[list[Any]]:
    """Answers what differs between two versions; without ``new`` between one and the newest."""
    return _parts(daemon).history.ask(answers.compared, old, new).addCallback(answers.as_plain)


@method("ConfigShow", table=OWN_METHODS)
def config_show(daemon: Daemon, peer: Peer, version: int) -> Deferred[dict[str, Any]]:
    """Answers a version, without private values."""
    return _parts(daemon).history.ask(answers.shown, version)


@method("ConfigRestore", changes=True, table=OWN_METHODS)
def config_restore(
    daemon: Daemon, peer: Peer, version: int, only_check: bool = False
) -> Deferred[RestoreAnswer]:
    """Restores a version; checks everything first, and changes nothing where that finds a fault."""
    return _Restoration(daemon, _parts(daemon), peer, version, only_check).run()


class _Restoration:
    """One request to restore a version."""

    def __init__(
        self, daemon: Daemon, parts: HistoryParts, peer: Peer, version: int, only_check: bool
    ) -> None:
        self._store = daemon.store
        self._timers = daemon.queue.timers
        self._parts = parts
        self._peer = peer
        self._version = version
        self._only_check = only_check

    @inlineCallbacks
    def run(self) -> Generator[Any, Any, RestoreAnswer]:
        """Fires with what was done, or would be."""
        earlier = yield self._parts.history.ask(answers.version, self._version)
        planned = plan_restore(self._store.snapshot, earlier)
        if planned.refusals:
            return self._answer(planned, planned.refusals)
        locks = self._parts.locks
        if self._parts.restoring:
            raise OpPrereqError("Another version is being restored", ECODE_STATE)
        self._parts.restoring.append(self)
        try:
            yield from self._lock()
            # Others may have changed it meanwhile.
            planned = plan_restore(self._store.snapshot, earlier)
            refusals = planned.refusals or (yield self._contradictions(planned))
            if refusals or self._only_check:
                return self._answer(planned, refusals)
            changes = self._words(planned)
            after = yield self._commit(planned)
            return RestoreAnswer([], planned.kept, changes, after.header.serial_no)
        finally:
            self._parts.restoring.remove(self)
            locks.release_all(RESTORER)

    def _answer(self, planned: PlannedRestore, refusals: list[str]) -> RestoreAnswer:
        changes = [] if refusals else self._words(planned)
        return RestoreAnswer(refusals, planned.kept, changes, None)

    def _words(self, planned: PlannedRestore) -> list[str]:
        before, after = state_of(self._store.snapshot), state_of(planned.goal)
        return [one.text for one in differences(before, after)]

    def _lock(self) -> Generator[Any, Any, None]:
        """Takes the cluster's lock and, to be able to add and remove them, all others."""
        locks = self._parts.locks
        for level in Level:
            wanted = exclusive(BGL) if level is Level.CLUSTER else all_exclusive
            waiting = locks.acquire(RESTORER, level, wanted)
            if not isinstance(waiting, Deferred):
                continue
            timer = self._timers.later(PATIENCE, waiting.cancel)
            try:
                yield waiting
            except CancelledError:
                raise OpPrereqError(
                    f"Jobs held locks for {PATIENCE:.0f} seconds, nothing was restored: wait for "
                    "them, or drain the queue first",
                    ECODE_STATE,
                ) from None
            finally:
                timer.cancel()

    @inlineCallbacks
    def _contradictions(self, planned: PlannedRestore) -> Generator[Any, Any, list[str]]:
        """Fires with what nodes say against the configuration to be."""
        current = self._store.snapshot
        found: list[str] = []
        found += yield self._running(current, planned)
        claims: dict[str, list[DiskClaim]] = {}
        for claim in planned.claims:
            if claim.node not in current.nodes:
                found.append(f"instance {claim.instance.name} has a disk on no node of the cluster")
            else:
                claims.setdefault(claim.node, []).append(claim)
        if not found:
            found += yield self._disks(current, planned.goal, claims)
        return found

    @inlineCallbacks
    def _running(
        self, current: Snapshot, planned: PlannedRestore
    ) -> Generator[Any, Any, list[str]]:
        targets = targets_of(
            current,
            [n.uuid for n in current.nodes.values() if n.vm_capable and not n.offline],
        )
        names = list(current.cluster.enabled_hypervisors)
        params = {name: dict(current.cluster.hvparams.get(name, {})) for name in names}
        results = yield call_nodes(
            self._parts.nodes, targets, calls.ALL_INSTANCES_INFO, (names, params)
        )
        found: list[str] = []
        for uuid, result in results.items():
            if result.failed:
                found.append(f"node {result.node} doesn't say what runs there: {result.error}")
            else:
                found += instances_contradict(current, planned.goal, uuid, result.payload)
        return found

    @inlineCallbacks
    def _disks(
        self, current: Snapshot, goal: Snapshot, claims: Mapping[str, list[DiskClaim]]
    ) -> Generator[Any, Any, list[str]]:
        def sent(claim: DiskClaim) -> dict[str, Any]:
            about = goal if claim.wanted else current
            if claim.child is None:
                return node_objects.disk(about, claim.disk, claim.instance, claim.node)
            return node_objects.disk_child(
                about, claim.disk, claim.child, claim.instance, claim.node
            )

        def arguments(target: Target) -> list[Any]:
            return [[sent(claim) for claim in claims[target.key]]]

        if not claims:
            return []
        results = yield call_nodes(
            self._parts.nodes,
            targets_of(current, claims),
            calls.BLOCKDEV_GETDIMENSIONS,
            arguments,
        )
        found: list[str] = []
        for uuid, result in results.items():
            if result.failed or len(result.payload) != len(claims[uuid]):
                why = result.error or "its answer has another length"
                found.append(f"node {result.node} doesn't say which disks it has: {why}")
                continue
            for claim, told in zip(claims[uuid], result.payload, strict=True):
                size = None if told is None else told.size // _MIB
                fault = disks_contradict(claim, result.node, size)
                if fault is not None:
                    found.append(fault)
        return found

    @inlineCallbacks
    def _commit(self, planned: PlannedRestore) -> Generator[Any, Any, Snapshot]:
        before = self._store.snapshot
        author = ChangeAuthor(uid=self._peer.uid, note=f"version {self._version} restored")
        after: Snapshot = yield self._store.apply([Restore(planned.goal)], author)
        locks = self._parts.locks
        for resource in CONFIGURED:
            if resource.level is None:
                continue
            name_of = resource.objects.lock_of
            old, new = (
                {name_of(obj) for obj in each.section(resource.objects.section).values()}
                for each in (before, after)
            )
            for name in sorted(old - new):
                locks.remove_lock(RESTORER, resource.level, name)
            for name in sorted(new - old):
                locks.add_lock(resource.level, name)
        return after
