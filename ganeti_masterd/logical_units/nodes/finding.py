"""Finds the nodes of an opcode, by name and uuid."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural_key
from ganeti_masterd.errors import ECODE_NOTUNIQUE, OpPrereqError
from ganeti_masterd.opcodes.targets import NodeOpcode


def node_of(snapshot: Snapshot, op: NodeOpcode) -> Node:
    """Returns the node that an opcode is about.

    Raises ``OpPrereqError``: ``unknown_entity`` if there is none of that name,
    ``resource_not_unique`` if its uuid isn't the one that the opcode expects.
    """
    return node_named(snapshot, op.node_name, op.node_uuid)


def node_named(snapshot: Snapshot, name: str, uuid: str | None) -> Node:
    """Returns the node of a name, which has to have the uuid if one is given.

    Raises as :func:`node_of`.
    """
    node = snapshot.node(name)
    if uuid is not None and uuid != node.uuid:
        raise OpPrereqError(
            f"The nodes UUID '{node.uuid}' does not match the expected UUID '{uuid}' for"
            f" node '{node.name}'. Maybe the node changed since you submitted this job.",
            ECODE_NOTUNIQUE,
        )
    return node


def nodes_of(snapshot: Snapshot, names: Iterable[str]) -> tuple[Node, ...]:
    """Returns the named nodes, each once; raises like :meth:`Snapshot.node`."""
    found = {node.uuid: node for node in map(snapshot.node, names)}
    return tuple(found.values())


def by_name(nodes: Iterable[Node]) -> list[Node]:
    """Returns nodes in natural order of their names."""
    return sorted(nodes, key=lambda node: natural_key(node.name))
