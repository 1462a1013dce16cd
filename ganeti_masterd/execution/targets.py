"""From nodes of the configuration to targets of a node RPC."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc.interfaces import Target


def targets_of(snapshot: Snapshot, nodes: Iterable[str | Target]) -> list[Target]:
    """Returns a target, keyed by uuid, for each node uuid (each once, in order).

    What is a target already stays as it is: a node that isn't configured yet.
    """
    targets = []
    for uuid in dict.fromkeys(nodes):
        if isinstance(uuid, Target):
            targets.append(uuid)
            continue
        node = snapshot.nodes.get(uuid)
        if node is None:
            raise ProgrammerError(f"A call to a node that isn't configured: {uuid}")
        targets.append(Target.of(node))
    return targets
