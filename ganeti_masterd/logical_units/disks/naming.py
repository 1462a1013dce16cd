"""Names and ids of new disks, reserved for the job that makes them."""

from __future__ import annotations

import secrets
from uuid import uuid4

from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.trees import MirrorIds

#: Bytes of the secret that two ends of a mirror share.
SECRET_BYTES = 20


class ReservedNaming:
    """Implements :class:`.trees.DiskNaming` with reservations."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def uuid(self) -> str:
        """See ``DiskNaming.uuid``."""
        return str(uuid4())

    def mirror(self, nodes: tuple[str, str]) -> MirrorIds:
        """See ``DiskNaming.mirror``."""
        one, other = self._ctx.new_minors(nodes)
        return MirrorIds(self._ctx.new_port(), (one, other), secrets.token_hex(SECRET_BYTES))
