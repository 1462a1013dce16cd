"""Roots with a cluster of a given size, for daemons to be started on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec

from ganeti_masterd.config.ssconf import natural_key
from ganeti_masterd.simulation.state import SimulatedInstance
from ganeti_masterd.simulation.store import NodeStore
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import prepare

#: Makes a root ready before its daemon starts.
Prepare = Callable[[Path], None]


def cluster(
    nodes: int, instances: int = 0, latency: float = 0.0, *, alone: bool = False
) -> Prepare:
    """Returns what makes a root with so many nodes, and instances that run on them.

    ``alone``: the master is the only candidate. Nodes take ``latency`` seconds for each call
    about themselves or their instances.
    """

    def make(root: Path) -> None:
        paths = Paths(str(root))
        prepare(paths, nodes)
        config = Path(paths.config)
        document = json.loads(config.read_bytes())
        uuids = {node["name"]: uuid for uuid, node in document["nodes"].items()}
        names = sorted(uuids, key=natural_key)
        if alone:
            document["cluster"]["candidate_pool_size"] = 1
            document["cluster"]["candidate_certs"] = {
                uuid: digest
                for uuid, digest in document["cluster"]["candidate_certs"].items()
                if uuid == uuids[names[0]]
            }
            for node in document["nodes"].values():
                node["master_candidate"] = node["name"] == names[0]
        template = {
            "os": "noop",
            "hypervisor": "fake",
            "hvparams": {},
            "beparams": {},
            "osparams": {},
            "osparams_private": {},
            "admin_state": "up",
            "admin_state_source": "admin",
            "nics": [],
            "disks": [],
            "disks_active": True,
            "ctime": 1700000000.0,
            "mtime": 1700000000.0,
            "serial_no": 1,
            "tags": [],
        }
        where = {f"instance{number}": names[number % nodes] for number in range(1, instances + 1)}
        for number, (name, node) in enumerate(where.items()):
            uuid = f"00000000-0000-4000-8000-{number:012}"
            document["instances"][uuid] = {
                **template,
                "name": name,
                "uuid": uuid,
                "primary_node": uuids[node],
            }
        config.write_text(json.dumps(document), encoding="utf-8")
        folder = root / "simulation"
        folder.mkdir()
        if latency:
            rules = [
                {"kind": "delay", "call": call, "seconds": latency}
                for call in ("node_info", "all_instances_info")
            ]
            (folder / "faults.json").write_text(json.dumps(rules), encoding="utf-8")
        store = NodeStore(str(folder / "nodes.sqlite"), synced=False)
        store.load()
        running = msgspec.json.encode(SimulatedInstance("fake", 128, 1))
        store.write((node, "instance", name, running) for name, node in where.items())
        store.close()

    return make
