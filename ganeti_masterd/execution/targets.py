"""From nodes of the configuration to targets of a node RPC."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc.interfaces import Target


def targets_of(snapshot: Snapshot, nodes: Iterable[str]) -> list[Target]:
    """Returns a target, keyed by uuid, for each node uuid (each once, in order)."""
    targets = []
    for uuid in dict.fromkeys(nodes):
        node = snapshot.nodes.get(uuid)
        if node is None:
            raise ProgrammerError(f"A call to a node that isn't configured: {uuid}")
        targets.append(Target(uuid, node.name, node.primary_ip, node.offline))
    return targets
