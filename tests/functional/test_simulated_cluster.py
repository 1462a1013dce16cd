"""A daemon on a cluster that a file describes, and its switches thrown from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonFailed, DaemonProcess

RECORDED = str(files("ganeti_masterd") / "simulation" / "clusters" / "recorded.toml")


def switch(daemon: DaemonProcess, *words: str) -> tuple[int, str]:
    """Throws a switch with the program for it; returns its exit code and what it printed."""
    command = [sys.executable, "-m", "ganeti_masterd.simulation", *words]
    environment = {**os.environ, "GANETI_ROOTDIR": str(daemon.root)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def volumes(daemon: DaemonProcess, node: str) -> Any:
    """The names of a node's volumes, by a job."""
    with daemon.client() as client:
        op = {"OP_ID": "OP_NODE_QUERYVOLS", "nodes": [node], "output_fields": ["name"]}
        job = client.submit_job([op])
        fields = ["status", "opresult"]
        news: Any = None
        while news is None or news[0] not in ("success", "error"):
            news = client.wait_for_job_change(job, fields, news, None)[0]
        assert news[0] == "success", news
        return [row[0] for row in news[1][0]]


def test_described(make_daemon: Callable[..., DaemonProcess]) -> None:
    """A file makes the cluster, a switch changes it, and a kill loses nothing of either."""
    daemon = make_daemon("--simulate-log=synced", nodes=RECORDED)
    daemon.start()
    with daemon.client() as client:
        found = client.query("node", ["name", "group", "mtotal"])
        rows = sorted([cell[1] for cell in row] for row in found["data"])
    groups = ["default"] * 3 + ["rack2"] * 2
    assert rows == [[f"node{at}", groups[at - 1], 32768] for at in range(1, 6)]
    assert switch(daemon, "make-lv", "node4", "xenvg/stray", "96") == (0, "")
    assert volumes(daemon, "node4") == ["stray"]
    code, said = switch(daemon, "dance")
    assert code == 1
    assert "there is no command 'dance'" in said
    daemon.kill()
    daemon.start()
    assert volumes(daemon, "node4") == ["stray"]
    assert "xenvg/stray|96.00m" in switch(daemon, "lvs", "node4")[1]
    daemon.stop()
    assert switch(daemon, "help")[0] == 1


def test_wrong_file(make_daemon: Callable[..., DaemonProcess], folder: Path) -> None:
    """A file that makes no sense ends the start; the message says where and why."""
    path = folder / "wrong.toml"
    path.write_text('[[node]]\nname = "node1"\nmemroy = 5\n', encoding="ascii")
    daemon = make_daemon(nodes=str(path))
    with pytest.raises(DaemonFailed):
        daemon.start()
    fault = f"{path}: table [node[1]], key 'memroy': there is no such key"
    assert fault in daemon.log.read_text(encoding="utf-8")
