"""``gnt-luxi switch`` on a real cluster (Debian's Ganeti 3.0.2), also where a step fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import need_peer
from tests.functional.realcluster import NODES, RealCluster, real_cluster
from tests.functional.realcommands import outcome
from tests.functional.test_takeover import VERIFY
from tests.functional.waiting import equal_to, until

PEERS = {"ganeti-luxid", "ganeti-wconfd"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """A real cluster, luxid its master daemon, that knows where gnt-masterd's programs are."""
    need_peer()
    with real_cluster() as made:
        made.make_programs()
        yield made


def switch(cluster: RealCluster, words: str) -> str:
    """Returns the command that switches a node."""
    programs = f"{cluster.folder}/bin"
    return f"{programs}/gnt-luxi switch {words} --programs {programs}"


def settings(cluster: RealCluster, node: str = "node1") -> str:
    """Returns daemon-util's settings."""
    return (cluster.folder / node / "etc/default/ganeti").read_text(encoding="utf-8")


def delay(cluster: RealCluster, seconds: int) -> int:
    """Submits a job that takes so long, and returns its id."""
    out = cluster.run(f"gnt-debug delay --submit --print-jobid -n node2 {seconds}").checked().out
    return int("".join(filter(str.isdigit, out)))


@contextlib.contextmanager
def running_job(cluster: RealCluster) -> Iterator[int]:
    """A job that runs for as long as this is held."""
    job = delay(cluster, 600)
    status = f"gnt-job list --no-headers -o status {job}"
    until(f"job {job} runs", lambda: cluster.run(status).out, equal_to("running\n"))
    yield job
    cluster.run(f"gnt-job cancel --kill --yes-do-it {job}").checked()
    until(f"job {job} ends", lambda: cluster.run(status).out, lambda out: out != "running\n")


def is_luxids(cluster: RealCluster, before: str) -> None:
    """Checks that luxid and wconfd serve as if nothing had been tried."""
    assert settings(cluster) == before
    assert set(cluster.names()) >= PEERS
    assert not Path(cluster.paths.pid).exists()
    cluster.run("gnt-cluster add-tags tried && gnt-cluster remove-tags tried").checked()
    assert "unset" in cluster.run("gnt-cluster queue info").checked().out


def test_plan_changes_nothing(cluster: RealCluster) -> None:
    """--dry-run makes the checks and says the steps, each with its undo."""
    before = settings(cluster)
    out = cluster.run(switch(cluster, "to --dry-run")).checked().out
    assert out.startswith("All checks passed; nothing was changed\n 1. Close the job queue (undo:")
    plan = json.loads(cluster.run(switch(cluster, "to --json --dry-run")).checked().out)
    assert [step["name"] for step in plan["steps"]] == [
        *("drain", "wait", "stop-luxid", "processes", "stop-wconfd"),
        *("hook", "start", "answer", "open"),
    ]
    is_luxids(cluster, before)


def test_jobs_that_do_not_end(cluster: RealCluster) -> None:
    """It waits no longer than asked to, names the job, and opens the queue again."""
    before = settings(cluster)
    with running_job(cluster) as job:
        ran = cluster.run(switch(cluster, "to --wait 1"))
    assert ran.code == 1
    assert f"waiting for job {job} (running, TEST_DELAY(600.0))" in ran.err
    assert "--wait gives them more time\nAll was undone: it is as it was before" in ran.err
    is_luxids(cluster, before)


def test_start_that_fails(cluster: RealCluster) -> None:
    """The daemon doesn't start: the others see another master by then. luxid is back after it."""
    before = settings(cluster)
    programs = cluster.folder / "broken"
    programs.mkdir()
    (programs / "gnt-luxi").symlink_to(cluster.folder / "bin/gnt-luxi")
    twistd = programs / "twistd"
    # The checks pass, and then something happens.
    twistd.write_text(
        f'#!/bin/sh\ncase "$*" in *check-only*) exec {cluster.folder}/bin/twistd "$@" ;; esac\n'
        "echo cannot start >&2\nexit 1\n",
        encoding="utf-8",
    )
    twistd.chmod(0o755)
    ran = cluster.run(f"{cluster.folder}/bin/gnt-luxi switch to --programs {programs}")
    assert ran.code == 1
    assert "cannot start" in ran.err
    steps = [line for line in ran.err.splitlines() if line.startswith("Undo: ")]
    assert steps == [
        "Undo: Stop gnt-masterd",
        "Undo: Have daemon-util know luxid and wconfd again",
        "Undo: Start wconfd",
        "Undo: Start luxid",
        "Undo: Open the job queue",
    ]
    is_luxids(cluster, before)


