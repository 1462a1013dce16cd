"""Names and ids of new disks, reserved for the job that makes them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from uuid import uuid4

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.trees import MirrorIds
from ganeti_masterd.rpc import calls

#: Bytes of the secret that two ends of a mirror share.
SECRET_BYTES = 20


class ReservedNaming:
    """Implements :class:`.trees.DiskNaming` with reservations."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        #: The minors that nodes (uuids) were found to use, configured or not.
        self._used: dict[str, frozenset[int]] = {}
        #: How many of these aren't configured, and whose ports are still to be passed over.
        self._unknown = 0

    def uuid(self) -> str:
        """See ``DiskNaming.uuid``."""
        return str(uuid4())

    def mirror(self, nodes: tuple[str, str]) -> MirrorIds:
        """See ``DiskNaming.mirror``."""
        one, other = self.minors(nodes)
        # Mirrors that nobody knows of took the next free ports, as they were never recorded.
        for _ in range(self._unknown):
            self._ctx.new_port()
        self._unknown = 0
        return MirrorIds(self._ctx.new_port(), (one, other), secrets.token_hex(SECRET_BYTES))

    def minors(self, nodes: Sequence[str]) -> list[int]:
        """Returns a minor on each node (uuids, in order) that is free there, too; reserved.

        A node may use one that the configuration doesn't know: it is left of a job that was
        broken off by a crash. A node that doesn't answer is a warning, and counts as one that
        uses none.
        """
        self._look(nodes)
        while True:
            found = self._ctx.new_minors(nodes)
            if all(minor not in self._used[node] for node, minor in zip(nodes, found, strict=True)):
                return found

    def _look(self, nodes: Sequence[str]) -> None:
        asked = [node for node in nodes if node not in self._used]
        if not asked:
            return
        snapshot = self._ctx.snapshot()
        known = snapshot.disks.grouped(Disk.minors)
        name = snapshot.cluster.cluster_name
        arguments: tuple[object, ...] = ({"drbd-list": None}, name, {})
        for node, answer in self._ctx.call(asked, calls.NODE_VERIFY_LIGHT, arguments).items():
            if answer.failed:
                self._ctx.warning(
                    f"Can't ask node {answer.node} which DRBD minors it uses: {answer.error}"
                )
            listed = None if answer.failed else answer.payload.get("drbd-list")
            self._used[node] = frozenset(listed if isinstance(listed, (list, tuple)) else ())
            self._unknown += sum((node, minor) not in known for minor in self._used[node])
