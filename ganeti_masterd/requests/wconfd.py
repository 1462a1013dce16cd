"""The methods answered on the socket of wconfd, which this daemon replaces.

Ganeti's own job processes ask wconfd for locks, addresses, ports and changes of the configuration.
Here jobs run inside the daemon, so only tools use the socket: ganeti-watcher to check that wconfd
is alive, ``gnt-cluster destroy`` to get the configuration, ``gnt-debug wconfd`` to list locks.
Messages are framed like LUXI's.

The methods are in a table like LUXI's, :data:`WCONFD_METHODS`. The other methods of real wconfd
3.0.2, :data:`NOT_SERVED`, are refused by name. Errors have the form of real wconfd's:
``GenericError`` with ``No such method: NAME`` or ``RPC input: ...``. A method without a result
answers ``[]``, as real wconfd does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred

from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.config.verify import CHECKS
from ganeti_masterd.errors import ConfigVerifyError, GenericError, OpPrereqError, prereq
from ganeti_masterd.locking.decisions import LockState
from ganeti_masterd.locking.levels import LOCKSET, lock_name
from ganeti_masterd.luxi.messages import Encoded, LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.slices import WEIGHT, Slices, then
from ganeti_masterd.requests.arguments import Reading, shown
from ganeti_masterd.requests.methods import Method, method

#: With up to this many nodes and instances the configuration is verified in one reactor turn; with
#: more, each check gets its own turn.
_FEW = 500

#: Methods of real wconfd 3.0.2 that change something or serve its job processes.
NOT_SERVED = frozenset(
    {
        *("prepareClusterDestruction", "writeConfig", "lockConfig", "unlockConfig"),
        *("writeConfigAndUnlock", "flushConfigGroup", "dropAllReservations", "computeDRBDMap"),
        *("allocateDRBDMinor", "releaseDRBDMinors", "reserveMAC", "generateMAC"),
        *("generateDRBDSecret", "reserveLV", "reserveIp", "releaseIp", "generateIp"),
        *("commitTemporaryIps", "commitReleaseTemporaryIp", "listReservedIps"),
        *("listLocksWaitingStatus", "tryUpdateLocks", "updateLocksWaiting", "freeLocks"),
        *("freeLocksLevel", "downGradeLocksLevel", "intersectLocks", "opportunisticLockUnion"),
        *("guardedOpportunisticLockUnion", "hasPendingRequest", "addInstance"),
        *("addInstanceDisk", "addTcpUdpPort", "allocatePort", "attachInstanceDisk"),
        *("detachInstanceDisk", "removeInstance", "removeInstanceDisk"),
        *("setInstancePrimaryNode", "setInstanceStatus", "updateCluster", "updateDisk"),
        *("updateInstance", "updateNetwork", "updateNode", "updateNodeGroup"),
    }
)


class Client(Struct, frozen=True):
    """The holder of locks in wconfd's form: ``[who, lock file, pid]``.

    ``who`` is a job id, or a tool's name for itself. The process ``pid`` keeps the lock file locked
    while it lives.
    """

    who: int | str
    lock_file: str
    pid: int

    @property
    def sent(self) -> list[int | str]:
        """The client as it is sent in JSON."""
        return [self.who, self.lock_file, self.pid]


def _client(value: Any, where: str) -> Client:
    try:
        who, lock_file, pid = msgspec.convert(value, tuple[int | str, str, int])
    except msgspec.ValidationError:
        raise prereq(f"{where}: malformed client id: {shown(value)}")
    return Client(who, lock_file, pid)


#: A client as it is sent in JSON.
ClientId = Annotated[Client, Reading(_client)]


class WconfdParts(Struct, frozen=True):
    """The parts of the daemon that these methods use; created once, by the assembly.

    ``locks`` returns the locks that are held or awaited. ``flushed`` fires when the configuration
    is in config.data here and on the candidates. ``lock_file`` and ``pid`` are the daemon's own,
    and are shown for all its jobs.
    """

    store: ConfigStore
    locks: Callable[[], Iterator[LockState]]
    flushed: Callable[[], Deferred[None]]
    slices: Slices
    lock_file: str
    pid: int

    def job(self, job_id: int) -> Client:
        """Returns the client for a job."""
        return Client(job_id, self.lock_file, self.pid)


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
def verify_config(parts: WconfdParts, peer: Peer) -> list[Any] | Deferred[list[Any]]:
    """Answers ``[]`` for a sound configuration, else the error ``ConfigVerifyError``."""
    snapshot = parts.store.snapshot

    def found(checks: Sequence[Any]) -> list[str]:
        return [fault for check in checks for fault in check(snapshot)]

    def judged(parted: list[list[str]]) -> list[Any]:
        faults = [fault for part in parted for fault in part]
        if faults:
            raise ConfigVerifyError("Validation failed", faults)
        return []

    each = 1 if len(snapshot.instances) + len(snapshot.nodes) < _FEW else WEIGHT
    return then(parts.slices.run(CHECKS, each, found), judged)


@_wconfd_method("listAllLocks")
def list_all_locks(parts: WconfdParts, peer: Peer) -> list[str]:
    """Answers the names of all locks that jobs hold, and of the lock sets of their levels."""
    return [_name(state) for state in _ordered(parts.locks())]


@_wconfd_method("listAllLocksOwners")
def list_all_locks_owners(parts: WconfdParts, peer: Peer) -> list[Any]:
    """Answers ``[name, [[client, mode], ...]]`` for each lock in :func:`list_all_locks`."""
    return [
        [_name(state), [[parts.job(owner).sent, _mode(state)] for owner in state.owners]]
        for state in _ordered(parts.locks())
    ]


@_wconfd_method("listLocks")
def list_locks(parts: WconfdParts, peer: Peer, client: ClientId) -> list[Any]:
    """Answers ``[name, mode]`` for each lock that the client holds; only jobs hold any."""
    return [
        [_name(state), _mode(state)]
        for state in _ordered(parts.locks())
        if any(parts.job(owner) == client for owner in state.owners)
    ]


@_wconfd_method("cleanupLocks")
def cleanup_locks(parts: WconfdParts, peer: Peer) -> list[Any]:
    """Answers ``[]``: a job's locks end with it, so no dead process ever holds any."""
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
                    " ganeti-wconfd, and here nobody but its own jobs changes the configuration"
                )
            raise GenericError(f"No such method: {_short(request.method)}")
        try:
            args = declared.read(request.args)
        except OpPrereqError as error:
            raise GenericError(f"RPC input: {error.args[0]}") from None
        return declared.function(self._parts, peer, *args)


def _ordered(states: Iterator[LockState]) -> list[LockState]:
    """Returns locks in the real daemon's order: by level, its lock set first, then by name."""
    return sorted(states, key=lambda state: (state.level, state.name or ""))


def _name(state: LockState) -> str:
    return lock_name(state.level, LOCKSET if state.name is None else state.name)


def _mode(state: LockState) -> str | None:
    return None if state.mode is None else state.mode.value


def _short(name: str) -> str:
    return name if len(name) <= 60 else name[:57] + "..."
