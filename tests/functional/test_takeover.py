"""A live cluster of real daemons (Debian's Ganeti 3.0.2) taken over and handed back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import need_peer
from tests.functional.realcluster import ENSURE_DIRS, NET, NODES, RealCluster, real_cluster
from tests.functional.realcommands import INSTANCE, LIFE, QUICK, outcome
from tests.functional.transcripts import Recorded, anywhere
from tests.functional.waiting import containing, equal_to, until

VERIFY = "gnt-cluster verify"
JOBS = "gnt-job list -o id,status,summary,received_ts,start_ts,end_ts,opresult,oplog"

Outcome = tuple[str, int, list[str], list[str]]
Outcomes = dict[str, Outcome]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """A real cluster with one instance, luxid its master daemon."""
    need_peer()
    with real_cluster() as made:
        made.run(INSTANCE).checked()
        yield made


@pytest.fixture(scope="module")
def before(cluster: RealCluster) -> Outcomes:
    """What the commands gave under luxid."""
    return {command: outcome(cluster, command) for command in [*QUICK, VERIFY]}


@pytest.fixture(scope="module")
def life_before(before: Outcomes, cluster: RealCluster) -> list[Outcome]:
    """How two instances lived under luxid."""
    return [outcome(cluster, command) for command in LIFE]


@pytest.fixture(scope="module")
def taken_over(cluster: RealCluster, before: Outcomes, life_before: list[Outcome]) -> RealCluster:
    """The cluster, gnt-masterd its master daemon."""
    if not cluster.deployed:
        cluster.stop_luxid()
        cluster.deploy()
    cluster.daemon_util("start ganeti-luxid").checked()
    return cluster


def test_back_up_and_restore(cluster: RealCluster, before: Outcomes) -> None:
    """What the documentation on migration says before anything is switched over."""
    data = cluster.paths.data
    archive = cluster.folder / "before.tar.gz"
    cluster.run("gnt-cluster queue drain").checked()
    cluster.daemon_util("stop-all").checked()
    cluster.run(f"tar -C {os.path.dirname(data)} -czpf {archive} ganeti").checked()
    cluster.daemon_util("start-all").checked()
    cluster.answers("gnt-cluster queue undrain")
    cluster.run("gnt-cluster add-tags lost").checked()

    cluster.daemon_util("stop-all").checked()
    cluster.run(f"mv {data} {data}.after").checked()
    cluster.run(f"tar -C {os.path.dirname(data)} -xzpf {archive}").checked()
    cluster.daemon_util("start-all").checked()
    cluster.answers("gnt-cluster queue undrain")
    cluster.run("gnt-cluster redist-conf").checked()
    assert cluster.run("gnt-cluster list-tags").checked().out == ""
    assert outcome(cluster, VERIFY)[1] == before[VERIFY][1]


def test_check_only_beside_luxid(cluster: RealCluster, before: Outcomes) -> None:
    """It passes while luxid and wconfd run, names both and a job that runs, and writes nothing."""
    cluster.deploy()
    job = cluster.run("gnt-debug delay --submit --print-jobid -n node2 12").checked().out
    job_id = int("".join(filter(str.isdigit, job)))
    listed = f"gnt-job list --no-headers -o status {job_id}"
    until(f"job {job_id} runs", lambda: cluster.run(listed).out, equal_to("running\n"))
    tree = (
        f"find {cluster.paths.data} {cluster.paths.run} -printf '%p %m %u %g %i %s %C@\\n' | sort"
    )
    seen = cluster.run(tree).checked().out
    done = cluster.run(f"{cluster.folder}/bin/twistd gnt-masterd --check-only").checked()
    assert cluster.run(tree).checked().out == seen
    for path in cluster.paths.peers_pids:
        assert f"To be stopped before the start: {path}" in done.err
    assert f"To end before the start: job {job_id} (running" in done.err
    assert "This node is the master: 2 of 2 other nodes agree" in done.err
    until(f"job {job_id} ends", lambda: cluster.run(listed).out, equal_to("success\n"))
    cluster.undeploy()


def test_jobs_of_luxid_that_run_refuse_the_take_over(
    cluster: RealCluster, before: Outcomes
) -> None:
    """A job outlives luxid: the daemon names it, leaves it alone, and starts after it."""
    job = cluster.run("gnt-debug delay --submit --print-jobid -n node2 3").checked().out
    job_id = int("".join(filter(str.isdigit, job)))
    listed = f"gnt-job list --no-headers -o status {job_id}"
    until(f"job {job_id} runs", lambda: cluster.run(listed).out, equal_to("running\n"))
    cluster.stop_luxid()
    cluster.deploy()

    refused = cluster.daemon_util("start ganeti-luxid")
    assert refused.code == 1, refused
    assert f"job {job_id} (running, process " in refused.out
    assert cluster.daemon_util("check ganeti-luxid").code == 1
    assert Path(f"{cluster.paths.queue}/job-{job_id}").exists()

    # Also with daemon-util as it is deployed: while gnt-masterd doesn't run.
    cluster.daemon_util("start ganeti-wconfd").checked()
    until("luxid's job ends", cluster.names, lambda names: "python3" not in names)
    cluster.daemon_util("stop ganeti-wconfd").checked()
    cluster.daemon_util("start ganeti-luxid").checked()
    assert cluster.run(listed).checked().out.strip() == "success"


@pytest.mark.parametrize("command", [*QUICK, VERIFY])
def test_commands_say_what_they_said(
    taken_over: RealCluster, before: Outcomes, command: str
) -> None:
    """Ganeti's own tools end and print the same as under luxid, but for times, ids and sizes."""
    assert outcome(taken_over, command) == before[command]


