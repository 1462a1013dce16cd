"""The methods answered on the socket of wconfd, which this daemon replaces.

Ganeti's own job processes ask wconfd for locks, addresses, ports and changes of the configuration.
Here jobs run inside the daemon, so only tools use the socket: ganeti-watcher to check that wconfd
is alive, ``gnt-cluster destroy`` to get the configuration, ``gnt-debug wconfd`` to list locks,
``gnt-cluster renew-crypto`` and ``gnt-cluster master-failover`` to change the configuration while
no jobs run. Messages are framed like LUXI's.

The methods are in a table like LUXI's, :data:`WCONFD_METHODS`. The other methods of real wconfd
3.0.2, :data:`NOT_SERVED`, are refused by name. Errors have the form of real wconfd's:
``GenericError`` with ``No such method: NAME`` or ``RPC input: ...``. A method without a result
answers ``[]``, as real wconfd does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred

from ganeti_masterd.config.document import parse, parse_cluster
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.errors import (
    ConfigurationError,
    ConfigVerifyError,
    GenericError,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.locking.decisions import LockState
from ganeti_masterd.locking.levels import LOCKSET, LockMode, lock_name
from ganeti_masterd.luxi.messages import Encoded, LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.slices import Slices, then
from ganeti_masterd.requests.arguments import Reading, shown
from ganeti_masterd.requests.config_lock import CONFIG_LOCK, ConfigLock, WconfdClient
from ganeti_masterd.requests.config_writing import ConfigWriter, faults_of
from ganeti_masterd.requests.methods import Method, log_change, method, shielded, with_typed

#: Methods of real wconfd 3.0.2 that serve its job processes.
NOT_SERVED = frozenset(
    {
        *("prepareClusterDestruction", "writeConfig", "flushConfigGroup", "dropAllReservations"),
        *("computeDRBDMap",),
        *("allocateDRBDMinor", "releaseDRBDMinors", "reserveMAC", "generateMAC"),
        *("generateDRBDSecret", "reserveLV", "reserveIp", "releaseIp", "generateIp"),
        *("commitTemporaryIps", "commitReleaseTemporaryIp", "listReservedIps"),
        *("listLocksWaitingStatus", "tryUpdateLocks", "updateLocksWaiting", "freeLocks"),
        *("freeLocksLevel", "downGradeLocksLevel", "intersectLocks", "opportunisticLockUnion"),
        *("guardedOpportunisticLockUnion", "hasPendingRequest", "addInstance"),
        *("addInstanceDisk", "addTcpUdpPort", "allocatePort", "attachInstanceDisk"),
        *("detachInstanceDisk", "removeInstance", "removeInstanceDisk"),
        *("setInstancePrimaryNode", "setInstanceStatus", "updateDisk"),
        *("updateInstance", "updateNetwork", "updateNode", "updateNodeGroup"),
    }
)


def _client(value: Any, where: str) -> WconfdClient:
    try:
        who, lock_file, pid = msgspec.convert(value, tuple[int | str, str, int])
    except msgspec.ValidationError:
        raise prereq(f"{where}: malformed client id: {shown(value)}")
    return WconfdClient(who, lock_file, pid)


def _document(value: Any, where: str) -> Snapshot:
    try:
        return parse(msgspec.json.encode(value), where)
    except ConfigurationError as error:
        raise prereq(str(error)) from None


def _cluster(value: Any, where: str) -> Cluster:
    try:
        return parse_cluster(msgspec.json.encode(value), where)
    except ConfigurationError as error:
        raise prereq(str(error)) from None


#: A client as it is sent in JSON.
ClientId = Annotated[WconfdClient, Reading(_client)]
#: The whole configuration as it is sent in JSON.
ConfigDocument = Annotated[Snapshot, Reading(_document)]
#: The cluster object as it is sent in JSON.
ClusterObject = Annotated[Cluster, Reading(_cluster)]


class WconfdParts(Struct, frozen=True):
    """The parts of the daemon that these methods use; created once, by the assembly.

    ``locks`` returns the locks that are held or awaited. ``flushed`` fires when the configuration
    is in config.data here and on the candidates. ``lock_file`` and ``pid`` are the daemon's own,
    and are shown for all its jobs. ``config_lock`` and ``writer`` are for tools that change the
    configuration.
    """

    store: ConfigStore
    locks: Callable[[], Iterator[LockState]]
    flushed: Callable[[], Deferred[None]]
    slices: Slices
    lock_file: str
    pid: int
    config_lock: ConfigLock
    writer: ConfigWriter

    def job(self, job_id: int) -> WconfdClient:
        """Returns the client for a job."""
        return WconfdClient(job_id, self.lock_file, self.pid)


#: Every method that is answered on wconfd's socket, by name.
WCONFD_METHODS: dict[str, Method] = {}

_wconfd_method = partial(method, table=WCONFD_METHODS)


@_wconfd_method("echo")
def echo(parts: WconfdParts, peer: Peer, text: str) -> str:
    """Answers the text."""
    return text


@_wconfd_method("readConfig")
def read_config(parts: WconfdParts, peer: Peer) -> Encoded:
    """Answers the whole published configuration, even after OP_CLUSTER_DESTROY.

    It is joined from the pages from which config.data was last written.
    """
    return Encoded(parts.store.image().encode())


@_wconfd_method("flushConfig")
def flush_config(parts: WconfdParts, peer: Peer) -> Deferred[list[Any]]:
    """Answers once config.data and the candidates that can be reached have the configuration."""
    return parts.flushed().addCallback(lambda _: [])


@_wconfd_method("verifyConfig")
def verify_config(parts: WconfdParts, peer: Peer) -> Deferred[list[Any]]:
    """Answers ``[]`` for a sound configuration, else the error ``ConfigVerifyError``."""

    def judged(faults: list[str]) -> list[Any]:
        if faults:
            raise ConfigVerifyError("Validation failed", faults)
        return []

    return faults_of(parts.slices, parts.store.snapshot).addCallback(judged)


@_wconfd_method("lockConfig", changes=True)
def lock_config(
    parts: WconfdParts, peer: Peer, client: ClientId, shared: bool
) -> Encoded | Deferred[Encoded | None] | None:
    """Answers the configuration and locks it for the client, or null while others have it locked.

    The daemon's own changes wait for the client, half a minute at most.
    """

    def told(granted: bool) -> Encoded | None:
        return read_config(parts, peer) if granted else None

    mode = LockMode.SHARED if shared else LockMode.EXCLUSIVE
    return then(parts.config_lock.acquire(client, mode), told)


@_wconfd_method("unlockConfig", changes=True)
def unlock_config(parts: WconfdParts, peer: Peer, client: ClientId) -> list[Any]:
    """Answers ``[]`` and unlocks the configuration, if the client had it locked."""
    parts.config_lock.release(client)
    return []


@_wconfd_method("writeConfigAndUnlock", changes=True, largest=None, counted=False)
def write_config_and_unlock(
    parts: WconfdParts, peer: Peer, client: ClientId, config: ConfigDocument
) -> bool | Deferred[bool]:
    """Answers true once the configuration that the client had locked is replaced and unlocked.

    Answers false to a request that is repeated once it was done. Real wconfd does so to everyone
    who doesn't have the lock; as its clients take that for success, here it is an error for those
    who have lost it.
    """
    return parts.writer.write(client, config, peer.uid)


@_wconfd_method("updateCluster", changes=True, largest=None)
def update_cluster(parts: WconfdParts, peer: Peer, cluster: ClusterObject) -> Deferred[Any]:
    """Replaces the cluster object; answers its new serial and time, null while others lock it."""
    return parts.writer.update_cluster(cluster, peer.uid)


@_wconfd_method("listAllLocks")
def list_all_locks(parts: WconfdParts, peer: Peer) -> list[str]:
    """Answers the names of all locks that are held, and of the lock sets of jobs' levels."""
    return [_name(state) for state in _ordered(parts.locks())] + (
        [CONFIG_LOCK] if parts.config_lock.holders else []
    )


