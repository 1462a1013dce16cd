"""A daemon that is killed at each write while an opcode on an instance runs.

These are the writes of its journal, and those by which simulated nodes keep what a call changed.

The daemon's nodes keep what they hold durably, so that it is there after the kill, as on real ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.failures import CallFailed
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.waiting import FINAL, job_is

NAME = "web.example.com"

CREATION: Mapping[str, Any] = {
    "OP_ID": "OP_INSTANCE_CREATE",
    "instance_name": NAME,
    "mode": "create",
    "disk_template": "drbd",
    "disks": [{"size": 64}, {"size": 32}],
    "nics": [],
    "os_type": "noop",
    "name_check": False,
    "ip_check": False,
    "pnode": "node2",
    "snode": "node3",
}
REMOVAL: Mapping[str, Any] = {"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": NAME}

#: What is done while the daemon is killed: the jobs before it, and the opcode.
Errand = tuple[tuple[Mapping[str, Any], ...], Mapping[str, Any]]

ERRANDS: Mapping[str, Errand] = {
    "create": ((), CREATION),
    "remove": ((CREATION,), REMOVAL),
    "grow": (
        (CREATION,),
        {"OP_ID": "OP_INSTANCE_GROW_DISK", "instance_name": NAME, "disk": 0, "amount": 64},
    ),
    "convert": (
        ({**CREATION, "disk_template": "plain", "snode": None, "start": False},),
        {
            "OP_ID": "OP_INSTANCE_SET_PARAMS",
            "instance_name": NAME,
            "disk_template": "drbd",
            "remote_node": "node3",
        },
    ),
}

#: Each call takes this long, so that writes are apart.
LATENCY = 0.02

#: Seconds after which an errand must have ended, or have been killed.
LIMIT = 60.0


class Interrupted:
    """One errand in the life of one daemon, killed at a given write."""

    def __init__(
        self, daemon: DaemonProcess, errand: str, errands: Mapping[str, Errand] = ERRANDS
    ) -> None:
        self.daemon = daemon
        self.before, self.op = errands[errand]
        folder = daemon.root / "simulation"
        folder.mkdir(parents=True, exist_ok=True)
        faults = [{"kind": "delay", "seconds": LATENCY}]
        (folder / "faults.json").write_text(json.dumps(faults), encoding="ascii")
        self._files = (Path(f"{daemon.paths.journal}-wal"), folder / "nodes.sqlite-wal")

    def cut_off(self, writes: int) -> tuple[int, bool]:
        """Does what comes before, kills the daemon at that write, and lets it start again.

        Returns the errand's job, and False if it had fewer writes.
        """
        daemon = self.daemon
        if not daemon.running:
            daemon.start()
        with daemon.client() as master:
            for op in self.before:
                assert self._done(master, op) == "success", self._words(master)
            job = master.submit_job([self.op])
            reached = self._wait_for(writes, lambda: self._ended(master, job))
        daemon.kill()
        daemon.start()
        return job, reached

    def run(self, writes: int) -> bool:
        """Kills the daemon at that write, lets it start again, and checks and cleans all.

        Returns False if the errand had fewer writes.
        """
        daemon = self.daemon
        job, reached = self.cut_off(writes)
        with daemon.client() as master:
            status = job_is(master, job, *FINAL)
            assert status in ("success", "error"), status
            there = NAME in instances(master)
            if there and status == "error" and self.op is CREATION:
                self._look_for_its_name(master, job)
            self._look_for_leftovers(master, job, writes)
            if status == "success":
                assert there is (self.op is not REMOVAL)
            if not there and self.op is not REMOVAL:
                # The second try makes all that the first one didn't.
                assert self._done(master, CREATION) == "success", self._words(master)
            elif there and self.op["OP_ID"] == "OP_INSTANCE_GROW_DISK":
                assert self._done(master, self.op) == "success", self._words(master)
            if NAME in instances(master):
                assert self._done(master, REMOVAL) == "success", self._words(master)
            assert instances(master) == []
            told = self._verified(master)
        daemon.stop()
        left = [one for one in held(daemon) if not _is_told(told, *one)]
        assert not left, f"nobody tells of {left} after {writes} writes:\n{told}"
        return reached

    def _look_for_its_name(self, master: BlockingClient, job: int) -> None:
        """An instance that isn't complete doesn't look so: the job's result names it."""
        ((result,),) = master.query_jobs([job], ["opresult"])
        ((state,),) = [
            [field[1] for field in row] for row in master.query("instance", ["admin_state"])["data"]
        ]
        told = f"'gnt-instance remove {NAME}' removes it" in str(result)
        assert told is (state == "down"), (state, result)

    def _look_for_leftovers(self, master: BlockingClient, job: int, writes: int) -> None:
        """Nodes hold what the configuration has, or the job that was cut off names the rest."""
        ((result,),) = master.query_jobs([job], ["opresult"])
        words, told = str(result), self._verified(master)
        for node, kind, name in held(self.daemon):
            if not _is_told(told, node, kind, name):
                continue
            if kind == "end":
                host, _, minor = name.partition("/")
                named = f"DRBD minor {minor} on node {host}"
            else:
                named = f"{name} on node {node}"
            assert named in words, f"{named} is left after {writes} writes:\n{words}\n{told}"

    def _wait_for(self, writes: int, ended: Callable[[], bool]) -> bool:
        """Returns once so much was written; False if the job ended before that."""
        last, seen = self._written(), 0
        until = time.monotonic() + LIMIT
        look_at = time.monotonic() + 0.5
        while seen < writes:
            now = self._written()
            if now != last:
                last, seen = now, seen + 1
                continue
            moment = time.monotonic()
            assert moment < until, f"the job doesn't end, {seen} writes"
            if moment > look_at:
                if ended():
                    return False
                look_at = moment + 0.5
            time.sleep(0.0001)
        return True

    def _written(self) -> list[tuple[int, int]]:
        found = []
        for path in self._files:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                found.append((status.st_mtime_ns, status.st_size))
        return found

    def _ended(self, master: BlockingClient, job: int) -> bool:
        try:
            ((status,),) = master.query_jobs([job], ["status"])
        except CallFailed:
            return False
        return status in FINAL

    def _done(self, master: BlockingClient, op: Mapping[str, Any]) -> str:
        self._last = master.submit_job([op])
        return job_is(master, self._last, *FINAL, limit=LIMIT)

    def _words(self, master: BlockingClient) -> str:
        return str(master.query_jobs([self._last], ["opresult", "oplog"]))

    def _verified(self, master: BlockingClient) -> str:
        """Returns the lines of a verification."""
        job = master.submit_job([{"OP_ID": "OP_CLUSTER_VERIFY_GROUP", "group_name": "default"}])
        job_is(master, job, *FINAL, limit=LIMIT)
        ((logs,),) = master.query_jobs([job], ["oplog"])
        return "\n".join(str(line[-1]) for log in logs for line in log)


def _is_told(lines: str, node: str, kind: str, name: str) -> bool:
    """Whether a verification tells of what a node holds."""
    if kind == "end":
        host, minor = name.split("/")
        return f"node {host}: unallocated drbd minor {minor} is in use" in lines
    return f"node {node}: volume xenvg/{name} is unknown" in lines


def instances(master: BlockingClient) -> list[str]:
    """Returns the names of all instances."""
    return [row[0][1] for row in master.query("instance", ["name"])["data"]]


def held(daemon: DaemonProcess) -> list[tuple[str, str, str]]:
    """Returns what the nodes of a stopped daemon hold of instances: (node, kind, name).

    Of a device only the name of the volume.
    """
    path = daemon.root / "simulation" / "nodes.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as nodes:
        rows = nodes.execute(
            "SELECT node, kind, name, value FROM held WHERE kind IN ('device', 'instance', 'end')"
        ).fetchall()
    nodes.close()
    return [
        (node, kind, name.rpartition("/")[2] if kind == "device" else name)
        for node, kind, name, value in rows
        if kind != "end" or json.loads(value).get("link") or json.loads(value).get("backing")
    ]