@pytest.mark.parametrize("recorded", [*anywhere()], ids=lambda each: each.name)
def test_commands_say_what_was_recorded(taken_over: RealCluster, recorded: Recorded) -> None:
    """Nor does it matter which cluster of 3.0.2 it was under luxid: one that was recorded."""
    assert recorded.difference(taken_over) is None


def test_instances_live_as_they_did(taken_over: RealCluster, life_before: list[Outcome]) -> None:
    """Made, started, changed, reinstalled, renamed, removed: as under luxid, on real nodes."""
    wrong = []
    for command, was in zip(LIFE, life_before, strict=True):
        now = outcome(taken_over, command)
        if now != was:
            wrong.append(f"{was}\n{now}")
    assert not wrong, "\n\n".join(wrong)
    assert list((taken_over.folder / "file-storage").iterdir()) == []


def test_shared_files(taken_over: RealCluster) -> None:
    """An instance on files that all nodes share: its whole life on real node daemons."""
    cluster = taken_over
    shared = cluster.folder / "shared"
    shared.mkdir()
    for node in NODES:
        allowed = cluster.folder / node / "etc/ganeti/file-storage-paths"
        allowed.write_text(f"{allowed.read_text('utf-8')}{shared}\n", encoding="utf-8")
    modify = "gnt-cluster modify --enabled-disk-templates={0} --ipolicy-disk-templates={0}"
    add = "gnt-instance add --no-ip-check -t sharedfile -n node3 -o noop --no-nics"
    status = "gnt-instance list --no-headers -o status instance5"
    cluster.run(
        modify.format("diskless,file,sharedfile") + f" --shared-file-storage-dir={shared}"
    ).checked()
    cluster.run(f"{add} --disk 0:size=16M --disk 1:size=8M instance5").checked()
    assert cluster.run(status).checked().out == "running\n"
    assert len(list(shared.glob("instance5/*"))) == 2
    for command in ("stop --timeout=0", "modify --disk 1:remove", "start", "reboot"):
        cluster.run(f"gnt-instance {command} instance5").checked()
    assert len(list(shared.glob("instance5/*"))) == 1
    assert cluster.run(status).checked().out == "running\n"
    cluster.run("gnt-instance remove -f --shutdown-timeout=0 instance5").checked()
    assert list(shared.iterdir()) == []
    cluster.run(f"{modify.format('diskless,file')} --shared-file-storage-dir=").checked()


def test_watcher_leaves_the_daemon_alone(taken_over: RealCluster) -> None:
    """ganeti-watcher, three times: luxid and wconfd are there for it, and nothing is restarted."""
    pid = taken_over.pid()
    log = Path(taken_over.paths.log).with_name("watcher.log")
    for _ in range(3):
        taken_over.run(f"ganeti-watcher --rapi-ip={NET}.10").checked()
    text = log.read_text(encoding="utf-8")
    assert text.count("check-and-start ganeti-wconfd") == 3
    for word in ("WARNING", "ERROR", "CRITICAL", "Traceback", "stop ganeti"):
        assert word not in text, text
    assert taken_over.pid() == pid
    assert not {"ganeti-luxid", "ganeti-wconfd"} & set(taken_over.names())
    assert taken_over.run("gnt-debug wconfd echo ping").checked().out == "Answer: ping\n"