@_wconfd_method("listAllLocksOwners")
def list_all_locks_owners(parts: WconfdParts, peer: Peer) -> list[Any]:
    """Answers ``[name, [[client, mode], ...]]`` for each lock in :func:`list_all_locks`."""
    found: list[Any] = [
        [_name(state), [[parts.job(owner).sent, _mode(state)] for owner in state.owners]]
        for state in _ordered(parts.locks())
    ]
    holders = parts.config_lock.holders
    if holders:
        found.append([CONFIG_LOCK, [[client.sent, mode.value] for client, mode in holders]])
    return found


@_wconfd_method("listLocks")
def list_locks(parts: WconfdParts, peer: Peer, client: ClientId) -> list[Any]:
    """Answers ``[name, mode]`` for each lock that a client, a job or a tool, holds."""
    found: list[Any] = [
        [_name(state), _mode(state)]
        for state in _ordered(parts.locks())
        if any(parts.job(owner) == client for owner in state.owners)
    ]
    found += [[CONFIG_LOCK, m.value] for one, m in parts.config_lock.holders if one == client]
    return found


@_wconfd_method("cleanupLocks")
def cleanup_locks(parts: WconfdParts, peer: Peer) -> list[Any]:
    """Answers ``[]``; frees what tools that have died hold. A job's locks end with it."""
    parts.config_lock.clean_up()
    return []


class WconfdAnswers:
    """Answers requests on wconfd's socket; passed to the LUXI server."""

    def __init__(self, parts: WconfdParts) -> None:
        self._parts = parts

    def __call__(self, request: LuxiRequest, peer: Peer) -> Any:
        """Returns the result or a Deferred of it; raises ``GenericError``."""
        declared = WCONFD_METHODS.get(request.method)
        if declared is None:
            if request.method in NOT_SERVED:
                raise GenericError(
                    f"{request.method} is not answered: gnt-masterd runs in the place of"
                    " ganeti-wconfd, and its jobs are no processes that ask for this"
                )
            raise GenericError(f"No such method: {_short(request.method)}")
        try:
            args = request.typed.result() if request.typed else declared.read(request.args)
        except OpPrereqError as error:
            raise GenericError(f"RPC input: {error.args[0]}") from None
        if declared.changes:
            log_change(declared.name, peer)
        result = declared.function(self._parts, peer, *args)
        if declared.changes and isinstance(result, Deferred):
            return shielded(result)
        return result

    def read_ahead(self, request: LuxiRequest) -> LuxiRequest:
        """Returns the request with its arguments typed, or their error. For any thread."""
        declared = WCONFD_METHODS.get(request.method)
        if declared is None:
            return request
        return with_typed(request, lambda: declared.read(request.args))


def _ordered(states: Iterator[LockState]) -> list[LockState]:
    """Returns locks in the real daemon's order: by level, its lock set first, then by name."""
    return sorted(states, key=lambda state: (state.level, state.name or ""))


def _name(state: LockState) -> str:
    return lock_name(state.level, LOCKSET if state.name is None else state.name)


def _mode(state: LockState) -> str | None:
    return None if state.mode is None else state.mode.value


def _short(name: str) -> str:
    return name if len(name) <= 60 else name[:57] + "..."
