"""A daemon that is killed at each write while a backup is made or imported.

Whatever is left must not look whole unless it is, and the same command does it afterwards.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.descriptions import description_in
from tests.functional.instance_kills import (
    CREATION,
    NAME,
    REMOVAL,
    Errand,
    Interrupted,
    held,
    instances,
)
from tests.functional.waiting import FINAL, job_is

#: Copies take a moment, and so does the guest that zeroes free space: a look must find it running.
CLUSTER = """\
[cluster]
disk_templates = ["plain", "drbd"]
hypervisors = ["fake"]
transfer_speed = 100

[[every_node.volume_group]]
name = "xenvg"
physical_volume = [{ name = "/dev/sda", size = 32768 }]

[[node]]
name = "node1"

[[node]]
name = "node2"

[[node]]
name = "node3"

[[os]]
name = "demo"
writes = "{instance} {index}"

[[image]]
place = "/srv/zero.img"
size = 32
seconds = 4
zeroes = true
"""

_MADE = {**CREATION, "os_type": "demo", "start": False, "iallocator": None}
_EXPORT = {"OP_ID": "OP_BACKUP_EXPORT", "instance_name": NAME, "target_node": "node1"}
_ZEROING = {"OP_ID": "OP_CLUSTER_SET_PARAMS", "zeroing_image": "/srv/zero.img"}
_PLAIN = {**_MADE, "disk_template": "plain", "snode": None}
_ZERO_EXPORT = {**_EXPORT, "zero_free_space": True}

#: What is done while the daemon is killed: the jobs before it, and the opcode.
BACKUPS: Mapping[str, Errand] = {
    "import": (
        (_MADE, _EXPORT, REMOVAL),
        {**_MADE, "mode": "import", "src_node": "node1", "os_type": None},
    ),
    "zero": ((_PLAIN, _ZEROING), _ZERO_EXPORT),
    "zero-running": (({**_PLAIN, "start": True}, _ZEROING), _ZERO_EXPORT),
}

#: What is on the disks that were exported.
CONTENT = [[f"{NAME} {index}"] for index in range(len(CREATION["disks"]))]


def describe(folder: Path) -> str:
    """Writes the description of the cluster; returns its path."""
    return description_in(folder, CLUSTER)


class InterruptedBackup(Interrupted):
    """One backup in the life of a daemon, killed at a given write; the same follows."""

    def __init__(self, daemon: DaemonProcess, errand: str) -> None:
        super().__init__(daemon, errand, BACKUPS)
        self._errand = errand

    def run(self, writes: int) -> bool:
        """Kills the daemon at that write, lets it start again, looks, does it once more.

        Returns False if the errand had fewer writes.
        """
        daemon = self.daemon
        job, reached = self.cut_off(writes)
        with daemon.client() as master:
            status = job_is(master, job, *FINAL)
            ((result,),) = master.query_jobs([job], ["opresult"])
            if self._errand == "import":
                self._look_at_import(master, status, str(result))
            else:
                self._look_at_export(master, str(result))
            self._look_for_leftovers(master, job, writes)
            if not (self._errand == "import" and NAME in instances(master)):
                assert self._done(master, self.op) == "success", self._words(master)
            if self._errand == "import":
                assert self._contents() == CONTENT
            assert self._done(master, REMOVAL) == "success", self._words(master)
        daemon.stop()
        assert held(daemon) == []
        return reached

    def _look_at_import(self, master: BlockingClient, status: str, words: str) -> None:
        """The instance is whole, or gone, or marked and named with what removes it."""
        if NAME not in instances(master):
            assert status == "error"
            return
        ((state,),) = [
            [field[1] for field in row] for row in master.query("instance", ["admin_state"])["data"]
        ]
        if state == "offline":
            assert status == "error"
            assert f"'gnt-instance remove {NAME}' removes it" in words
            assert self._done(master, REMOVAL) == "success", self._words(master)
        else:
            assert self._contents() == CONTENT, f"{state}: {words}"

    def _look_at_export(self, master: BlockingClient, words: str) -> None:
        """The instance is as before, and no guest runs in its place, or it is named."""
        ((state,),) = [
            [field[1] for field in row] for row in master.query("instance", ["admin_state"])["data"]
        ]
        assert state == ("up" if self._errand == "zero-running" else "down")
        running = [value for kind, _, value in self._values() if kind == "instance"]
        assert not [value for value in running if value.get("image")], words
        devices = [name for kind, name, _ in self._values() if kind == "device"]
        kept = [name for name in devices if ".disk" in name]
        assert devices == kept, words

    def _values(self) -> list[tuple[str, str, Any]]:
        """Returns what nodes hold: kind, name, value."""
        path = self.daemon.root / "simulation" / "nodes.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as nodes:
            rows = nodes.execute(
                "SELECT kind, name, value FROM held WHERE kind IN ('device', 'instance')"
            ).fetchall()
        return [(kind, name, json.loads(value)) for kind, name, value in rows]

    def _contents(self) -> list[list[str]]:
        """Returns what is on the disks of the instance, on its primary node."""
        found = {
            name.rpartition(".disk")[2]: value.get("content", [])
            for kind, name, value in self._values()
            if kind == "device" and not name.endswith("_meta")
        }
        return [found[key] for key in sorted(found)]
