"""Allocators' documents of made-up clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.config.defaults import IPOLICY

LEAST = dict.fromkeys(IPOLICY["std"], 0)
MOST = dict.fromkeys(IPOLICY["std"], 1 << 40)

#: A policy that allows everything.
ANYTHING = {
    "minmax": [{"min": LEAST, "max": MOST}],
    "std": IPOLICY["std"],
    "spindle-ratio": 32.0,
    "vcpu-ratio": 4.0,
    "disk-templates": IPOLICY["disk-templates"],
}


def group(name: str, policy: str = "preferred", **about: Any) -> dict[str, Any]:
    """Returns a group; its uuid in a document is ``uuid-NAME``."""
    described = {"name": name, "alloc_policy": policy, "networks": [], "ipolicy": ANYTHING}
    return {**described, "tags": [], **about}


def node(in_group: str = "default", **about: Any) -> dict[str, Any]:
    """Returns a node with 8 GiB of memory, 100 GiB of disk and 8 processors, all of it free."""
    return {
        "total_memory": 8192,
        "reserved_memory": 0,
        "free_memory": 8192,
        "total_disk": 102400,
        "free_disk": 102400,
        "total_spindles": 0,
        "free_spindles": 0,
        "total_cpus": 8,
        "reserved_cpus": 1,
        "i_pri_memory": 0,
        "i_pri_up_memory": 0,
        "tags": [],
        "offline": False,
        "drained": False,
        "vm_capable": True,
        "group": f"uuid-{in_group}",
        "ndparams": {"spindle_count": 1, "exclusive_storage": False},
        **about,
    }


def instance(nodes: Sequence[str], template: str = "drbd", **about: Any) -> dict[str, Any]:
    """Returns an instance of 1 GiB of memory and of disk on these nodes."""
    disks = [] if template == "diskless" else [{"type": template, "size": 1024, "mode": "rw"}]
    extra = 128 if template == "drbd" else 0
    return {
        "tags": [],
        "admin_state": "up",
        "vcpus": 1,
        "memory": 1024,
        "spindle_use": 1,
        "os": "noop",
        "nodes": list(nodes),
        "nics": [],
        "disks": disks,
        "disk_template": template,
        "hypervisor": "fake",
        "disk_space_total": 1024 + extra if disks else 0,
        **about,
    }


def allocate(name: str = "new", template: str = "diskless", **about: Any) -> dict[str, Any]:
    """Returns a request for a new instance."""
    described = instance((), template, **about)
    return {"name": name, "type": "allocate", **described}


def document(
    nodes: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    groups: Sequence[Mapping[str, Any]] = (),
    instances: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns a document; if no groups are given, it has the group "default".

    Nodes have the room that instances leave them.
    """
    left = {name: dict(about) for name, about in nodes.items()}
    for one in (instances or {}).values():
        for place, where in enumerate(one["nodes"]):
            if place == 0 and one["admin_state"] == "up":
                left[where]["free_memory"] -= one["memory"]
            if one["disk_template"] != "diskless":
                left[where]["free_disk"] -= one["disk_space_total"]
    return {
        "version": 2,
        "cluster_name": "cluster",
        "cluster_tags": [],
        "enabled_hypervisors": ["fake"],
        "ipolicy": ANYTHING,
        "nodegroups": {f"uuid-{one['name']}": one for one in (groups or [group("default")])},
        "nodes": left,
        "instances": dict(instances or {}),
        "request": dict(request),
    }
