"""The configuration changed by a tool, through wconfd's socket: :class:`ConfigWriter`.

Such a change goes the way of any other: it is drafted on the present configuration, verified,
committed, recorded and replicated. What only jobs may do, adding, removing and renaming objects, is
refused, as locks of jobs depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, inlineCallbacks

from ganeti_masterd.config.changes import Change, Rewrite, Update, completed, draft
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ChangeAuthor, ConfigStore
from ganeti_masterd.config.verify import CHECKS
from ganeti_masterd.errors import ConfigurationError, ConfigVerifyError
from ganeti_masterd.query.slices import WEIGHT, Slices
from ganeti_masterd.requests.config_lock import ConfigLock, WconfdClient
from ganeti_masterd.timing import Timers

#: With up to this many nodes and instances the configuration is verified in one reactor turn; with
#: more, each check gets its own turn.
_FEW = 500

#: Called with the configuration before and after a change of the master; raises
#: ``ConfigurationError`` where that isn't allowed.
MasterRule = Callable[[Snapshot, Snapshot], object]


def no_other_master(before: Snapshot, after: Snapshot) -> None:
    """The rule of a master daemon: the master doesn't change while it runs."""
    raise ConfigurationError(
        f"The master node can't be changed on the master, which is {before.master.name}: run"
        " gnt-cluster master-failover on the node that is to become it"
    )


def faults_of(slices: Slices, snapshot: Snapshot) -> Deferred[list[str]]:
    """Fires with the faults of a configuration, found in short steps if it is big."""

    def found(checks: Sequence[Any]) -> list[str]:
        return [fault for check in checks for fault in check(snapshot)]

    def joined(parted: list[list[str]]) -> list[str]:
        return [fault for part in parted for fault in part]

    each = 1 if len(snapshot.instances) + len(snapshot.nodes) < _FEW else WEIGHT
    parted = slices.run(CHECKS, each, found)
    if isinstance(parted, Deferred):
        return parted.addCallback(joined)
    done: Deferred[list[str]] = Deferred()
    done.callback(joined(parted))
    return done


class ConfigWriter:
    """Makes the changes that tools ask for. Reactor thread only.

    ``flushed`` fires when the configuration is in config.data here and on the candidates.
    """

    def __init__(
        self,
        store: ConfigStore,
        lock: ConfigLock,
        slices: Slices,
        timers: Timers,
        flushed: Callable[[], Deferred[None]],
        master_rule: MasterRule = no_other_master,
    ) -> None:
        self._store = store
        self._lock = lock
        self._slices = slices
        self._timers = timers
        self._flushed = flushed
        self._master_rule = master_rule
        #: Clients whose documents are being put in place, with those that wait for the same.
        self._under_way: dict[WconfdClient, list[Deferred[bool]]] = {}

    def write(
        self, client: WconfdClient, document: Snapshot, uid: int | None
    ) -> bool | Deferred[bool]:
        """Puts a whole document in place, and ends the lock of the client; true once that is done.

        Fails with ``ConfigurationError`` or ``ConfigVerifyError``, and nothing is changed; the
        client keeps its lock no more either. A client that asks again, as its connection was lost,
        hears what becomes of its first request, or False if that has been done. Raises
        ``GenericError`` if the client neither has the lock nor has written.
        """
        waiting = self._under_way.get(client)
        if waiting is not None and client not in dict(self._lock.holders):
            repeated: Deferred[bool] = Deferred()
            waiting.append(repeated)
            return repeated
        if not self._lock.owned(client):
            return False
        waiting = self._under_way[client] = []

        def over(result: Any) -> Any:
            if self._under_way.get(client) is waiting:
                del self._under_way[client]
            for each in waiting:
                each.callback(result)
            return result

        return self._write(client, document, uid).addBoth(over)

    @inlineCallbacks
    def _write(
        self, client: WconfdClient, document: Snapshot, uid: int | None
    ) -> Generator[Any, Any, bool]:
        author = ChangeAuthor(uid=uid, note=f"written by {client}")
        self._lock.begin_as(client)
        written: WconfdClient | None = None
        try:
            yield self._commit(Rewrite(document), author)
            written = client
        finally:
            self._lock.end(written)
        yield self._flushed()
        return True

    def update_cluster(
        self, cluster: Cluster, uid: int | None
    ) -> Deferred[tuple[int, float] | None]:
        """Replaces the cluster object; fires with its new serial and time once that is flushed.

        Fires with None, and changes nothing, while the configuration is locked. An object that was
        sent before, and is in place, gives the same answer again.
        """
        begun = self._lock.begin()
        if begun is None:
            locked: Deferred[tuple[int, float] | None] = Deferred()
            locked.callback(None)
            return locked
        return self._update_cluster(begun, cluster, uid)

    @inlineCallbacks
    def _update_cluster(
        self, begun: Deferred[None], cluster: Cluster, uid: int | None
    ) -> Generator[Any, Any, tuple[int, float] | None]:
        try:
            yield begun
            current = self._store.tip.cluster
            if not _repeated(current, cluster):
                _check_cluster(current, cluster)
                whole = completed("cluster", current, cluster)
                change = Update(current.uuid, lambda _: replace(whole))
                author = ChangeAuthor(uid=uid, note="cluster updated by a tool")
                after = yield self._commit(change, author)
                current = after.cluster
        finally:
            self._lock.end()
        yield self._flushed()
        return current.serial_no, current.mtime

    @inlineCallbacks
    def _commit(self, change: Change, author: ChangeAuthor) -> Generator[Any, Any, Snapshot]:
        """Makes one change; nothing else changes the configuration meanwhile."""
        before = self._store.tip
        after = draft(before, [change], self._timers.now()).after
        if after.cluster.master_node != before.cluster.master_node:
            self._master_rule(before, after)
        known = yield faults_of(self._slices, before)
        found = yield faults_of(self._slices, after)
        new = [fault for fault in found if fault not in set(known)]
        if new:
            raise ConfigVerifyError("Validation failed", new)
        published: Snapshot = yield self._store.apply_held([change], author)
        return published


def _repeated(current: Cluster, sent: Cluster) -> bool:
    """Whether an object is in place already, from a request whose answer was lost."""
    there = replace(sent, serial_no=current.serial_no, ctime=current.ctime, mtime=current.mtime)
    return sent.serial_no == current.serial_no - 1 and there.plain() == current.plain()


def _check_cluster(current: Cluster, sent: Cluster) -> None:
    if sent.uuid != current.uuid:
        raise ConfigurationError(f"The object is of cluster {sent.uuid}, not {current.uuid}")
    if sent.serial_no != current.serial_no:
        raise ConfigurationError(
            "Configuration object updated since it has been read:"
            f" {current.serial_no} != {sent.serial_no}"
        )
