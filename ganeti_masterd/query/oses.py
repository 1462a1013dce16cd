"""Operating systems and external storage providers: merging the nodes' reports, and fields.

For the cluster, a definition is valid if it is valid on every node that
answered; it has the variants, parameters and API versions that all of them have in
common. If a node has several definitions with one name, the first is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.query.fields import fields, flag, other, text
from ganeti_masterd.query.names import natural, natural_key
from ganeti_masterd.rpc.results import OSRow, ProviderRow


class OperatingSystem(Struct, frozen=True):
    """An operating system in the whole cluster; ``node_status`` is by node uuid."""

    name: str
    valid: bool
    hidden: bool
    blacklisted: bool
    trusted: bool
    variants: list[str]
    parameters: list[tuple[str, str]]
    api_versions: list[int]
    node_status: dict[str, list[list[Any]]]
    os_hvp: dict[str, Any]
    osparams: dict[str, Any]


class Provider(Struct, frozen=True):
    """An external storage provider in the whole cluster; its state by group name and node uuid."""

    name: str
    node_status: dict[str, list[list[Any]]]
    nodegroup_status: dict[str, bool]
    parameters: list[tuple[str, str]]


def operating_systems(
    snapshot: Snapshot, answers: Mapping[str, list[OSRow]]
) -> list[OperatingSystem]:
    """Returns the cluster's operating systems from the nodes' rows, in natural order."""
    cluster = snapshot.cluster
    found = []
    for name in natural({row.name for rows in answers.values() for row in rows}):
        everywhere = {uuid: _named(rows, name) for uuid, rows in answers.items()}
        firsts = [rows[0] if rows else None for rows in everywhere.values()]
        agreed = [row for row in firsts if row is not None and row.valid]
        valid = len(agreed) == len(firsts)
        if not valid:
            agreed = []
        variants = natural(_shared(row.variants for row in agreed))
        full_names = [f"{name}+{variant}" for variant in variants]
        found.append(
            OperatingSystem(
                name=name,
                valid=valid,
                hidden=name in cluster.hidden_os,
                blacklisted=name in cluster.blacklisted_os,
                trusted=all(row.trusted for row in agreed),
                variants=variants,
                parameters=_parameters(row.parameters for row in agreed),
                api_versions=sorted(_shared(row.api_versions for row in agreed)),
                node_status={
                    uuid: [
                        [
                            row.path,
                            row.valid,
                            row.message,
                            row.variants,
                            row.parameters,
                            row.api_versions,
                            row.trusted,
                        ]
                        for row in rows
                    ]
                    for uuid, rows in everywhere.items()
                },
                os_hvp={
                    full: cluster.os_hvp[full] for full in full_names if full in cluster.os_hvp
                },
                osparams={
                    full: cluster.osparams[full] for full in full_names if full in cluster.osparams
                },
            )
        )
    return found


def providers(snapshot: Snapshot, answers: Mapping[str, list[ProviderRow]]) -> list[Provider]:
    """Returns the cluster's external storage providers from the nodes' rows."""
    found = []
    for name in natural({row.name for rows in answers.values() for row in rows}):
        everywhere = {uuid: _named(rows, name) for uuid, rows in answers.items()}
        valid = {uuid: bool(rows) and rows[0].valid for uuid, rows in everywhere.items()}
        # A node that didn't answer doesn't make its group invalid.
        groups = {
            group.name: all(valid.get(node.uuid, True) for node in snapshot.members(group))
            for group in snapshot.groups.values()
        }
        agreed = [rows[0] for rows in everywhere.values()] if all(valid.values()) else []
        found.append(
            Provider(
                name=name,
                node_status={
                    uuid: [[row.path, row.valid, row.message, row.parameters] for row in rows]
                    for uuid, rows in everywhere.items()
                },
                nodegroup_status=groups,
                parameters=_parameters(row.parameters for row in agreed),
            )
        )
    return found


def _named(rows: Iterable[Any], name: str) -> list[Any]:
    return [row for row in rows if row.name == name]


def _shared(lists: Iterable[Iterable[Any]]) -> set[Any]:
    """Returns the items that all of the lists contain; empty if there are no lists."""
    sets = [set(items) for items in lists]
    return set.intersection(*sets) if sets else set()


def _parameters(lists: Iterable[Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    return sorted(_shared(lists), key=lambda pair: (natural_key(pair[0]), pair[1]))


OS_FIELDS = fields(
    text("name", "Name", of=lambda os: os.name, doc="The operating system's name."),
    flag("valid", "Valid", of=lambda os: os.valid, doc="Whether it is valid on all nodes."),
    flag("hidden", "Hidden", of=lambda os: os.hidden, doc="Whether lists omit it."),
    flag(
        "blacklisted",
        "Blacklisted",
        of=lambda os: os.blacklisted,
        doc="Whether new instances can't use it.",
    ),
    flag("trusted", "Trusted", of=lambda os: os.trusted, doc="Whether it is trusted on all nodes."),
    other("variants", "Variants", of=lambda os: os.variants, doc="Variants that all nodes have."),
    other(
        "api_versions",
        "ApiVersions",
        of=lambda os: os.api_versions,
        doc="Versions of the OS interface that it has on all nodes.",
    ),
    other(
        "parameters",
        "Parameters",
        of=lambda os: os.parameters,
        doc="Parameters that it takes on all nodes: name and what it is.",
    ),
    other(
        "node_status",
        "NodeStatus",
        of=lambda os: os.node_status,
        doc="What each node has of it, by the node's UUID.",
    ),
    other(
        "os_hvp",
        "OsHypervisorParams",
        of=lambda os: os.os_hvp,
        doc="Hypervisor parameters set for its variants.",
    ),
    other(
        "osparams",
        "OsParameters",
        of=lambda os: os.osparams,
        doc="OS parameters set for its variants.",
    ),
)

EXTSTORAGE_FIELDS = fields(
    text("name", "Name", of=lambda one: one.name, doc="The provider's name."),
    other(
        "node_status",
        "NodeStatus",
        of=lambda one: one.node_status,
        doc="What each node has of it, by the node's UUID.",
    ),
    other(
        "nodegroup_status",
        "NodegroupStatus",
        of=lambda one: one.nodegroup_status,
        doc="Whether it is valid in each node group.",
    ),
    other(
        "parameters",
        "Parameters",
        of=lambda one: one.parameters,
        doc="Parameters that it takes on all nodes: name and what it is.",
    ),
)
