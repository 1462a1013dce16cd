"""All opcodes by their name on the wire."""

from __future__ import annotations

from ganeti_masterd.opcodes import (
    backups,
    cluster,
    groups,
    instance_disks,
    instance_moves,
    instances,
    networks,
    nodes,
    os_storage,
    queries,
    tags,
    tests,
    verification,
)
from ganeti_masterd.opcodes.base import Opcode

_DOMAINS = (
    cluster,
    verification,
    groups,
    nodes,
    os_storage,
    instances,
    instance_moves,
    instance_disks,
    backups,
    networks,
    tags,
    queries,
    tests,
)

#: The class of each opcode, by its ``OP_ID``.
OPCODES: dict[str, type[Opcode]] = {
    str(cls.__struct_config__.tag): cls
    for domain in _DOMAINS
    for cls in vars(domain).values()
    if isinstance(cls, type) and issubclass(cls, Opcode) and cls.__module__ == domain.__name__
}
