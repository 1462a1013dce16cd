"""OP_BACKUP_PREPARE: what another cluster has to know before an instance is sent to it."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import InstanceUnit, require_online
from ganeti_masterd.logical_units.steps import signing
from ganeti_masterd.opcodes.backups import BackupPrepare
from ganeti_masterd.rpc import calls


class PrepareExport(InstanceUnit[BackupPrepare], runs=BackupPrepare):
    """Makes a key for one remote export; a local one needs no preparation.

    The key is at the primary node until the export has ended, or for a day.
    """

    shares = True

    def check(self, ctx: Context) -> None:
        """Refuses a node that can't be asked, and a cluster without its secret."""
        snapshot = ctx.snapshot()
        require_online(snapshot, self.instance(snapshot).primary_node)
        self._secret = signing.domain_secret(ctx.root) if self.op.mode == "remote" else ""

    def exec(self, ctx: Context) -> dict[str, Any] | None:
        """Returns a handshake, the key's name and the certificate, each signed."""
        if self.op.mode == "local":
            return None
        snapshot = ctx.snapshot()
        primary = self.instance(snapshot).primary_node
        name = snapshot.nodes[primary].name
        ctx.feedback(f"Generating X509 certificate on {name}")
        key, certificate = ctx.call_one(
            primary, calls.X509_CERT_CREATE, (signing.VALIDITY,)
        ).or_fail(f"Can't create X509 key and certificate on {name}")
        return {
            "handshake": list(signing.handshake(self._secret)),
            "x509_key_name": list(signing.signed_name(self._secret, key)),
            "x509_ca": signing.signed_certificate(self._secret, certificate),
        }
