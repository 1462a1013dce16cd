"""Which of several candidates' files a new master goes on with. Pure.

Each candidate got the old master's states in an order of which every beginning
can be taken over (replication.rst). So the newest of each single file,
wherever it is, makes a state that can be taken over, and that lacks nothing which
any of these candidates has. What belongs to another master's time is left out
as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.changes import Update, draft
from ganeti_masterd.config.document import parse
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import (
    STATUS_CANCELING,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_WAITING,
)
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.failover.holdings import understood
from ganeti_masterd.startup.checks import StartRefused

#: How much the document's serial grows at a fail-over. The old master may have made
#: changes that nobody else got: none of them is to have the number of a later one.
SERIAL_STEP = 1000

_PROGRESS = {STATUS_QUEUED: 0, STATUS_WAITING: 1, STATUS_CANCELING: 2, STATUS_RUNNING: 3}


class Copy(Struct, frozen=True):
    """What is known of one candidate's files: all of this node's, of others what may be newer.

    ``serial`` is the number in the file ``serial``; ``jobs`` and ``archived`` are
    documents by id.
    """

    node: str
    config: bytes
    serial: int
    jobs: dict[int, bytes]
    archived: dict[int, bytes] = {}


class Newest(Struct, frozen=True):
    """What the new master goes on with, beside what this node has already.

    ``jobs`` and ``archived`` are to be written here, each with the node that has
    it; ``ignored`` says in words which candidates were left out, and why.
    """

    config_of: str
    snapshot: Snapshot
    serial: int
    jobs: dict[int, bytes]
    archived: dict[int, bytes]
    ignored: list[str]


def choose(own: Copy, others: Sequence[Copy], masters: Iterable[str]) -> Newest:
    """Returns the newest state among this node's and others'.

    ``masters`` are the nodes that a configuration may name as the master: the old
    one, and this one where a fail-over was begun before. Raises :class:`StartRefused`
    if this node's own names another, or if two differ under the same serial.
    """
    allowed = tuple(masters)
    mine = _belongs(own, None, allowed)
    if isinstance(mine, str):
        raise StartRefused(f"This node can't become the master: {mine}")
    valid, ignored = [(mine, own)], []
    for copy in others:
        found = _belongs(copy, mine.cluster.uuid, allowed)
        if isinstance(found, str):
            ignored.append(found)
        else:
            valid.append((found, copy))
    # The sort is stable: among equals this node's own goes first.
    valid.sort(key=lambda one: (-one[0].header.serial_no, -one[1].serial))
    snapshot, best = valid[0]
    for other, copy in valid[1:]:
        if other.header.serial_no == snapshot.header.serial_no and copy.config != best.config:
            raise StartRefused(
                f"The configurations of {best.node} and {copy.node} differ, and both have the"
                f" serial number {snapshot.header.serial_no}: two masters were at work. Compare"
                " config.data on both, and put the right one in the other's place"
            )
    copies = [copy for _, copy in valid]
    return Newest(
        config_of=own.node if best.config == own.config else best.node,
        snapshot=snapshot,
        serial=_serial(copies),
        jobs=_jobs(own, copies),
        archived=_archived(copies),
        ignored=ignored,
    )


def promoted(snapshot: Snapshot, name: str, now: float) -> Snapshot:
    """Returns the configuration with the node ``name`` as the master, serials raised.

    Raises :class:`StartRefused` if it may not be one.
    """
    check_candidate(snapshot, name)
    node = snapshot.nodes.named(name)
    assert node is not None
    uuid = node.uuid
    change = Update(snapshot.cluster.uuid, lambda cluster: replace(cluster, master_node=uuid))
    # A change moves the document's serial by one itself.
    return draft(snapshot, [change], now).after.with_serial(now, SERIAL_STEP - 1)


def check_candidate(snapshot: Snapshot, name: str) -> None:
    """Raises :class:`StartRefused` unless the node is an online master candidate."""
    node = snapshot.nodes.named(name)
    if node is None:
        raise StartRefused(f"The configuration knows no node {name}: it can't become the master")
    if node.offline:
        raise StartRefused(f"The configuration marks {name} as offline: it can't become the master")
    if not node.master_candidate:
        others = sorted(each.name for each in snapshot.candidates())
        raise StartRefused(
            f"{name} is no master candidate: only one can become the master. These are:"
            f" {', '.join(others)}"
        )


def _belongs(copy: Copy, cluster: str | None, masters: Sequence[str]) -> Snapshot | str:
    """Returns a copy's configuration, or in words why it is not the cluster's as it was last."""
    try:
        snapshot = parse(copy.config, f"{copy.node}'s config.data")
        master = snapshot.master.name
    except ConfigurationError as error:
        return str(error)
    if cluster is not None and snapshot.cluster.uuid != cluster:
        return f"{copy.node}'s configuration is of another cluster, {snapshot.cluster.cluster_name}"
    if master not in masters:
        return (
            f"{copy.node}'s configuration (serial number {snapshot.header.serial_no}) is from when"
            f" {master} was the master, not {masters[0]}"
        )
    return snapshot


def _serial(copies: Sequence[Copy]) -> int:
    """Returns a number that no job's id given so far exceeds."""
    ids = (job_id for copy in copies for job_id in (*copy.jobs, *copy.archived))
    return max(0, *(copy.serial for copy in copies), *ids)


def _jobs(own: Copy, copies: Sequence[Copy]) -> dict[int, bytes]:
    """Returns the jobs whose newest state this node hasn't; a file that makes no sense is none."""
    archived = _archived(copies)
    found = {}
    for job_id in sorted({job_id for copy in copies for job_id in copy.jobs} - set(archived)):
        # Of those that are equally far the first: the candidates that are ahead go first.
        bodies = [copy.jobs[job_id] for copy in copies if job_id in copy.jobs]
        newest = max(bodies, key=_progress)
        if own.jobs.get(job_id) != newest:
            found[job_id] = newest
    return found


def _archived(copies: Sequence[Copy]) -> dict[int, bytes]:
    return {job_id: body for copy in copies for job_id, body in copy.archived.items()}


def _progress(body: bytes) -> tuple[bool, bool, int, int, int]:
    """Returns what grows while a job goes on: the further one is the newer one."""
    job = understood(body)
    if job is None:
        return False, False, 0, 0, 0
    if job.finished:
        return True, True, len(job.ops), 0, job.log_serial
    return True, False, job.current, _PROGRESS[job.ops[job.current].status], job.log_serial
