"""Checks that files are the same on all nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.objects import Cluster, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural, ssconf_values
from ganeti_masterd.logical_units.nodes.ancillary import FOR_ALL, HOSTS_FILE, OF_HYPERVISORS
from ganeti_masterd.logical_units.verification.report import Finding

DATA = "/var/lib/ganeti"
CONFIG = f"{DATA}/config.data"
SSCONF = f"{DATA}/ssconf_"
MASTER_IP_SCRIPT = "/etc/ganeti/scripts/master-ip-setup"
STORAGE_PATHS = "/etc/ganeti/file-storage-paths"

#: The cluster's certificates, the same on all nodes.
CERTIFICATES = (
    f"{DATA}/server.pem",
    f"{DATA}/rapi.pem",
    f"{DATA}/spice.pem",
    f"{DATA}/spice-ca.pem",
)

#: Files that may be missing, but then on all nodes.
_OPTIONAL = frozenset({f"{DATA}/rapi/users", STORAGE_PATHS})

#: A hypervisor's files that every node with the hypervisor must have.
_REQUIRED = frozenset({"/etc/xen/scripts/vif-bridge"})


class VerifiedFiles(Struct, frozen=True):
    """Paths, without a root, grouped by the nodes that should have them."""

    everywhere: tuple[str, ...]
    on_candidates: tuple[str, ...]
    on_instance_nodes: tuple[str, ...]

    def paths(self, root: str) -> list[str]:
        """Returns all paths in the form in which they are sent to nodes."""
        named = (*self.everywhere, *self.on_candidates, *self.on_instance_nodes)
        return [rooted(root, path) for path in named]


def rooted(root: str, path: str) -> str:
    """Returns a path below the master's root, in the form in which it is sent to nodes."""
    return path if path == HOSTS_FILE else root + path


def verified_files(snapshot: Snapshot) -> VerifiedFiles:
    """Returns the files to compare."""
    cluster = snapshot.cluster
    everywhere = [*FOR_ALL, *CERTIFICATES, *_by_setting(cluster)]
    everywhere += [SSCONF + key for key in ssconf_values(snapshot)]
    on_instance_nodes = dict.fromkeys(
        path for name in cluster.enabled_hypervisors for path in OF_HYPERVISORS.get(name, ())
    )
    return VerifiedFiles(tuple(dict.fromkeys(everywhere)), (CONFIG,), tuple(on_instance_nodes))


def _by_setting(cluster: Cluster) -> Iterator[str]:
    if cluster.modify_etc_hosts:
        yield HOSTS_FILE
    if cluster.use_external_mip_script:
        yield MASTER_IP_SCRIPT
    if {"file", "sharedfile"}.intersection(cluster.enabled_disk_templates):
        yield STORAGE_PATHS


class FileComparison(Struct, frozen=True):
    """The findings about files, and which of the differing files this daemon replicates."""

    findings: tuple[Finding, ...]
    replicated: tuple[str, ...]


def compare(
    files: VerifiedFiles,
    nodes: Collection[Node],
    digests: Mapping[str, Any],
    master: str,
    root: str,
) -> FileComparison:
    """Compares the nodes' files.

    ``digests`` has, by uuid, the answers of ``node_verify`` under ``filelist`` (None: no answer).
    ``nodes`` are those that were called; ``master`` is the master's uuid.
    """
    findings: list[Finding] = []
    replicated: list[str] = []
    told: dict[str, Mapping[str, str]] = {}
    for node in nodes:
        answer = digests.get(node.uuid)
        if node.offline:
            continue
        if answer and isinstance(answer, Mapping):
            told[node.uuid] = answer
        else:
            findings.append(
                Finding("ENODEFILECHECK", node.name, "Node did not return file checksum data")
            )
    asked = [node for node in nodes if node.uuid in told]
    for path, expected in _expectations(files, asked, master):
        faults = list(_compare_one(path, rooted(root, path), expected, asked, told))
        findings += [Finding("ECLUSTERFILECHECK", "", fault) for fault in faults]
        if faults and (path == CONFIG or path.startswith(SSCONF)):
            replicated.append(path)
    return FileComparison(tuple(findings), tuple(replicated))


def _expectations(
    files: VerifiedFiles, nodes: Collection[Node], master: str
) -> Iterator[tuple[str, set[str]]]:
    """Yields each path with the uuids of the nodes that should have it."""
    everyone = {node.uuid for node in nodes}
    candidates = {n.uuid for n in nodes if n.master_candidate or n.uuid == master}
    hosts = {node.uuid for node in nodes if node.vm_capable}
    for paths, expected in (
        (files.everywhere, everyone),
        (files.on_candidates, candidates),
        (files.on_instance_nodes, hosts),
    ):
        for path in paths:
            yield path, expected


def _compare_one(
    path: str,
    shown: str,
    expected: set[str],
    nodes: Collection[Node],
    told: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    names = {node.uuid: node.name for node in nodes}

    def listed(uuids: Collection[str]) -> str:
        return ", ".join(natural(names[uuid] for uuid in uuids))

    holders: dict[str, set[str]] = {}
    for uuid, digests in told.items():
        if shown in digests:
            holders.setdefault(digests[shown], set()).add(uuid)
    present = set().union(*holders.values()) if holders else set()
    missing = expected - present
    optional = path in _OPTIONAL or any(
        path in paths and path not in _REQUIRED for paths in OF_HYPERVISORS.values()
    )
    if optional:
        if missing and missing != expected:
            yield (
                f"File {shown} is optional, but it must exist on all or no nodes (not found on"
                f" {listed(missing)})"
            )
    else:
        if missing:
            yield f"File {shown} is missing from node(s) {listed(missing)}"
        if unexpected := present - expected:
            yield f"File {shown} should not exist on node(s) {listed(unexpected)}"
    if len(holders) > 1:
        variants = "; ".join(
            f"variant {number} on {listed(uuids)}"
            for number, (_, uuids) in enumerate(sorted(holders.items()), 1)
        )
        yield f"File {shown} found with {len(holders)} different checksums ({variants})"