def test_daemon_util_finds_one_daemon(taken_over: RealCluster) -> None:
    """Whatever of the two is looked for is gnt-masterd, and no second one is started."""
    pid = taken_over.pid()
    for name in ("ganeti-luxid", "ganeti-wconfd"):
        for action in ("check", "check-and-start", "start", "rotate-logs"):
            taken_over.daemon_util(f"{action} {name}").checked()
    taken_over.daemon_util("check ganeti-masterd").checked()
    assert taken_over.pid() == pid
    assert "ganeti-wconfd" not in taken_over.daemon_util("list-start-daemons").checked().out
    until("the log is opened again", taken_over.log, containing("log file was opened again"))
    # Other nodes are not the master, which is no failure where all daemons are started.
    assert taken_over.daemon_util("start ganeti-luxid", "node2").code == 11


def test_files_have_their_rights(taken_over: RealCluster) -> None:
    """ensure-dirs finds nothing to do, at all that the daemon has made or written."""
    taken_over.run("gnt-debug delay 0.01; gnt-job archive $(gnt-job list --no-headers -o id)")
    taken_over.run("gnt-cluster add-tags kept; gnt-cluster watcher pause 1h").checked()
    taken_over.run("gnt-cluster queue drain").checked()
    config = Path(taken_over.paths.config)
    until("config.data follows", lambda: config.read_text(encoding="utf-8"), containing('"kept"'))
    root = taken_over.folder / "node1"
    before = _rights(root)
    taken_over.run(f"{ENSURE_DIRS} --full-run").checked()
    assert _rights(root) == before
    sockets = Path(taken_over.paths.sockets)
    assert before[str(sockets / "ganeti-query")][0] == 0o660
    assert before[str(sockets / "ganeti-wconfd")][0] == 0o600
    assert {oct(mode) for path, (mode, _, _) in before.items() if "/archive/" in path} <= {
        oct(0o640),
        oct(0o750),
    }
    assert before[f"{taken_over.paths.queue}/drain"][0] == 0o644
    taken_over.run("gnt-cluster queue undrain; gnt-cluster watcher continue").checked()
    taken_over.run("gnt-cluster remove-tags kept").checked()


def test_hand_back_loses_nothing(taken_over: RealCluster, before: Outcomes) -> None:
    """Where gnt-masterd stopped luxid goes on: jobs, ids, tags, and a job that still waits."""
    cluster = taken_over
    cluster.run("gnt-cluster add-tags kept").checked()
    for _ in range(2):
        cluster.run("gnt-debug delay --submit -n node2 1").checked()
    cluster.daemon_util("stop ganeti-luxid").checked()
    assert not Path(cluster.paths.pid).exists()
    assert cluster.run(f"{cluster.folder}/bin/gnt-luxi recover").checked().out == (
        "The queue is in order\n"
    )
    cluster.daemon_util("start ganeti-luxid").checked()
    listed = cluster.run(JOBS).checked().out
    cluster.daemon_util("stop ganeti-luxid").checked()

    cluster.undeploy()
    cluster.start_luxid()
    last = int(cluster.run("gnt-job list --no-headers -o id | tail -1").checked().out)
    done = 'gnt-job list --no-headers -F \'not (status == "success" or status == "error")\''
    until("jobs that were left have run", lambda: cluster.run(done).out, equal_to(""))
    ended = _ended(cluster.run(JOBS).checked().out)
    for job_id, line in _ended(listed).items():
        assert ended[job_id] == line
    assert ended[str(last)][0] == "success"
    assert cluster.run("gnt-cluster list-tags").checked().out == "kept\n"
    new = cluster.run("gnt-debug delay --submit --print-jobid 0").checked().out
    assert int("".join(filter(str.isdigit, new))) > last
    assert outcome(cluster, VERIFY) == before[VERIFY]


def _rights(root: Path) -> dict[str, tuple[int, int, int]]:
    """Returns mode, owner and group of all that is in a root's folders."""
    found = {}
    for folder, names, files in os.walk(root / "var"):
        for name in [*names, *files]:
            path = f"{folder}/{name}"
            if not name.endswith("-wal"):
                status = os.lstat(path)
                found[path] = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    return found


def _ended(listing: str) -> dict[str, list[str]]:
    """Returns the ended jobs of a listing: id to what is said of it."""
    rows = [line.split() for line in listing.splitlines()[1:]]
    return {row[0]: row[1:] for row in rows if row[1] in ("success", "error", "canceled")}