def test_interrupted(cluster: RealCluster) -> None:
    """Ctrl-C while it waits for a job: the queue is opened again, and the exit code says so."""
    before = settings(cluster)
    said = cluster.folder / "said"
    program = cluster.folder / "switch"
    program.write_text(
        f"{switch(cluster, 'to')} 2>{said} & wait_for=$!\n"
        f"until grep -q 'waiting for job' {said}; do sleep 0.1; done\n"
        "kill -INT $wait_for; wait $wait_for\n",
        encoding="utf-8",
    )
    # In an interactive shell's way: a plain one's background processes ignore SIGINT.
    with running_job(cluster):
        ran = cluster.run(f"bash -m {program}; code=$?; cat {said} >&2; exit $code")
    assert ran.code == 130, ran
    assert "SIGINT: all steps are undone" in ran.err
    assert "Failed: interrupted\nUndo: Open the job queue\n" in ran.err
    is_luxids(cluster, before)


def test_refused(cluster: RealCluster) -> None:
    """What the daemon's own checks find is found before anything is touched."""
    before = settings(cluster)
    ssconf = [cluster.folder / node / "var/lib/ganeti/ssconf_master_node" for node in NODES[1:]]
    for file in ssconf:
        file.write_text("node2\n", encoding="ascii")
    try:
        ran = cluster.run(switch(cluster, "to"))
    finally:
        for file in ssconf:
            file.write_text("node1\n", encoding="ascii")
    assert ran.code == 1
    assert ran.err.startswith("gnt-luxi: Nothing was changed:\n")
    assert "--check-only ended with exit code 1" in ran.err
    is_luxids(cluster, before)


def test_there_and_back(cluster: RealCluster) -> None:
    """A job that runs is waited for, one that is submitted meanwhile is refused, none is lost."""
    before = settings(cluster)
    verified = outcome(cluster, VERIFY)
    job = delay(cluster, 3)
    out = cluster.run(switch(cluster, "to")).checked().out
    assert out.startswith("gnt-masterd serves this cluster now\n")
    assert not PEERS & set(cluster.names())
    assert Path(cluster.paths.pid).exists()
    cluster.daemon_util("check ganeti-luxid").checked()
    assert cluster.run(f"gnt-job list --no-headers -o status {job}").checked().out == "success\n"
    cluster.run("gnt-cluster add-tags kept").checked()
    assert outcome(cluster, VERIFY) == verified
    again = cluster.run(switch(cluster, "to")).checked().out
    assert again == "There is nothing to do: this node has gnt-masterd already\n"

    # Candidates are prepared only.
    plain = settings(cluster, "node2")
    out = cluster.run(switch(cluster, "to"), "node2").checked().out
    assert out == "This node will run gnt-masterd when it becomes the master\n"
    assert settings(cluster, "node2") != plain
    cluster.run(switch(cluster, "back"), "node2").checked()
    assert settings(cluster, "node2") == plain

    job = delay(cluster, 3)
    out = cluster.run(switch(cluster, "back")).checked().out
    assert out.startswith("luxid serves this cluster now\n")
    is_luxids(cluster, before)
    assert cluster.run("gnt-cluster list-tags").checked().out == "kept\n"
    assert cluster.run(f"gnt-job list --no-headers -o status {job}").checked().out == "success\n"
    again = cluster.run(switch(cluster, "back")).checked().out
    assert again == "There is nothing to do: this node has luxid already\n"


def test_way_back_that_fails(cluster: RealCluster) -> None:
    """Luxid can't be started: gnt-masterd goes on."""
    file = cluster.folder / "node1/etc/default/ganeti"
    file.write_text(settings(cluster) + "LUXID_ARGS=--no-such-option\n", encoding="utf-8")
    cluster.run(switch(cluster, "to")).checked()
    hooked = settings(cluster)
    ran = cluster.run(switch(cluster, "back"))
    assert ran.code == 1
    assert "All was undone: it is as it was before" in ran.err, ran.err
    assert settings(cluster) == hooked
    assert Path(cluster.paths.pid).exists()
    assert not PEERS & set(cluster.names())
    cluster.run("gnt-cluster add-tags on").checked()
    file.write_text(hooked.replace("LUXID_ARGS=--no-such-option\n", ""), encoding="utf-8")
    cluster.run(switch(cluster, "back")).checked()
    assert "on\n" in cluster.run("gnt-cluster list-tags").checked().out
