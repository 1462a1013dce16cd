"""A backup of a master that is at work, and the master that comes of it; versions of its past."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ganeti_masterd.config.document import parse
from ganeti_masterd.testing.daemon import DaemonProcess

MakeDaemon = Callable[..., DaemonProcess]


def luxi(daemon: DaemonProcess, *args: str, code: int = 0) -> Any:
    """Runs ``gnt-luxi --json`` for a daemon's root; returns what it prints."""
    program = "from ganeti_masterd.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, "--root", str(daemon.root), "--json", *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout) if ran.stdout else ran.stderr


def tag(number: int) -> dict[str, Any]:
    """Returns an opcode that changes the configuration."""
    return {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "name": "", "tags": [f"t{number}"]}


def test_backup_under_load(make_daemon: MakeDaemon, folder: Path) -> None:
    """Whatever was acknowledged before a backup is in the master that is restored from it."""
    first = make_daemon()
    first.start()
    acknowledged: list[int] = []
    ended = threading.Event()

    def work() -> None:
        with first.client() as client:
            number = 0
            while not ended.is_set():
                number += 1
                op = (
                    tag(number % 60) if number % 3 else {"OP_ID": "OP_TEST_DELAY", "duration": 1e-3}
                )
                acknowledged.append(client.submit_job([op]))
                if not number % 5:
                    client.auto_archive_jobs(0, 10)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while len(acknowledged) < 60:
            ended.wait(0.01)
        before = list(acknowledged)
        file = folder / "backup"
        made = luxi(first, "backup", str(file))
        for nothing in ("", f"{folder}/new/"):
            assert "must name a file" in luxi(first, "backup", nothing, code=1)
        assert len(acknowledged) > len(before)  # it went on meanwhile
    finally:
        ended.set()
        worker.join()
    first.kill()

    second = make_daemon(name="elsewhere")
    told = luxi(second, "restore-backup", str(file))
    assert told == {
        "cluster": "cluster",
        "master": "node1",
        "serial": made["serial"],
        "last_job": made["last_job"],
    }
    restored = parse(Path(second.paths.config).read_bytes())
    assert restored.header.serial_no == made["serial"]
    second.start()
    with second.client() as client:
        rows = client.query_jobs(before, ["id", "status"])
        assert [row[0] for row in rows] == before
        assert all(row[1] for row in rows)
        assert client.submit_job([tag(99)]) > made["last_job"] >= max(before)
        assert client.cluster_info()["uuid"] == restored.cluster.uuid
    error = luxi(second, "restore-backup", str(file), code=1)
    assert "has a cluster's master already" in error


def test_versions(make_daemon: MakeDaemon) -> None:
    """Changes are told with their authors, survive a kill, come back, and go again."""
    daemon = make_daemon()
    daemon.start()
    with daemon.client() as client:
        for number in (1, 2):
            job = client.submit_job([tag(number)])
            while client.query_jobs([job], ["status"]) != [["success"]]:
                client.wait_for_job_change(job, ["status"], ["queued"], 0)
    log = luxi(daemon, "config", "log")
    assert [one["changes"] for one in log] == [
        [],
        ["cluster cluster: tag t1 added"],
        ["cluster cluster: tag t2 added"],
    ]
    assert [one["job"] for one in log] == [None, 1, 2]
    serial = log[-1]["serial"]
    daemon.kill()
    daemon.start()
    assert luxi(daemon, "config", "log") == log
    done = luxi(daemon, "config", "restore", "2", "--yes")
    assert done["changes"] == ["cluster cluster: tag t2 removed"]
    assert done["serial"] > serial
    with daemon.client() as client:
        assert client.cluster_info()["tags"] == ["t1"]
    luxi(daemon, "config", "restore", "3", "--yes")
    with daemon.client() as client:
        assert client.cluster_info()["tags"] == ["t1", "t2"]
    daemon.stop()
    assert len(json.loads(Path(daemon.paths.config).read_bytes())["cluster"]["tags"]) == 2
