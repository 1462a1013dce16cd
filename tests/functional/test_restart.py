"""Starts and stops of the daemon: what runs on, what is on disk, what is refused and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.client import LuxiClient
from ganeti_masterd.luxi.failures import ConnectionLost
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.crashing import clerk_of, journal_rows
from tests.functional.waiting import (
    containing,
    equal_to,
    job_is,
    jobs_end,
    process_ends,
    until,
)

MakeDaemon = Callable[..., DaemonProcess]

#: A daemon that was stopped in order ends by the signal that asked it to.
STOPPED = -signal.SIGTERM


def delay(seconds: float, **others: Any) -> dict[str, Any]:
    """Returns an opcode that takes some time and waits for no other."""
    return {"OP_ID": "OP_TEST_DELAY", "duration": seconds, "no_locks": True, **others}


def limit_running_jobs(daemon: DaemonProcess, limit: int) -> None:
    """Sets how many jobs may run at once, in the configuration of a daemon that is stopped."""
    path = Path(daemon.paths.config)
    config = json.loads(path.read_bytes())
    config["cluster"]["max_running_jobs"] = limit
    path.write_text(json.dumps(config))


def job_file(daemon: DaemonProcess, job: int) -> Any:
    """Returns what a job's file holds."""
    return json.loads((Path(daemon.paths.queue) / f"job-{job}").read_bytes())


def serial(daemon: DaemonProcess) -> int:
    """Returns the number in the file ``serial``."""
    return int((Path(daemon.paths.queue) / "serial").read_text("ascii"))


def test_queued_jobs_run_after_the_next_start(make_daemon: MakeDaemon) -> None:
    """A clean stop lets running jobs end, keeps queued ones, and leaves only files behind."""
    daemon = make_daemon()
    with daemon:
        daemon.stop()
    limit_running_jobs(daemon, 2)
    with daemon:
        master = daemon.client()
        jobs = [job for _, job in master.submit_many_jobs([[delay(0.4)]] * 6)]
        running = [["running"]] * 2 + [["queued"]] * 4
        until("two run", lambda: master.query_jobs(jobs, ["status"]), equal_to(running))
        assert daemon.stop() == STOPPED
        assert [job_file(daemon, job)["ops"][0]["status"] for job in jobs] == [
            *("success", "success"),
            *["queued"] * 4,
        ]
        assert serial(daemon) == jobs[-1]
        assert journal_rows(daemon) == []
        assert not os.path.exists(daemon.socket)
        assert not os.path.exists(daemon.paths.pid)
        daemon.start()
        jobs_end(master)
        rows = daemon.client().query_jobs(jobs, ["status"])
        assert rows == [["success"]] * len(jobs)
        assert daemon.client().submit_job([delay(0.01)]) == jobs[-1] + 1


def test_submissions_are_refused_while_it_stops(make_daemon: MakeDaemon) -> None:
    """While running jobs end, clients are served, and a submission is told that it is too late."""
    with make_daemon() as daemon:
        master = daemon.client()
        job = master.submit_job([delay(1.0)])
        job_is(master, job, "running")
        os.kill(daemon.pid, signal.SIGTERM)
        until("it stops", daemon.log_text, containing("The master daemon stops"))
        with pytest.raises(Exception, match="takes no more jobs"):
            master.submit_job([delay(0.01)])
        # Others may still come and ask, until the last job has ended.
        assert daemon.client().config_values(["cluster_name"]) == ["cluster"]
        assert master.query_jobs([job], ["status"]) == [["running"]]
        assert daemon.exit_code() == STOPPED
        assert job_file(daemon, job)["ops"][0]["status"] == "success"
        assert serial(daemon) == job


def test_stop_timeout_ends_the_wait_for_running_jobs(make_daemon: MakeDaemon) -> None:
    """Past --stop-timeout running jobs are recorded as after a kill, and all is on disk."""
    with make_daemon("--stop-timeout=0.3") as daemon:
        master = daemon.client()
        job = master.submit_job([delay(60)])
        job_is(master, job, "running")
        daemon.stop()
        assert job_file(daemon, job)["ops"][0]["status"] == "error"
        assert journal_rows(daemon) == []
        daemon.start()
        assert daemon.client().query_jobs([job], ["status"]) == [["error"]]


