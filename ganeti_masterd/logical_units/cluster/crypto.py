"""OP_CLUSTER_RENEW_CRYPTO: digests of new node certificates, and new SSH keys.

The certificates themselves are made by the client (``gnt-cluster renew-crypto``), which restarts
the node daemons with them. This opcode only records the digests of the candidates' certificates.
"""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.pool import ask_digests, digest_of
from ganeti_masterd.logical_units.steps.half_done import leaving
from ganeti_masterd.opcodes.cluster import ClusterRenewCrypto
from ganeti_masterd.rpc import calls

#: How many times a node is asked for its digest before that counts as failed.
TRIES = 3

#: Sizes of keys: the default, and the allowed ones.
_DEFAULT_BITS = {"dsa": 1024, "ecdsa": 384, "rsa": 2048}
_ECDSA_BITS = (256, 384, 521)
_LEAST_RSA = 768


def key_bits(kind: str, bits: int | None, cluster: Cluster) -> int:
    """Returns the size of new keys; raises ``OpPrereqError`` for one that the kind doesn't allow.

    The default is the size of the present keys, if these are of the same kind.
    """
    if bits is None:
        bits = cluster.ssh_key_bits if kind == cluster.ssh_key_type else _DEFAULT_BITS[kind]
    fits = {"dsa": bits == 1024, "ecdsa": bits in _ECDSA_BITS, "rsa": bits >= _LEAST_RSA}
    if not fits[kind]:
        raise prereq(f"Invalid key type and bit size combination: {kind} with {bits} bits")
    return bits


class RenewCrypto(LogicalUnit[ClusterRenewCrypto], runs=ClusterRenewCrypto):
    """Records the digests of the candidates' certificates, and has SSH keys renewed.

    Holds all nodes exclusively, so that none changes its role or is added meanwhile.
    """

    key_type: str
    key_bits: int

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds all nodes exclusively."""
        return all_exclusive if level is Level.NODE else super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses a key size that the kind of keys doesn't allow."""
        cluster = ctx.snapshot().cluster
        self.key_type = self.op.ssh_key_type or cluster.ssh_key_type
        self.key_bits = key_bits(self.key_type, self.op.ssh_key_bits, cluster)

    def exec(self, ctx: Context) -> None:
        """Renews what the opcode asks for; a node that doesn't answer keeps its old digest."""
        if self.op.node_certificates:
            ctx.feedback("Renewing Node SSL certificates")
            self._learn_digests(ctx)
        if self.op.renew_ssh_keys:
            if ctx.snapshot().cluster.modify_ssh_setup:
                ctx.feedback("Renewing SSH keys")
                self._renew_keys(ctx)
            else:
                ctx.feedback(
                    "Cannot renew SSH keys if the cluster is configured to not modify the SSH"
                    " setup."
                )

    def _learn_digests(self, ctx: Context) -> None:
        snapshot = ctx.snapshot()
        missing = [node for node in snapshot.candidates() if not node.offline]
        digests: dict[str, str] = {}
        faults: dict[str, str] = {}
        for _ in range(TRIES):
            if not missing:
                break
            told = ask_digests(ctx, missing)
            for uuid, answer in told.items():
                digest = digest_of(answer)
                if digest is None:
                    faults[uuid] = answer.error or "it has no certificate"
                else:
                    digests[uuid] = digest
            missing = [node for node in missing if node.uuid not in digests]
        if missing:
            lines = "\n".join(f"Node {node.name}: {faults[node.uuid]}" for node in missing)
            ctx.feedback(
                "Some nodes' SSL client certificates could not be fetched. Please make sure those"
                " nodes are reachable and rerun the operation. The affected nodes and their errors"
                f" are:\n{lines}"
            )
        kept = {
            node.uuid: snapshot.cluster.candidate_certs[node.uuid]
            for node in missing
            if node.uuid in snapshot.cluster.candidate_certs
        }
        ctx.change(
            snapshot.cluster.uuid,
            lambda cluster: replace(cluster, candidate_certs={**kept, **digests}),
        )

    def _renew_keys(self, ctx: Context) -> None:
        snapshot = ctx.snapshot()
        cluster = snapshot.cluster
        online = [node for node in snapshot.nodes.values() if not node.offline]
        arguments = (
            [node.uuid for node in online],
            [node.name for node in online],
            [node.uuid for node in snapshot.candidates()],
            [node.name for node in snapshot.nodes.values()],
            cluster.ssh_key_type,
            self.key_type,
            self.key_bits,
        )
        ctx.checkpoint()
        # A kill takes effect before or after this, so that the recorded kind of keys is right.
        with (
            ctx.shielded(),
            leaving(
                ctx,
                "Some nodes may have new SSH keys, others not",
                hint="gnt-cluster renew-crypto --new-ssh-keys, once the master reaches all of them",
            ),
        ):
            answers = ctx.call((cluster.master_node,), calls.NODE_SSH_KEYS_RENEW, arguments)
            answers[cluster.master_node].require("Could not renew the SSH keys of all nodes")
            ctx.change(
                cluster.uuid,
                lambda now: replace(now, ssh_key_type=self.key_type, ssh_key_bits=self.key_bits),
            )
