"""Chooses from several candidates' files those with which a new master continues. Pure.

The old master sent its states to each candidate in an order that makes every prefix consistent
(replication.rst). So taking the newest version of each single file, wherever it is, gives a
consistent state that lacks nothing that any of these candidates has. A candidate whose files were
written under another master is left out altogether.
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

_PROGRESS = {STATUS_QUEUED: 0, STATUS_WAITING: 1, STATUS_CANCELING: 2, STATUS_RUNNING: 3}


class Copy(Struct, frozen=True):
    """What is known of one candidate's files: all of this node's, possibly newer ones of others.

    ``serial`` is the number in the file ``serial``; ``jobs`` and ``archived`` map ids to documents.
    """

    node: str
    config: bytes
    serial: int
    jobs: dict[int, bytes]
    archived: dict[int, bytes] = {}


class Newest(Struct, frozen=True):
    """What the new master continues with, in addition to what this node has already.

    ``jobs`` and ``archived`` must be written on this node, each comes with the node that has it.
    ``ignored`` has a text for each candidate that was left out, with the reason.
    """

    config_of: str
    snapshot: Snapshot
    serial: int
    jobs: dict[int, bytes]
    archived: dict[int, bytes]
    ignored: list[str]


def choose(own: Copy, others: Sequence[Copy], masters: Iterable[str]) -> Newest:
    """Returns the newest state among this node's and others'.

    ``masters`` are the nodes that a configuration may name as the master: the old one, and this one
    if an earlier fail-over was cut short. Raises :class:`StartRefused` if this node's own
    configuration names another, or if two different configurations have the same serial.
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
    # The sort is stable, so this node's own goes first among equals.
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
    """Returns the configuration with the node ``name`` as the master and raised serials.

    Raises :class:`StartRefused` if the node may not be the master.
    """
    check_candidate(snapshot, name)
    node = snapshot.nodes.named(name)
    assert node is not None
    uuid = node.uuid
    change = Update(snapshot.cluster.uuid, lambda cluster: replace(cluster, master_node=uuid))
    return draft(snapshot, [change], now).after


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
    """Returns a copy's configuration, or a text that says why the copy must be left out."""
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
    """Returns a number that is at least as high as every job id given so far."""
    ids = (job_id for copy in copies for job_id in (*copy.jobs, *copy.archived))
    return max(0, *(copy.serial for copy in copies), *ids)


def _jobs(own: Copy, copies: Sequence[Copy]) -> dict[int, bytes]:
    """Returns the jobs whose newest state this node lacks; unreadable files are ignored."""
    archived = _archived(copies)
    found = {}
    for job_id in sorted({job_id for copy in copies for job_id in copy.jobs} - set(archived)):
        # Among equals the first is taken: candidates with newer configurations go first.
        bodies = [copy.jobs[job_id] for copy in copies if job_id in copy.jobs]
        newest = max(bodies, key=_progress)
        if own.jobs.get(job_id) != newest:
            found[job_id] = newest
    return found


def _archived(copies: Sequence[Copy]) -> dict[int, bytes]:
    return {job_id: body for copy in copies for job_id, body in copy.archived.items()}


def _progress(body: bytes) -> tuple[bool, bool, int, int, int]:
    """Returns a key that grows as a job proceeds: the greater one is the newer."""
    job = understood(body)
    if job is None:
        return False, False, 0, 0, 0
    if job.finished:
        return True, True, len(job.ops), 0, job.log_serial
    return True, False, job.current, _PROGRESS[job.ops[job.current].status], job.log_serial
