"""A daemon that is killed at each write while an instance moves, and the way out afterwards.

The way out is that of docs/procedures.rst, taken by somebody who knows only which command was
running: no expert who looks up at which step it was.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.descriptions import description_in
from tests.functional.instance_kills import CREATION, NAME, Errand, Interrupted, held
from tests.functional.ledger import FINAL
from tests.functional.waiting import job_is, jobs_end, unfinished

#: Four nodes under a hypervisor whose migrations have two sides.
CLUSTER = """\
[cluster]
disk_templates = ["drbd", "plain"]
hypervisors = ["kvm"]
migration_speed = 2000
transfer_speed = 2000

[[every_node.volume_group]]
name = "xenvg"
physical_volume = [{ name = "/dev/sda", size = 32768 }]

[[node]]
name = "node1"

[[node]]
name = "node2"

[[node]]
name = "node3"

[[node]]
name = "node4"
"""

_MIRRORED = {**CREATION, "iallocator": None}
_PLAIN = {**_MIRRORED, "disk_template": "plain", "snode": None}


def _op(op_id: str, **parameters: Any) -> dict[str, Any]:
    return {"OP_ID": f"OP_INSTANCE_{op_id}", "instance_name": NAME, **parameters}


#: What is done while the daemon is killed: the jobs before it, and the opcode.
MOVES: Mapping[str, Errand] = {
    "failover": ((_MIRRORED,), _op("FAILOVER")),
    "migrate": ((_MIRRORED,), _op("MIGRATE")),
    "move": ((_PLAIN,), _op("MOVE", target_node="node3")),
    "in-place": ((_MIRRORED,), _op("REPLACE_DISKS", mode="replace_on_secondary")),
    "new-secondary": (
        (_MIRRORED,),
        _op("REPLACE_DISKS", mode="replace_new_secondary", remote_node="node4"),
    ),
    "evacuate": (
        (_MIRRORED,),
        {
            "OP_ID": "OP_NODE_EVACUATE",
            "node_name": "node3",
            "mode": "secondary-only",
            "remote_node": "node4",
        },
    ),
}

#: What gets things going again after each of them, before the same is asked for once more.
FIRST_AID: Mapping[str, Mapping[str, Any]] = {
    "failover": _op("STARTUP"),
    "migrate": _op("MIGRATE", cleanup=True),
    "move": _op("STARTUP"),
    "in-place": _op("REPLACE_DISKS", mode="replace_auto"),
    "new-secondary": _op("ACTIVATE_DISKS"),
    "evacuate": _op("ACTIVATE_DISKS"),
}

#: Where the instance is once all is done: primary and secondary node.
DONE: Mapping[str, tuple[str, ...]] = {
    "failover": ("node3", "node2"),
    "migrate": ("node3", "node2"),
    "move": ("node3",),
    "in-place": ("node2", "node3"),
    "new-secondary": ("node2", "node4"),
    "evacuate": ("node2", "node4"),
}


def describe(folder: Path) -> str:
    """Writes the description of the cluster; returns its path."""
    return description_in(folder, CLUSTER)


class InterruptedMove(Interrupted):
    """One move in the life of a daemon, killed at a given write; another may follow."""

    def __init__(self, daemon: DaemonProcess, errand: str) -> None:
        super().__init__(daemon, errand, MOVES)
        self._errand = errand

    def run(self, writes: int) -> bool:
        """Kills the daemon at that write, lets it start again, takes the way out, removes all.

        Returns False if the errand had fewer writes.
        """
        daemon = self.daemon
        job, reached = self.cut_off(writes)
        with daemon.client() as master:
            status = job_is(master, job, *FINAL)
            jobs_end(master)
            self._assert_runs_once(at_most=True)
            assert self._done(master, FIRST_AID[self._errand]) == "success", self._words(master)
            self._assert_runs_once()
            self._clear(master)
            if self._places(master) != DONE[self._errand]:
                assert status == "error" or self._errand == "evacuate"
                assert self._done(master, self.op) == "success", self._words(master)
                jobs_end(master)
            assert self._places(master) == DONE[self._errand]
            self._assert_runs_once(DONE[self._errand][0])
            assert self._done(master, _op("REPLACE_DISKS", mode="replace_auto")) == "success" or (
                self._errand == "move"
            )
            assert self._clear(master) == []
            assert self._done(master, _op("REMOVE")) == "success", self._words(master)
            left = held(daemon)
            assert not left, left
        assert "Must never be:" not in daemon.log_text()
        return reached

    def _ended(self, master: BlockingClient, job: int) -> bool:
        """An evacuation ends with the jobs that it submits."""
        return not unfinished(master)

    def _clear(self, master: BlockingClient) -> list[str]:
        """Removes volumes that belong to nobody, as a verification tells of them.

        Returns what else is wrong.
        """
        told = self._verified(master)
        for node, volume in re.findall(r"node (\S+): volume (\S+) is unknown", told):
            switch = [sys.executable, "-m", "ganeti_masterd.simulation", "remove-lv", node, volume]
            done = self.daemon.tool(switch)
            assert done.returncode == 0, done
        lines = [line for line in told.splitlines() if "ERROR" in line]
        return [line for line in lines if not line.endswith("is unknown")]

    def _places(self, master: BlockingClient) -> tuple[str, ...]:
        ((primary, secondaries),) = master.query("instance", ["pnode", "snodes"])["data"]
        return (primary[1], *secondaries[1])

    def _assert_runs_once(self, where: str | None = None, *, at_most: bool = False) -> None:
        """Expects that one node runs the instance, or none if ``at_most``."""
        path = self.daemon.root / "simulation" / "nodes.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as nodes:
            query = "SELECT node, value FROM held WHERE kind = 'instance'"
            rows = nodes.execute(query).fetchall()
        # A node that waits for its memory doesn't run it.
        running = [node for node, value in rows if not json.loads(value).get("incoming")]
        assert len(running) == 1 or (at_most and len(running) < 2), running
        assert where is None or running == [where], running
