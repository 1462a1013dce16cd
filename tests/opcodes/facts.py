"""Recorded facts about Ganeti 3.0.2's opcodes, and opcodes for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

_DATA = Path(__file__).parent.parent / "data"

#: Declarations, and what luxid requires on submission.
FACTS: dict[str, Any] = msgspec.json.decode((_DATA / "opcodes.json").read_bytes())

#: Opcodes that real clients submitted and luxid accepted, by OP_ID.
SUBMITTED: dict[str, list[dict[str, Any]]] = msgspec.json.decode(
    (_DATA / "submitted_opcodes.json").read_bytes()
)

#: Values that luxid accepted or refused, for each type of parameter.
VALUES: list[dict[str, Any]] = msgspec.json.decode((_DATA / "opcode_values.json").read_bytes())[
    "types"
]

#: A value for each parameter that some opcode requires, where "x" won't do.
_SAMPLES: dict[str, Any] = {
    "amount": 1,
    "changes": {},
    "direction": "in",
    "disk": 0,
    "disks": [],
    "duration": 0.5,
    "fields": ["name"],
    "network": "192.0.2.0/24",
    "network_mode": "bridged",
    "nics": [],
    "nodes": ["node1"],
    "output_fields": ["name"],
    "reboot_type": "soft",
    "storage_type": "lvm-pv",
    "tags": ["t"],
    "what": "node",
}
_MODES = {
    "OP_BACKUP_PREPARE": "local",
    "OP_INSTANCE_CREATE": "create",
    "OP_INSTANCE_REPLACE_DISKS": "replace_auto",
    "OP_NODE_EVACUATE": "all",
    "OP_TEST_ALLOCATOR": "allocate",
}


def minimal(op_id: str, **more: Any) -> dict[str, Any]:
    """Returns an opcode with the parameters that it requires, and those given."""
    values: dict[str, Any] = {"OP_ID": op_id}
    for name in FACTS["opcodes"][op_id]["required"]:
        if name == "mode":
            values[name] = _MODES[op_id]
        elif name == "kind":
            values[name] = "cluster"
        elif op_id == "OP_OOB_COMMAND":
            values[name] = "health"
        else:
            values[name] = _SAMPLES.get(name, "x")
    return {**values, **more}
