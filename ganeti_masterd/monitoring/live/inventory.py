"""Nodes and instances as rows, each encoded once, and which of them changed since when. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ganeti_masterd.config.objects import Instance, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.monitoring.live.shapes import InstanceRow, NodeRow
from ganeti_masterd.query.nodes import role_letter

#: Rows that are gone and still known; a viewer that last asked before that gets everything.
GONE = 1000
#: Answers that are kept for viewers that come from the same revision.
ANSWERS = 16

#: What is asked of nodes, in the order of the last fields of the rows; the first is the name.
NODE_MEASURES = ("name", "mtotal", "mfree", "dtotal", "dfree", "ctotal")
INSTANCE_MEASURES = ("name", "status", "be/maxmem", "be/vcpus")

#: Roles of nodes as the page names them, by Ganeti's letters.
_ROLES = {"M": "master", "C": "candidate", "D": "drained", "O": "offline", "R": "regular"}

_encode = msgspec.json.Encoder().encode


class _Rows:
    """Rows of one kind by uuid, with the revision in which each last changed."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, bytes]] = {}
        self.names: dict[str, str] = {}
        #: The newest last.
        self.gone: deque[tuple[int, str]] = deque(maxlen=GONE)

    def put(self, uuid: str, name: str, row: object, revision: int) -> bool:
        """Sets a row; returns whether that changed anything."""
        encoded = _encode(row)
        known = self.rows.get(uuid)
        if known is not None and known[1] == encoded:
            return False
        old = self.names.get(uuid)
        if old is not None and old != name:
            self.gone.append((revision, old))
        self.rows[uuid] = revision, encoded
        self.names[uuid] = name
        return True

    def keep(self, uuids: Mapping[str, object], revision: int) -> bool:
        """Drops all rows except these; returns whether there were any."""
        left = [uuid for uuid in self.rows if uuid not in uuids]
        for uuid in left:
            del self.rows[uuid]
            self.gone.append((revision, self.names.pop(uuid)))
        return bool(left)

    def forgotten(self, since: int) -> bool:
        """Whether rows may have gone after ``since`` of which nothing is known any more."""
        return len(self.gone) == GONE and self.gone[0][0] > since

    def changed(self, since: int) -> bytes:
        """Returns the rows that changed after a revision, as JSON."""
        return b"[%b]" % b",".join(row for revision, row in self.rows.values() if revision > since)

    def gone_since(self, since: int) -> list[str]:
        """Returns the names that went after a revision and didn't come back."""
        there = set(self.names.values())
        return [name for revision, name in self.gone if revision > since and name not in there]


class Inventory:
    """What is shown of nodes and instances. Revisions count on from ``first``, which is the first.

    ``first`` has to be greater than any revision before a restart.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self.revision = first
        self._snapshot: Snapshot | None = None
        self._nodes = _Rows()
        self._instances = _Rows()
        self._measured_nodes: dict[str, Sequence[Any]] = {}
        self._measured_instances: dict[str, Sequence[Any]] = {}
        self._answers: dict[int, bytes] = {}

    def follow(self, snapshot: Snapshot) -> list[str]:
        """Takes the configuration of now; returns the names of instances that are new or changed.

        An object that is the same as before costs next to nothing.
        """
        before = self._snapshot
        if before is snapshot:
            return []
        self._snapshot = snapshot
        instances = snapshot.instances
        if before is None or before.nodes is not snapshot.nodes:
            altered = list(instances.values())
        else:
            moved = _owners(before, snapshot)
            altered = [
                one
                for uuid, one in instances.items()
                if before.instances.get(uuid) is not one or uuid in moved
            ]
        changes = [self._put_instances(altered, snapshot)]
        changes.append(self._instances.keep(instances, self.revision + 1))
        if before is None or any(
            getattr(before, section) is not getattr(snapshot, section)
            for section in ("nodes", "groups", "instances", "disks", "cluster")
        ):
            changes.append(self._put_nodes(snapshot.nodes.values(), snapshot))
            changes.append(self._nodes.keep(snapshot.nodes, self.revision + 1))
        self._count(changes)
        if before is None:
            return []
        return [one.name for one in altered if before.instances.get(one.uuid) is not one]

    def measured(self, kind: str, rows: Iterable[Sequence[Any]], *, whole: bool) -> None:
        """Takes what nodes said; ``whole`` is whether all were asked, so that older values go."""
        known = self._measured_nodes if kind == "node" else self._measured_instances
        if whole:
            known.clear()
        known.update((row[0], row[1:]) for row in rows)
        snapshot = self._snapshot
        if snapshot is None:
            return
        if kind == "node":
            self._count([self._put_nodes(snapshot.nodes.values(), snapshot)])
        else:
            self._count([self._put_instances(snapshot.instances.values(), snapshot)])

    def since(self, revision: int, daemon: bytes) -> bytes:
        """Returns what changed after a revision as a JSON object; everything if that is unknown.

        ``daemon`` is the JSON of what is the daemon's own. The rest is made once for each revision
        that viewers come from.
        """
        if not self._first <= revision <= self.revision:
            revision = 0  # of another daemon: all of these get the same
        made = self._answers.get(revision)
        if made is None:
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            made = self._answers[revision] = self._since(revision)
        return b'{"daemon":%b,%b' % (daemon, made)

    def _since(self, revision: int) -> bytes:
        nodes, instances = self._nodes, self._instances
        full = not revision or nodes.forgotten(revision) or instances.forgotten(revision)
        after = 0 if full else revision
        return b'"revision":%d,"full":%b,"nodes":%b,"instances":%b,"gone":%b}' % (
            self.revision,
            _encode(full),
            nodes.changed(after),
            instances.changed(after),
            _encode(
                {
                    "nodes": [] if full else nodes.gone_since(after),
                    "instances": [] if full else instances.gone_since(after),
                }
            ),
        )

    def _count(self, changes: Iterable[bool]) -> None:
        if any(changes):
            self.revision += 1
            self._answers.clear()

    def _put_nodes(self, nodes: Iterable[Node], snapshot: Snapshot) -> bool:
        changed = False
        for node in nodes:
            row = NodeRow(
                node.name,
                snapshot.group_of(node).name,
                _ROLES[role_letter(snapshot, node)],
                node.vm_capable,
                len(snapshot.instances_on(node)),
                len(snapshot.secondaries_on(node)),
                *self._measured_nodes.get(node.name, ()),
            )
            changed |= self._nodes.put(node.uuid, node.name, row, self.revision + 1)
        return changed

    def _put_instances(self, instances: Iterable[Instance], snapshot: Snapshot) -> bool:
        changed = False
        names = {uuid: node.name for uuid, node in snapshot.nodes.items()}
        for one in instances:
            secondaries = snapshot.nodes_of(one)[1:] if one.disks else ()
            row = InstanceRow(
                one.name,
                names.get(one.primary_node, ""),
                [names[uuid] for uuid in secondaries if uuid in names],
                one.admin_state,
                one.os,
                one.disk_template or "",
                *self._measured_instances.get(one.name, ()),
            )
            changed |= self._instances.put(one.uuid, one.name, row, self.revision + 1)
        return changed


def _owners(before: Snapshot, after: Snapshot) -> set[str]:
    """Returns the uuids of the instances whose disks changed, as they may have moved."""
    if before.disks is after.disks:
        return set()
    found = set()
    for uuid, disk in after.disks.items():
        if before.disks.get(uuid) is not disk:
            owner = after.owner_of(disk)
            if owner is not None:
                found.add(owner.uuid)
    return found