def test_the_process_for_job_files_may_be_killed(make_daemon: MakeDaemon) -> None:
    """A large round has a process write its files; without it they are written all the same."""
    with make_daemon() as daemon:
        master = daemon.client()
        jobs: list[int] = []

        def burst() -> None:
            jobs.extend(job for _, job in master.submit_many_jobs([[delay(0.001)]] * 300))

        def last_file() -> str:
            path = Path(daemon.paths.queue) / f"job-{jobs[-1]}"
            return path.read_text("utf-8") if path.exists() else ""

        burst()
        until("the files follow", last_file, containing("success"))
        first = clerk_of(daemon)
        assert first is not None
        burst()
        os.kill(first, signal.SIGKILL)
        until("the files follow without the process", last_file, containing("success"))
        burst()
        second = until("there is another process", lambda: clerk_of(daemon))
        assert second not in (None, first)
        jobs_end(master)
        assert master.query_jobs(jobs, ["status"]) == [["success"]] * len(jobs)
        assert "The process for job files ended with -9" in daemon.log_text()
        assert daemon.stop() == STOPPED
        assert {job_file(daemon, job)["ops"][0]["status"] for job in jobs} == {"success"}
        assert not Path(f"/proc/{second}").exists()
        assert journal_rows(daemon) == []
        queue = Path(daemon.paths.queue)
        assert [path for path in queue.iterdir() if path.suffix] == []


def test_many_finished_jobs_are_no_burden(make_daemon: MakeDaemon) -> None:
    """5,000 finished jobs in the queue are all there after a start."""
    daemon = make_daemon()
    with daemon:
        master = daemon.client()
        job = master.submit_job([delay(0.01)])
        job_is(master, job, "success")
        daemon.stop()
    sample = json.dumps(job_file(daemon, job))
    queue = Path(daemon.paths.queue)
    for number in range(job + 1, 5001):
        (queue / f"job-{number}").write_text(sample.replace(f'"id": {job}', f'"id": {number}'))
    (queue / "serial").write_text("5000\n")
    with daemon:
        daemon.stop()
        daemon.start()
        master = daemon.client()
        rows = master.query_jobs(None, ["id", "status"])
        assert rows == [[number, "success"] for number in range(1, 5001)]
        assert master.submit_job([delay(0.01)]) == 5001


def test_a_corrupt_job_file_is_kept_and_stops_nothing(make_daemon: MakeDaemon) -> None:
    """A job file that can't be understood is set aside in the archive; its id isn't given again."""
    daemon = make_daemon()
    with daemon:
        daemon.stop()
        queue = Path(daemon.paths.queue)
        (queue / "job-7").write_text("half a job {")
        (queue / "serial").unlink(missing_ok=True)
        daemon.start()
        master = daemon.client()
        assert master.query_jobs(None, ["id"]) == []
        assert master.submit_job([delay(0.01)]) > 7
        assert (queue / "archive/0/job-7.corrupt").read_text() == "half a job {"
        assert "job-7.corrupt" in daemon.log_text()


# -- starts that are refused --------------------------------------------------------------------


class Refusal:
    """Starts a daemon that can't start, in the foreground and detached."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.log = daemon.root.parent / "twistd.log"
        self.pid = daemon.root.parent / "twistd.pid"

    def foreground(self) -> str:
        """Returns what it prints; the exit code is 1."""
        done = self._run(self.daemon.command())
        assert done.returncode == 1, done
        return done.stdout + done.stderr

    def detached(self) -> str:
        """Returns what is on the standard error of the one who started it; the exit code is 1."""
        done = self._run(self.daemon.command(f"--pidfile={self.pid}", f"--logfile={self.log}"))
        assert done.returncode == 1, done
        assert not self.pid.exists()
        return done.stderr

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.daemon.root.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def check_refused(daemon: DaemonProcess, *told: str) -> None:
    """Both ways of starting end with 1, and say why in one line without a traceback."""
    refusal = Refusal(daemon)
    for said in (refusal.foreground(), refusal.detached()):
        for text in told:
            assert text in said, said
        assert "Traceback" not in said, said


def test_a_second_daemon_on_a_root_is_refused(make_daemon: MakeDaemon) -> None:
    """While one daemon runs, another one says who holds the root, and the first is untouched."""
    with make_daemon() as first:
        check_refused(make_daemon(), "is locked by another process", f"process id is {first.pid}")
        assert first.client().config_values(["cluster_name"]) == ["cluster"]


def test_a_root_that_is_too_long_is_refused(make_daemon: MakeDaemon) -> None:
    """A root with no room for the socket's path is named, and nothing is made there."""
    daemon = make_daemon(name="x" * 90)
    check_refused(daemon, "is too long", "at most 107 bytes")
    assert not daemon.root.exists()


def test_a_configuration_that_cannot_be_read_is_refused(make_daemon: MakeDaemon) -> None:
    """The file and the fault are named, and nothing on disk is changed."""
    daemon = make_daemon()
    with daemon:
        daemon.stop()
    config = Path(daemon.paths.config)
    config.write_text("{")
    check_refused(daemon, str(config))
    assert config.read_text() == "{"


