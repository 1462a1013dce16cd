"""Debian's ``gnt-filter``, and the socket for monitors, against the daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.waiting import job_is

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.01}


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One daemon for all tests here, with a socket for monitors."""
    require("gnt-filter", "ganeti-3.0")
    with DaemonProcess(
        module_folder / "node1", f"--monitor-socket={module_folder / 'monitor'}"
    ) as daemon:
        yield daemon


@pytest.fixture
def gnt(daemon: DaemonProcess) -> Callable[..., str]:
    """Runs a command of the tools that must succeed; returns what it printed."""

    def run(*command: str, code: int = 0) -> str:
        done = daemon.tool(command)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


def test_life_of_a_rule(daemon: DaemonProcess, gnt: Callable[..., str]) -> None:
    """A rule is added, shown, holds a job, is replaced, rejects one, limits some, is deleted."""
    client = daemon.client()
    predicates = [["opcode", ["=", "OP_ID", "OP_TEST_DELAY"]]]
    uuid = gnt(
        "gnt-filter",
        "add",
        "--priority=3",
        f"--predicates={json.dumps(predicates)}",
        "--action=PAUSE",
        "--reason=why",
    ).strip()
    held = client.submit_job([DELAY])
    listed = gnt("gnt-filter", "list", "--no-headers", "--separator=;", "-o", "+uuid")
    assert listed.startswith(f"{uuid};0;3;[['opcode', ['==', 'OP_ID', 'OP_TEST_DELAY']]];PAUSE;")
    assert re.search(r"\['gnt:user', 'why', \d+\], \['luxid', '', \d+\]", gnt("gnt-filter", "info"))
    assert client.query_jobs([held], ["status"]) == [["queued"]]
    assert (
        gnt(
            "gnt-filter",
            "replace",
            "--action=REJECT",
            '--predicates=[["jobid", [">", "id", "watermark"]]]',
            uuid,
        )
        == f"{uuid}\n"
    )
    job_is(client, held, "success")
    rejected = client.submit_job([DELAY])
    job_is(client, rejected, "canceled")
    gnt("gnt-filter", "replace", "--action=RATE_LIMIT 1", uuid)
    long = client.submit_job([DELAY | {"duration": 3600, "no_locks": True}])
    jobs = [client.submit_job([DELAY | {"no_locks": True}]) for _ in range(2)]
    assert [row[0] for row in client.query_jobs(jobs, ["status"])] == ["queued", "queued"]
    assert client.cancel_job(long, kill=True)[0]
    for job in jobs:
        job_is(client, job, "success")
    assert gnt("gnt-filter", "delete", uuid) == ""
    assert gnt("gnt-filter", "list", "--no-headers") == ""
    assert uuid in gnt("gnt-filter", "delete", uuid, code=1)


def test_rules_outlive_a_restart(daemon: DaemonProcess, gnt: Callable[..., str]) -> None:
    """A rule, and the job that it holds, are there after a crash; the job goes on when it goes."""
    uuid = gnt("gnt-filter", "add", "--action=PAUSE").strip()
    job = daemon.client().submit_job([DELAY])
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert client.query_jobs([job], ["status"]) == [["queued"]]
    client.delete_filter(uuid)
    job_is(client, job, "success")


def test_socket_for_monitors(daemon: DaemonProcess, module_folder: Path) -> None:
    """On the second socket everything can be asked and nothing changed."""
    with BlockingClient(str(module_folder / "monitor"), timeout=10) as client:
        assert client.config_values(["cluster_name"]) == ["cluster"]
        with pytest.raises(OpPrereqError, match="changes something"):
            client.submit_job([DELAY])
        assert client.query_filters(None, ["uuid"]) == []
