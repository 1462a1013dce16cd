"""Roots whose queue is full when the daemon starts, as after months of work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.clusters import Prepare
from ganeti_masterd.journal.layout import encode_serial
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import prepare

#: When the jobs were done, seconds since the epoch.
_DONE = 1700000000

#: How long the job runs on which those that are queued depend, in seconds.
_HOLDS = 36000.0


def full_queue(archived: int, live: int) -> Prepare:
    """Returns what makes a root of three nodes with so many jobs.

    Half of the ``live`` ones have ended. The first of the others runs for hours
    once the daemon is up, and the rest depend on it: they stay queued.
    """

    def make(root: Path) -> None:
        paths = Paths(str(root))
        prepare(paths, 3)
        files = paths.queue_files
        for number in range(1, archived + 1):
            Path(files.archive_directory(number)).mkdir(exist_ok=True)
            Path(files.archived_job(number)).write_bytes(_job(number, _ended()))
        holder = archived + live // 2 + 1
        for number in range(archived + 1, archived + live + 1):
            if number < holder:
                body = _job(number, _ended())
            elif number == holder:
                body = _job(number, _queued(duration=_HOLDS))
            else:
                body = _job(number, _queued(depends=[[holder, ["success"]]]))
            Path(files.job(number)).write_bytes(body)
        Path(files.serial).write_bytes(encode_serial(archived + live))

    return make


def _job(number: int, op: dict[str, Any]) -> bytes:
    ended = op["status"] == "success"
    document = {
        "id": number,
        "ops": [op],
        "received_timestamp": [_DONE, 0],
        "start_timestamp": [_DONE, 0] if ended else None,
        "end_timestamp": [_DONE + 1, 0] if ended else None,
    }
    return json.dumps(document).encode()


def _queued(duration: float = 0.001, depends: list[Any] | None = None) -> dict[str, Any]:
    return {
        "input": {
            "OP_ID": "OP_TEST_DELAY",
            "duration": duration,
            "on_master": True,
            "on_nodes": [],
            "on_node_uuids": [],
            "repeat": 0,
            "interruptible": False,
            "no_locks": True,
            "dry_run": None,
            "debug_level": 0,
            "priority": 0,
            "depends": depends,
            "comment": None,
            "reason": [["gnt:user", "", _DONE * 10**9]],
        },
        "status": "queued",
        "result": None,
        "log": [],
        "start_timestamp": None,
        "exec_timestamp": None,
        "end_timestamp": None,
        "priority": 0,
    }


def _ended() -> dict[str, Any]:
    stamps = {
        "start_timestamp": [_DONE, 0],
        "exec_timestamp": [_DONE, 0],
        "end_timestamp": [_DONE + 1, 0],
    }
    return {**_queued(), **stamps, "status": "success"}
