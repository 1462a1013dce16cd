"""Starts and stops seen from outside: exit codes, messages, signals, files, rights, systemd."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.locks import LockedFile
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.testing.daemon import DaemonProcess, twistd
from tests.functional.crashing import journal_rows
from tests.functional.readable import wrapper
from tests.functional.waiting import containing, job_is, process_ends, until

MakeDaemon = Callable[..., DaemonProcess]

FOREGROUND = ("--nodaemon",)
DETACHED = ()


def delay(seconds: float) -> dict[str, Any]:
    """Returns an opcode that takes some time and waits for no other."""
    return {"OP_ID": "OP_TEST_DELAY", "duration": seconds, "no_locks": True}


def first_result(daemon: DaemonProcess, job: int) -> tuple[str, Any]:
    """Returns the status and the result of a job's first opcode, as its file has them."""
    content = json.loads((Path(daemon.paths.queue) / f"job-{job}").read_bytes())
    return content["ops"][0]["status"], content["ops"][0]["result"]


class Site:
    """A root, and starts on it as from a shell."""

    def __init__(self, folder: Path, name: str = "node1") -> None:
        self.folder = folder
        self.paths = Paths(str(folder / name))
        self.environment: dict[str, str] = {}

    def prepare(self) -> None:
        """Makes a cluster of three nodes there."""
        simulated_root.prepare(self.paths, 3)

    def start(
        self,
        *options: str,
        how: tuple[str, ...] = FOREGROUND,
        simulate: bool = True,
        text: str = "",
        program: str | None = None,
        **settings: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Starts a daemon and waits until whoever starts it has the exit code."""
        where = [f"--root={self.paths.root}", *(["--simulate=3"] if simulate else [])]
        return subprocess.run(
            [program or twistd(), *how, "gnt-masterd", *where, *options],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **settings,
        )

    @property
    def pid(self) -> int:
        """The process that the PID file names."""
        return int(Path(self.paths.pid).read_text("ascii"))

    @contextlib.contextmanager
    def detached(self, *options: str, **settings: Any) -> Iterator[int]:
        """Starts a daemon that detaches; it is stopped in the end."""
        done = self.start(*options, how=DETACHED, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        pid = self.pid
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGTERM)
            process_ends(pid)

    def disturb(self, **fault: Any) -> None:
        """Lets simulated nodes fail."""
        (Path(self.paths.root) / "simulation").mkdir(exist_ok=True)
        rules = Path(self.paths.root) / "simulation/faults.json"
        rules.write_text(json.dumps([fault]))

    def check_refused(self, code: int, told: str, *options: str, **settings: Any) -> None:
        """With and without detaching: the exit code, the message, no traceback, nothing left."""
        for how in (FOREGROUND, DETACHED):
            done = self.start(*options, how=how, **settings)
            assert done.returncode == code, done
            assert told in (done.stdout if code == 11 else done.stderr), done
            assert "Traceback" not in done.stdout + done.stderr, done
            assert not Path(self.paths.pid).exists()
            assert not Path(self.paths.socket).exists()
            assert not (self.folder / "twistd.pid").exists()


@pytest.fixture
def site(folder: Path) -> Site:
    """A cluster of three simulated nodes."""
    made = Site(folder)
    made.prepare()
    return made


# -- starts that are refused ------------------------------------------------------------------


def test_another_node_is_no_master(site: Site) -> None:
    """Exit code 11, and "Not master" on standard output."""
    site.environment["GANETI_HOSTNAME"] = "node2"
    site.check_refused(11, "Not master\n")


def test_incomplete_ssconf(site: Site) -> None:
    """Exit code 12, and the file by name."""
    path = site.paths.ssconf("master_node")
    os.unlink(path)
    site.check_refused(12, path)


def test_unresolvable_host(site: Site) -> None:
    """Exit code 12, and the name: names of real nodes have to have addresses."""
    site.environment["GANETI_HOSTNAME"] = "node1.invalid"
    site.check_refused(12, "'node1.invalid'", simulate=False)


def test_missing_accounts(site: Site) -> None:
    """Exit code 1, and both names."""
    site.check_refused(
        1,
        "'nobody-at-all' or the group 'none-either'",
        *("--user=nobody-at-all", "--group=none-either"),
    )


def test_configuration_of_another_version(site: Site) -> None:
    """Exit code 1, both versions, the upgrade; the file stays as it is."""
    path = Path(site.paths.config)
    document = {**json.loads(path.read_bytes()), "version": 2160000}
    path.write_text(json.dumps(document))
    site.check_refused(1, "version 2.16.0, this daemon works with 3.0.0")
    assert json.loads(path.read_bytes()) == document


def test_lost_vote(site: Site) -> None:
    """Exit code 1, and who is the master by how many votes."""
    site.disturb(kind="garbage", call="master_node_name", payload="node2")
    site.check_refused(1, "node2 is the master by 2 of 2 votes")


def test_rubbish_for_votes(site: Site) -> None:
    """One node that knows this one is enough for three."""
    site.disturb(kind="garbage", call="master_node_name", node="node2", payload={"x": None})
    with site.detached():
        pass


def test_master_address(site: Site) -> None:
    """Without the address it starts and logs an error, unless the address is required."""
    site.disturb(kind="error", call="node_activate_master_ip", text="no such device")
    site.check_refused(1, "can't be brought up on node1: no such device", "--require-master-ip")
    with site.detached():
        pass
    log = Path(site.paths.log).read_text("utf-8")
    assert "#error] The master's address" in log


def test_no_voting_asks_on_the_terminal(site: Site) -> None:
    """Only an uppercase YES starts it, and --yes-do-it asks nothing."""
    site.disturb(kind="garbage", call="master_node_name", payload="node2")
    for answer in ("", "yes\n", "NO\n"):
        site.check_refused(1, "Aborted", "--no-voting", text=answer)
    for options, answer in ((["--no-voting"], "YES\n"), (["--no-voting", "--yes-do-it"], "")):
        with site.detached(*options, text=answer):
            pass
    assert "nodes were not asked" in Path(site.paths.log).read_text("utf-8")


def test_wrong_command_line(site: Site) -> None:
    """Usage on standard error, exit code 1."""
    site.check_refused(1, "takes no arguments, but got: foo", "foo")
    site.check_refused(1, "--stop-timeout", "--stop-timeout=-5")


def test_a_fault_after_detaching(site: Site) -> None:
    """What only the daemon itself can find reaches whoever started it in full as well."""
    os.rmdir(site.paths.sockets)
    Path(site.paths.sockets).touch()
    site.check_refused(1, site.paths.sockets)
    os.unlink(site.paths.sockets)
    simulated_root.make_folders(site.paths)
    queue = Path(site.paths.queue)
    (queue / "serial").mkdir()
    site.check_refused(
        1, f"can't work below {site.paths.data}: [Errno 22] it is not a regular file"
    )
    (queue / "serial").rmdir()
    with site.detached():
        pass


def test_a_port_for_monitors_that_is_taken(site: Site) -> None:
    """The endpoint of --monitoring must be one, and free."""
    site.check_refused(1, "--monitoring nonsense:1 is no endpoint", "--monitoring=nonsense:1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        site.check_refused(1, "Address already in use", f"--monitoring={endpoint}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)]
)
def test_ended_while_it_votes(site: Site, number: signal.Signals, code: int) -> None:
    """While nobody answers the start can be ended, and leaves no process behind."""
    site.disturb(kind="unreachable", call="master_node_name")
    command = [twistd(), "-n", "gnt-masterd", f"--root={site.paths.root}", "--simulate=3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=site.folder) as process:
        try:
            assert process.stderr is not None
            assert "asking again in 10 s, 5 times at most" in process.stderr.readline()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) == 1
            process.send_signal(number)
            said = process.stderr.read()
            assert process.wait(10) == code
        finally:
            process.kill()
    assert "Traceback" not in said
    process_ends(int(children[0]))
    assert not Path(site.paths.pid).exists()


# -- real roots -------------------------------------------------------------------------------


@pytest.fixture
def real(folder: Path) -> Site:
    """A root with a cluster whose master is this machine, but no node daemons."""
    made = Site(folder, "localhost")
    made.prepare()
    for path in (made.paths.config, made.paths.ssconf("master_node")):
        content = Path(path).read_bytes().replace(b"node1", b"localhost")
        os.unlink(path)
        Path(path).write_bytes(content)
    made.environment = {"GANETI_HOSTNAME": "localhost", "GANETI_ROOTDIR": made.paths.root}
    return made


NO_VOTE = ("--no-voting", "--yes-do-it")


def test_a_living_luxid(real: Site) -> None:
    """Neither luxid nor wconfd may live, nor be started beside the daemon."""
    own = (
        f"--user={pwd.getpwuid(os.geteuid()).pw_name}",
        f"--group={grp.getgrgid(os.getegid()).gr_name}",
    )
    for path in real.paths.peers_pids:
        held = LockedFile(path, 0o644)
        held.write("1\n")
        real.check_refused(1, f"{path} is locked", *NO_VOTE, *own, simulate=False)
        held.release(remove=True)
    with real.detached(*NO_VOTE, *own, simulate=False) as pid:
        for path in real.paths.peers_pids:
            assert Path(path).read_text() == f"{pid}\n"
            with pytest.raises(Exception, match="is locked by another process"):
                LockedFile(path)
    assert not any(Path(path).exists() for path in real.paths.peers_pids)


def test_root_is_given_up(real: Site) -> None:
    """Started by root it runs as gnt-masterd:gnt-daemons, and every file is whose it should be."""
    try:
        user, group = pwd.getpwnam("gnt-masterd"), grp.getgrnam("gnt-daemons")
    except KeyError:
        pytest.skip("there is no gnt-masterd (Debian's package ganeti)")
    if os.geteuid() != 0:
        pytest.skip("only root can give up root")
    real.folder.chmod(0o755)
    (Path(real.paths.queue) / "serial").write_text("7\n")
    script = real.folder / "twistd"
    script.write_text(wrapper(Path(twistd())))
    script.chmod(0o755)
    with real.detached(*NO_VOTE, simulate=False, program=str(script)) as pid:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        assert f"Uid:\t{user.pw_uid}\t{user.pw_uid}\t{user.pw_uid}\t{user.pw_uid}" in status
        assert f"Gid:\t{group.gr_gid}\t{group.gr_gid}" in status
        with BlockingClient(real.paths.socket, timeout=20) as master:
            assert master.config_values(["cluster_name"]) == ["cluster"]
        for path, mode, owner in (
            (real.paths.socket, 0o660, "gnt-masterd:gnt-daemons"),
            (real.paths.pid, 0o644, "gnt-masterd:gnt-daemons"),
            (real.paths.run, 0o775, "gnt-masterd:gnt-daemons"),
            (real.paths.sockets, 0o770, "gnt-masterd:gnt-daemons"),
            (real.paths.queue, 0o750, "gnt-masterd:gnt-daemons"),
            (real.paths.queue_lock, 0o640, "gnt-masterd:gnt-daemons"),
            (real.paths.config, 0o640, "gnt-masterd:gnt-confd"),
            (real.paths.log, 0o600, "gnt-masterd:gnt-masterd"),
        ):
            found = os.stat(path)
            names = f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name}"
            assert (oct(found.st_mode & 0o777), names) == (oct(mode), owner), path
    found = os.stat(real.paths.queue + "/serial")
    assert (found.st_uid, found.st_gid) == (user.pw_uid, group.gr_gid)
    assert not Path(real.paths.pid).exists()


def test_a_user_without_rights(real: Site) -> None:
    """Who is neither root nor the daemon's user is told both uids."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    real.folder.chmod(0o755)
    other, script = real.folder / "as-another", real.folder / "twistd"
    become = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    other.write_text(f'#!/bin/sh\nexec {become} {shlex.quote(twistd())} "$@"\n')
    script.write_text(wrapper(other))
    for each in (other, script):
        each.chmod(0o755)
    for how in (FOREGROUND, DETACHED):
        done = real.start(
            *(*NO_VOTE, "--user=daemon", "--group=daemon"),
            how=how,
            simulate=False,
            program=str(script),
        )
        assert done.returncode == 1
        assert "uid 65534" in done.stderr
        assert f"uid {pwd.getpwnam('daemon').pw_uid}" in done.stderr
        assert "Traceback" not in done.stderr


# -- logs -------------------------------------------------------------------------------------


def test_log_file(site: Site) -> None:
    """Detached it logs to master-daemon.log, goes on in a new one after SIGHUP, or where told."""
    path = Path(site.paths.log)
    with site.detached() as pid:
        old = path.rename(path.with_suffix(".1"))
        os.kill(pid, signal.SIGHUP)
        until("the log is opened again", path.exists)
    assert "Master daemon of cluster cluster is up" in old.read_text("utf-8")
    assert "The master daemon has stopped" in path.read_text("utf-8")
    other = site.folder / "other.log"
    done = site.start(how=(f"--logfile={other}",))
    assert done.returncode == 0
    os.kill(site.pid, signal.SIGTERM)
    until("it stops", lambda: other.read_text("utf-8"), containing("has stopped"))


def test_debug_and_json(site: Site) -> None:
    """With --debug each request and job step is logged, with --json-log a line is an object."""
    with (
        site.detached("--debug", "--json-log"),
        BlockingClient(site.paths.socket, timeout=20) as master,
    ):
        job = master.submit_job([delay(0.01)])
        job_is(master, job, "success")
    lines = [json.loads(line) for line in Path(site.paths.log).read_text("utf-8").splitlines()]
    assert all({"time", "level", "namespace", "text"} <= set(line) for line in lines)
    debug = [line["text"] for line in lines if line["level"] == "debug"]
    assert any(text.startswith("Request SubmitJob on connection") for text in debug)
    assert f"Job {job}: running -> success" in debug


# -- stops ------------------------------------------------------------------------------------


def test_clients_collect_results(make_daemon: MakeDaemon) -> None:
    """The last job ended: those that are connected are served for a while, others not at all."""
    with make_daemon() as daemon:
        master = BlockingClient(daemon.socket, timeout=20)
        job = master.submit_job([delay(1.0)])
        job_is(master, job, "running")
        os.kill(daemon.pid, signal.SIGTERM)
        values, _ = master.wait_for_job_change(job, ["status"], ["running"])
        assert values == ["success"]
        until("its socket is gone", lambda: not os.path.exists(daemon.socket))
        assert master.query_jobs([job], ["status"]) == [["success"]]
        assert daemon.running
        master.close()
        assert daemon.exit_code() == -signal.SIGTERM


def test_a_second_signal(make_daemon: MakeDaemon) -> None:
    """It ends at once; the job that ran is recorded as after a hard kill, queued ones stay."""
    with make_daemon() as daemon:
        master = daemon.client()
        job = master.submit_job([delay(60)])
        job_is(master, job, "running")
        later = master.submit_job([{**delay(0.01), "depends": [[job, ["error"]]]}])
        os.kill(daemon.pid, signal.SIGINT)
        until("it waits", daemon.log_text, containing("Waiting for 1 running jobs"))
        assert daemon.stop(5) == -signal.SIGINT
        status, result = first_result(daemon, job)
        assert (status, result[0]) == ("error", "OpExecError")
        assert "stopped uncleanly" in result[1][0]
        assert first_result(daemon, later) == ("queued", None)
        assert journal_rows(daemon) == []
        assert not os.path.exists(daemon.paths.pid)
        assert not os.path.exists(daemon.socket)
        daemon.start()
        master = daemon.client()
        job_is(master, later, "success")


STUCK = """
import time
from twisted.scripts.twistd import run
from ganeti_masterd.logical_units.trials.delay import Delay
Delay.exec = lambda self, ctx: time.sleep(60)
run()
"""


def test_a_stuck_thread(site: Site) -> None:
    """A thread that notices nothing keeps neither the process nor anything acknowledged."""
    pid_file = site.folder / "twistd.pid"
    command = [sys.executable, "-c", STUCK, "-n", f"--pidfile={pid_file}", "gnt-masterd"]
    options = [f"--root={site.paths.root}", "--simulate=3", "--stop-timeout=0.5"]
    with subprocess.Popen(
        [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            until("it listens", lambda: os.path.exists(site.paths.socket))
            with BlockingClient(site.paths.socket, timeout=20) as master:
                job = master.submit_job([delay(1)])
                job_is(master, job, "running")
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGTERM
    assert f"Jobs whose thread is stuck: [{job}]" in said
    assert "The master daemon has stopped" in said
    content = json.loads((Path(site.paths.queue) / f"job-{job}").read_bytes())
    assert content["ops"][0]["status"] == "error"
    assert "stopped uncleanly" in content["ops"][0]["result"][1][0]
    for path in (pid_file, Path(site.paths.pid), Path(site.paths.socket)):
        assert not path.exists()


# -- systemd ----------------------------------------------------------------------------------


def test_systemd_is_told(site: Site) -> None:
    """READY=1 comes once it serves, signs of life while it does, STOPPING=1 as it stops."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20)
        systemd.bind(str(site.folder / "notify"))
        site.environment = {
            "NOTIFY_SOCKET": str(site.folder / "notify"),
            "WATCHDOG_USEC": "200000",
        }
        with site.detached():
            assert systemd.recv(100) in (b"READY=1", b"WATCHDOG=1")
            told = {systemd.recv(100) for _ in range(3)}
            assert b"WATCHDOG=1" in told
        systemd.setblocking(False)
        rest = []
        with contextlib.suppress(BlockingIOError):
            while True:
                rest.append(systemd.recv(100))
        assert b"STOPPING=1" in rest


def test_a_socket_for_monitors_is_read_only(make_daemon: MakeDaemon, folder: Path) -> None:
    """On --monitor-socket everything may be asked and nothing changed; the other takes changes."""
    path = folder / "monitor"
    with (
        make_daemon(f"--monitor-socket={path}", "--monitor-socket-mode=0600") as daemon,
        BlockingClient(str(path)) as client,
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert client.config_values(["cluster_name", "drain_flag"]) == ["cluster", False]
        assert client.query_jobs(None, ["id"]) == []
        opcodes = [{"OP_ID": "OP_TEST_DELAY", "duration": 0.0}]
        for method, *arguments in (
            ("SubmitJob", opcodes),
            ("SubmitManyJobs", [opcodes]),
            ("SetDrainFlag", True),
            ("SetWatcherPause", None),
        ):
            with pytest.raises(OpPrereqError, match="changes something, which this socket doesn't"):
                client.call(method, *arguments)
        assert client.config_values(["drain_flag"]) == [False]
        assert daemon.client().submit_job(opcodes) == 1
