"""deploy/gnt-masterd.service under a real systemd, with a real cluster (Debian's Ganeti 3.0.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import REQUIRE_PEER, need_peer, require
from tests.functional.realcluster import NODES, RealCluster, real_cluster
from tests.functional.realcommands import outcome
from tests.functional.systemd import UNIT, Systemd, can_run
from tests.functional.test_takeover import VERIFY
from tests.functional.waiting import containing, equal_to, until

STATE = ("ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus")


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    """Systemd on a cluster that luxid was stopped on, and daemon-util that knows gnt-masterd.

    It waits for a shorter time than the unit says, where it waits.
    """
    need_peer()
    require("nsenter", "util-linux")
    if REQUIRE_PEER:
        require("systemctl", "systemd")
    if (missing := can_run()) is not None:
        pytest.skip(missing)
    with real_cluster() as cluster:
        folder = cluster.folder
        folder.joinpath("verify").write_text(str(outcome(cluster, VERIFY)), encoding="utf-8")
        cluster.stop_luxid()
        cluster.deploy()
        ends = f"ExecStopPost=/bin/sh -c 'echo $SERVICE_RESULT $EXIT_STATUS >>{folder}/ends'"
        made = Systemd(cluster, "WatchdogSec=5", "RestartSec=0.1", ends)
        try:
            made.start()
            yield made
        finally:
            made.end()


@pytest.fixture
def running(systemd: Systemd) -> Systemd:
    """The same, with the unit started."""
    stop(systemd)
    systemd.run(f"systemctl start {UNIT}").checked()
    return systemd


def stop(systemd: Systemd) -> None:
    """Stops the unit, and has systemd forget how often it was started."""
    systemd.run(f"systemctl stop {UNIT}").checked()
    systemd.run(f"systemctl reset-failed {UNIT}")  # fails where there is nothing to forget


def ends(systemd: Systemd) -> list[str]:
    """Returns how each run of the unit ended: what systemd makes of it, and the exit code."""
    return (systemd.cluster.folder / "ends").read_text(encoding="ascii").splitlines()


def restarted(systemd: Systemd, pid: str) -> None:
    """Waits until the daemon serves again, in another process."""
    until(
        "systemd has started it again",
        lambda: systemd.show("ActiveState", "SubState", "MainPID"),
        lambda seen: seen[:2] == ["active", "running"] and seen[2] != pid,
    )


@contextlib.contextmanager
def other_master(cluster: RealCluster) -> Iterator[None]:
    """While it lasts the other nodes take node2 for the master."""
    files = [cluster.folder / node / "var/lib/ganeti/ssconf_master_node" for node in NODES[1:]]
    for file in files:
        file.write_text("node2\n", encoding="ascii")
    yield
    for file in files:
        file.write_text("node1\n", encoding="ascii")


def job_status(systemd: Systemd, job: str) -> str:
    """Returns the status of a job."""
    listed = systemd.cluster.run(f"gnt-job list --no-headers -o status {job}")
    return listed.checked().out.strip()


def running_job(systemd: Systemd) -> str:
    """Submits a job that runs for minutes; returns its id when it runs."""
    command = "gnt-debug delay --submit --print-jobid --no-master -n node2 300"
    job = "".join(filter(str.isdigit, systemd.cluster.run(command).checked().out))
    until(f"job {job} runs", lambda: job_status(systemd, job), equal_to("running"))
    return job


def test_start(systemd: Systemd) -> None:
    """Systemctl returns when the daemon serves; with its few rights it does all that it should."""
    cluster = systemd.cluster
    systemd.run(f"systemctl start {UNIT}").checked()
    assert cluster.run("gnt-cluster getmaster").checked().out == "node1\n"
    assert systemd.show("ActiveState", "SubState", "NRestarts") == ["active", "running", "0"]
    (pid,) = systemd.show("MainPID")
    who = systemd.run(f"ps -o user:20=,group:20= -p {pid}").checked().out.split()
    assert who == ["gnt-masterd", "gnt-daemons"]
    assert "2 of 2 other nodes agree" in cluster.log()
    assert "address 192.0.2.1 is up" in cluster.log()
    for command in (
        "gnt-debug delay -n node2 -n node3 0.1",
        "gnt-cluster add-tags kept",
        "gnt-cluster command -n node2 true",
        "gnt-cluster redist-conf",
        "gnt-job archive 1",
        "gnt-node modify -D yes node3",
        "gnt-node modify -D no node3",
    ):
        cluster.run(command).checked()
    verified = str(outcome(cluster, VERIFY))
    assert verified == (cluster.folder / "verify").read_text(encoding="utf-8")
    assert "Traceback" not in cluster.log()


def test_reload(running: Systemd) -> None:
    """Systemctl reload has it open its log again."""
    log = Path(running.cluster.paths.log)
    log.rename(f"{log}.1")
    running.run(f"systemctl reload {UNIT}").checked()
    until(
        "the log is opened again",
        lambda: running.cluster.log() if log.exists() else "",
        containing("log file was opened again"),
    )


def test_daemon_util_goes_by_the_unit(running: Systemd) -> None:
    """daemon-util starts and stops the unit, with options for once."""
    running.daemon_util("check ganeti-luxid").checked()
    running.daemon_util("stop ganeti-luxid").checked()
    assert running.show("ActiveState", "Result") == ["inactive", "success"]
    assert ends(running)[-1].split()[0] == "success"
    assert not Path(running.cluster.paths.pid).exists()
    assert running.daemon_util("check ganeti-luxid").code == 1

    running.daemon_util("start ganeti-luxid --no-voting --yes-do-it").checked()
    assert "were not asked" in running.cluster.log()
    assert running.show("ActiveState") == ["active"]
    (pid,) = running.show("MainPID")
    running.daemon_util("check-and-start ganeti-wconfd").checked()
    assert running.show("MainPID") == [pid]
    assert "GNT_MASTERD_ONCE" not in running.run("systemctl show-environment").checked().out


def test_killed(running: Systemd) -> None:
    """After a crash it is started again; what ran has ended as an error by then."""
    job = running_job(running)
    (pid,) = running.show("MainPID")
    running.run(f"kill -KILL {pid}").checked()
    restarted(running, pid)
    assert running.show("NRestarts") == ["1"]
    assert job_status(running, job) == "error"


def test_hanging(running: Systemd) -> None:
    """One that gives no sign of life is killed, and started again."""
    (pid,) = running.show("MainPID")
    running.run(f"kill -STOP {pid}").checked()
    restarted(running, pid)
    assert running.show("NRestarts") == ["1"]
    assert ends(running)[-1] == "watchdog ABRT"


def test_crash_is_mended_at_once(running: Systemd) -> None:
    """Where nothing starts it again, the queue is in order all the same: luxid may go on."""
    job = running_job(running)
    (pid,) = running.show("MainPID")
    # No vote, no start: the other nodes say that they don't know.
    with other_master(running.cluster):
        running.run(f"kill -KILL {pid}").checked()
        until("systemd gives up", lambda: running.show("ActiveState"), equal_to(["failed"]))
    assert "signal KILL" in ends(running)
    file = Path(running.cluster.paths.queue, f"job-{job}").read_text(encoding="utf-8")
    assert '"error"' in file
    recovered = running.run("/opt/ganeti-masterd/bin/gnt-luxi recover").checked().out
    assert recovered == "The queue is in order\n"


def test_lost_vote_is_tried_a_few_times(systemd: Systemd) -> None:
    """Exit code 1: it is started again, as others may agree by then, but not for ever."""
    stop(systemd)
    with other_master(systemd.cluster):
        assert systemd.run(f"systemctl start {UNIT}").code != 0
        until("systemd gives up", lambda: systemd.show("ActiveState"), equal_to(["failed"]))
    assert systemd.show("ExecMainStatus") == ["1"]
    assert 1 < int(systemd.show("NRestarts")[0]) <= 5


def test_not_the_master(systemd: Systemd) -> None:
    """Exit code 11 is no failure, and is not tried again; it leaves the queue alone."""
    stop(systemd)
    before = len(ends(systemd))
    systemd.configure(GANETI_HOSTNAME="node2", GANETI_ROOTDIR=f"{systemd.cluster.folder}/node2")
    try:
        systemd.run(f"systemctl start {UNIT}").checked()
        until("it ends", lambda: ends(systemd), lambda seen: len(seen) > before)
        assert systemd.show("ActiveState", "NRestarts") == ["inactive", "0"]
        assert ends(systemd)[-1] == "success 11"
    finally:
        systemd.configure()


def test_no_cluster(systemd: Systemd) -> None:
    """Exit code 12 is a failure that is not tried again."""
    stop(systemd)
    folder = systemd.cluster.folder / "node2"
    systemd.configure(GANETI_HOSTNAME="node2", GANETI_ROOTDIR=str(folder))
    name = folder / "var/lib/ganeti/ssconf_master_node"
    kept = name.rename(f"{name}.kept")
    try:
        assert systemd.run(f"systemctl start {UNIT}").code != 0
        assert systemd.show(*STATE) == ["failed", "failed", "exit-code", "0", "12"]
    finally:
        kept.rename(name)
        systemd.configure()