def test_a_journal_that_does_not_fit_the_files_is_set_aside(make_daemon: MakeDaemon) -> None:
    """After another daemon was at work nothing is replayed, and the operator has to decide."""
    with make_daemon() as daemon:
        jobs = [job for _, job in daemon.client().submit_many_jobs([[delay(0.01)]] * 300)]
        daemon.kill()
    queue, masterd = Path(daemon.paths.queue), Path(daemon.paths.journal).parent
    foreign = b'{"id": %d, "ops": [], "foreign": true}' % jobs[-1]
    (queue / f"job-{jobs[-1]}").write_bytes(foreign)
    before = {path.name: path.read_bytes() for path in queue.glob("job-*")}
    check_refused(daemon, "set aside", f"job-{jobs[-1]} was changed by another daemon", "recover")
    # And again: it is remembered.
    check_refused(daemon, "set aside", "recover")
    assert {path.name: path.read_bytes() for path in queue.glob("job-*")} == before
    assert len(list(masterd.glob("journal.set-aside-*Z"))) == 1


# -- detached, as daemon-util and systemd start it ------------------------------------------------


def test_a_detached_daemon_serves_and_stops(make_daemon: MakeDaemon) -> None:
    """Started without -n the parent returns 0 once it serves; SIGTERM to its PID ends it."""
    daemon = make_daemon()
    folder = daemon.root.parent
    daemon.root.mkdir()
    pid_file, log = folder / "twistd.pid", folder / "twistd.log"
    done = subprocess.run(
        daemon.command(f"--pidfile={pid_file}", f"--logfile={log}"),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int(pid_file.read_text("ascii"))
    try:
        # The socket is there when the parent has ended: no wait.
        with BlockingClient(daemon.socket, timeout=20) as master:
            job = master.submit_job([delay(0.05)])
            job_is(master, job, "success")
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
        assert Path(f"/proc/{pid}/fd/2").readlink() == Path("/dev/null")
        # Detaching sets a strict umask; what others have to read is readable all the same.
        assert os.stat(daemon.socket).st_mode & 0o777 == 0o660
        until("its file follows", (Path(daemon.paths.queue) / f"job-{job}").exists)
        assert os.stat(Path(daemon.paths.queue) / f"job-{job}").st_mode & 0o777 == 0o640
    finally:
        os.kill(pid, signal.SIGTERM)
        process_ends(pid)
    assert not pid_file.exists()
    assert not os.path.exists(daemon.socket)
    assert journal_rows(daemon) == []
    assert "The master daemon has stopped" in log.read_text("utf-8")


# -- clients that live through it ---------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def luxi(make_daemon: MakeDaemon) -> Any:
    """A daemon, and a client on Deferreds that is closed at the end."""
    from twisted.internet import reactor  # noqa: TID251

    daemon = make_daemon()
    await deferToThread(daemon.start)
    client = LuxiClient.at(daemon.socket, reactor, timeout=30.0)
    yield daemon, client
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_client_lives_through_a_kill(luxi: tuple[DaemonProcess, LuxiClient]) -> None:
    """A call under way fails as lost, not as done; the next one finds the new daemon by itself."""
    daemon, client = luxi
    job = await client.submit_job([delay(30)])
    status = "queued"
    while status != "running":
        (status,), _ = await client.wait_for_job_change(job, ["status"], [status], timeout=30)
    waiting = client.wait_for_job_change(job, ["status"], [status], timeout=30)
    await deferToThread(daemon.kill)
    with pytest.raises(ConnectionLost):
        await waiting
    asked = client.config_values(["cluster_name"])
    await deferToThread(daemon.start)
    assert await asked == ["cluster"]
    assert await client.query_jobs([job], ["status"]) == [["error"]]


@pytest_twisted.ensureDeferred
async def test_many_waiters_cost_nothing(luxi: tuple[DaemonProcess, LuxiClient]) -> None:
    """Two hundred clients that wait for one job all hear of its end, none keeps others waiting."""
    from twisted.internet import reactor  # noqa: TID251

    daemon, client = luxi
    job = await client.submit_job([delay(1.5)])
    threads = len(os.listdir(f"/proc/{daemon.pid}/task"))
    waiters = [LuxiClient.at(daemon.socket, reactor, timeout=30.0) for _ in range(200)]
    answers = gatherResults(
        [one.wait_for_job_change(job, ["status"], ["running"], timeout=30) for one in waiters]
    )
    assert await client.config_values(["cluster_name"]) == ["cluster"]
    assert len(os.listdir(f"/proc/{daemon.pid}/task")) <= threads + 1
    for values, _ in await answers:
        assert values in (["success"], ["running"], ["queued"])
    await gatherResults([one.close() for one in waiters])
