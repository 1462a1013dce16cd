"""The checks before the process detaches: their order, exit codes and messages.

See protocol/startup.rst, Checks before the start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import json

from ganeti_masterd.errors import PidFileLockError
from ganeti_masterd.jobs.model import encode_job
from ganeti_masterd.startup import checks, locks
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.checks import (
    EXIT_LUXIDS_JOBS,
    Machine,
    Passed,
    SimulatedMachine,
    StartRefused,
    WantedStart,
    check,
    refuse_jobs_of_luxid,
    refuse_others,
)
from ganeti_masterd.startup.locks import LockedFile, Locks
from ganeti_masterd.startup.paths import Paths
from tests.jobs.test_takeover import job
from tests.startup.scene import Host, RootTestCase


class CheckTests(RootTestCase):
    """The checks with one fault at a time; with several, the first in order is reported."""

    def setUp(self) -> None:
        super().setUp()
        self.host = Host()
        #: The accounts that the checks acted as; the real switch is for functional tests.
        self.acted: list[Account | None] = []
        self.patch(checks, "acting_as", self.acting_as)
        self.wanted = WantedStart(self.paths, False, "gnt-masterd", "gnt-daemons")

    @contextlib.contextmanager
    def acting_as(self, account: Account | None) -> Iterator[None]:
        self.acted.append(account)
        yield

    def passed(self) -> Passed:
        """Runs the checks, which must pass."""
        return check(self.wanted, self.host)

    def refused(self) -> StartRefused:
        """Runs the checks, which must not pass."""
        return self.assertRaises(StartRefused, check, self.wanted, self.host)

    def test_passes(self) -> None:
        """A good start finds the configuration and the account, and changes nothing."""
        before = self.content()
        passed = self.passed()
        self.assertEqual(passed.snapshot.master.name, "node1")
        self.assertEqual(passed.account, self.host.account("gnt-masterd", "gnt-daemons"))
        self.assertEqual(self.content(), before | {self.paths.queue_lock: b""})

    def test_as_the_account(self) -> None:
        """Files are set right before any is read, which is done as the daemon's account."""
        account = self.host.account("gnt-masterd", "gnt-daemons")
        config = Path(self.paths.config)
        good = config.read_bytes()
        config.write_bytes(b"{")
        given: list[Account] = []

        def set_right(_: Paths, account: Account) -> None:
            self.assertEqual(self.acted, [])
            given.append(account)
            config.write_bytes(good)

        check(self.wanted, self.host, set_right)
        self.assertEqual((given, self.acted), ([account], [account]))
        self.host.user = 7
        check(self.wanted, self.host, set_right)
        self.assertEqual(given, [account])

    def test_anywhere(self) -> None:
        """A node that isn't the master may be told to start; its journal is left alone."""
        self.host.name = "node2"
        before = self.content()
        passed = check(self.wanted, self.host, anywhere=True)
        self.assertEqual(passed.snapshot.master.name, "node1")
        self.assertEqual(self.content(), before)
        self.assertEqual(self.refused().code, 11)
        os.unlink(self.paths.ssconf("master_node"))
        refused = self.assertRaises(StartRefused, check, self.wanted, self.host, anywhere=True)
        self.assertEqual(refused.code, 12)

    def test_jobs_of_luxid(self) -> None:
        """While a process of luxid runs a job, the real wconfd is needed: exit code 13."""
        refuse_jobs_of_luxid(self.paths)
        livelock = self.paths.run + "/livelocks/job_7_1"
        running = job(7, "running", livelock=livelock, process_id=4711)
        Path(self.paths.queue, "job-7").write_bytes(encode_job(running))
        refuse_jobs_of_luxid(self.paths)
        self.patch(checks, "is_locked", lambda path: path == livelock)
        refused = self.assertRaises(StartRefused, refuse_jobs_of_luxid, self.paths)
        self.assertEqual(refused.code, EXIT_LUXIDS_JOBS)
        self.assertIn("job 7 (running, process 4711)", refused.message)

    def content(self) -> dict[str, bytes]:
        """Returns every file below the root."""
        return {
            str(path): path.read_bytes() for path in Path(self.root).rglob("*") if path.is_file()
        }

    def test_wrong_user(self) -> None:
        """A user that can't switch to the daemon's is refused first, with both uids."""
        self.host.user = 1000
        os.unlink(self.paths.ssconf("master_node"))
        refused = self.refused()
        self.assertEqual(refused.code, 1)
        self.assertIn("uid 7", refused.message)
        self.assertIn("uid 1000", refused.message)

    def test_own_user(self) -> None:
        """The daemon's own user needs no privileges."""
        self.host.user = 7
        self.passed()

    def test_living_daemons(self) -> None:
        """Either kind of lock on any of the files keeps a second daemon from starting."""
        self.patch(locks, "TRIES", 0)
        files = (self.paths.pid, self.paths.queue_lock, *self.paths.peers_pids)
        for path in files:
            for kind in ("flock", "lockf"):
                self.hold(path, kind)
                with open(path, "w") as file:
                    file.write("4711\n")
                refused = self.refused()
                self.assertEqual(refused.code, 1)
                self.assertIn(f"{path} is locked by another process", refused.message)
                self.assertIn("4711", refused.message)
                os.unlink(path)

    def test_queue_held(self) -> None:
        """The check for other daemons, which a fail-over also makes, finds who holds the queue."""
        self.patch(locks, "TRIES", 0)
        refuse_others(self.paths, simulated=False)
        self.hold(self.paths.queue_lock, "flock")
        for simulated in (False, True):
            self.assertRaises(PidFileLockError, refuse_others, self.paths, simulated=simulated)

    def test_noded_at_work(self) -> None:
        """A lock that noded holds during a call is waited for."""
        held = LockedFile(self.paths.queue_lock)
        tries: list[float] = []

        def sleep(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) == 3:
                held.release()

        def take() -> LockedFile:
            # a flock belongs to one open file, so this process can't take it twice either
            return LockedFile(self.paths.queue_lock)

        locks.patiently(take, sleep).release()
        self.assertEqual(tries, [locks.PAUSE] * 3)
        held = take()
        self.addCleanup(held.release)
        self.assertRaises(PidFileLockError, locks.patiently, take, lambda _: None)

    def test_living_luxid_beside_simulation(self) -> None:
        """A simulation starts while luxid runs."""
        self.hold(self.paths.peers_pids[0], "lockf")
        check(WantedStart(self.paths, True), self.host)

    def test_living_before_not_master(self) -> None:
        """A running daemon is reported rather than that this node isn't master."""
        self.hold(self.paths.pid, "flock")
        self.host.name = "node2"
        self.assertEqual(self.refused().code, 1)

    def test_no_ssconf(self) -> None:
        """Incomplete ssconf gives exit code 12, whatever is wrong with the file."""
        path = self.paths.ssconf("master_node")
        for content in (b"", b"\n", b"\xff\xfe", None):
            os.unlink(path)
            if content is not None:
                Path(path).write_bytes(content)
            refused = self.refused()
            self.assertEqual((refused.code, refused.on_stdout), (12, False))
            self.assertIn(path, refused.message)
            Path(path).touch()

    def test_unresolvable(self) -> None:
        """A host name without an address gives exit code 12 and is named."""
        self.host.known = set()
        refused = self.refused()
        self.assertEqual(refused.code, 12)
        self.assertIn("'node1'", refused.message)

    def test_not_master(self) -> None:
        """Another node's name gives exit code 11, with a message on standard output as in 3.0."""
        self.host.name = "node2"
        refused = self.refused()
        self.assertEqual(
            (refused.code, refused.message, refused.on_stdout), (11, "Not master", True)
        )

    def test_not_master_before_account(self) -> None:
        """Accounts are checked only on the master."""
        self.host.name = "node2"
        self.host.accounts = {}
        self.assertEqual(self.refused().code, 11)

    def test_no_account(self) -> None:
        """A missing user or group gives exit code 1 with both names."""
        self.host.accounts = {}
        Path(self.paths.config).write_bytes(b"{")
        refused = self.refused()
        self.assertEqual(refused.code, 1)
        self.assertIn("'gnt-masterd'", refused.message)
        self.assertIn("'gnt-daemons'", refused.message)

    def test_version(self) -> None:
        """For a configuration of another version the message has both versions and the upgrade."""
        document = json.decode(Path(self.paths.config).read_bytes())
        Path(self.paths.config).write_bytes(json.encode({**document, "version": 2160000}))
        before = self.content()
        refused = self.refused()
        self.assertEqual(refused.code, 1)
        for text in ("2.16.0", "3.0.0", "upgrade"):
            self.assertIn(text, refused.message)
        self.assertEqual(self.content(), before)

    def test_broken_configuration(self) -> None:
        """Any other fault names the file and the fault."""
        for content, fault in ((b"{", ""), (b"", ""), (b'{"version": 3000000}', "cluster")):
            Path(self.paths.config).write_bytes(content)
            refused = self.refused()
            self.assertEqual(refused.code, 1)
            self.assertIn(self.paths.config, refused.message)
            self.assertIn(fault, refused.message)

    def test_no_configuration(self) -> None:
        """A missing file is named."""
        os.unlink(self.paths.config)
        self.assertIn(f"{self.paths.config} can't be read", self.refused().message)

    def test_no_queue(self) -> None:
        """A missing queue is named."""
        os.rmdir(self.paths.queue + "/archive")
        os.unlink(self.paths.queue + "/version")
        os.rmdir(self.paths.queue)
        self.assertIn(self.paths.queue, self.refused().message)

    def test_no_journal(self) -> None:
        """A file that isn't a journal is set aside and named."""
        os.makedirs(os.path.dirname(self.paths.journal))
        Path(self.paths.journal).write_bytes(b"rubbish" * 1000)
        self.assertIn(self.paths.journal.removesuffix("db") + "set-aside-", self.refused().message)

    def test_nothing_stays_open(self) -> None:
        """The checks leave no lock and no open file to be inherited."""
        before = os.listdir("/proc/self/fd")
        self.passed()
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))
        LockedFile(self.paths.queue_lock).release()


class MachineTests(RootTestCase):
    """The real and the simulated machine."""

    def test_names(self) -> None:
        """GANETI_HOSTNAME sets the host name; known names resolve, unknown ones don't."""
        machine = Machine({"GANETI_HOSTNAME": "here"})
        self.assertEqual(machine.host_name(), "here")
        self.assertTrue(Machine({}).host_name())
        self.assertTrue(machine.resolves("localhost"))
        self.assertFalse(machine.resolves("no such name"))
        self.assertFalse(machine.resolves("x" * 300))
        self.assertEqual(machine.uid(), os.geteuid())

    def test_accounts(self) -> None:
        """Accounts are looked up in the system."""
        machine = Machine({})
        account = machine.account("root", None)
        assert account is not None
        self.assertEqual((account.uid, account.gid), (0, 0))
        self.assertIsNone(machine.account("no-such-user", None))
        self.assertIsNone(machine.account(None, "no-such-group"))
        own = machine.account(None, None)
        assert own is not None
        self.assertEqual(own.uid, os.geteuid())

    def test_simulated(self) -> None:
        """A simulation has the master's host name, unless GANETI_HOSTNAME is set."""
        self.assertEqual(SimulatedMachine({}, self.paths).host_name(), "node1")
        other = SimulatedMachine({"GANETI_HOSTNAME": "node3"}, self.paths)
        self.assertEqual(other.host_name(), "node3")
        self.assertTrue(other.resolves("node3"))


class LockTests(RootTestCase):
    """Locked files."""

    def test_both_kinds(self) -> None:
        """A locked file excludes both kinds of lock."""
        path = self.root + "/lock"
        held = LockedFile(path, 0o600)
        self.addCleanup(held.release)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path, "rb+") as other:
            self.assertRaises(BlockingIOError, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.assertRaises(PidFileLockError, LockedFile, path)

    def test_replaced_file(self) -> None:
        """If the file is replaced while it is being locked, the new file is locked."""
        path = self.root + "/lock"
        old = LockedFile(path)
        os.unlink(path)
        new = LockedFile(path)
        new.write("12\n")
        self.assertEqual(Path(path).read_text(), "12\n")
        old.release()
        self.assertRaises(PidFileLockError, LockedFile, path)
        new.release(remove=True)
        new.release(remove=True)
        self.assertFalse(os.path.exists(path))

    def test_pid_file_of_others(self) -> None:
        """What others put at a PID file's name is replaced, and what it leads to stays."""
        path = self.root + "/pid"
        secret = Path(self.root, "secret")
        secret.write_text("secret")
        for put in (
            lambda: os.symlink(secret, path),
            lambda: os.symlink(self.root + "/nowhere", path),
            lambda: os.link(secret, path),
            lambda: os.mkfifo(path),
            lambda: os.mkdir(path),
            lambda: Path(path).write_text("no number"),
            lambda: Path(path).write_text("1" * 100),
        ):
            put()
            held = Locks()
            held.take_pid_file(path)
            self.assertEqual(Path(path).read_text(), f"{os.getpid()}\n")
            self.assertEqual(os.lstat(path).st_mode & 0o777, 0o644)
            held.release()
            self.assertFalse(os.path.lexists(path))
        self.assertEqual(secret.read_text(), "secret")
        self.assertFalse(os.path.exists(self.root + "/nowhere"))

    def test_pid_file_that_holds_something_else(self) -> None:
        """A file that holds no process id is not truncated, but loses the name."""
        path = self.root + "/pid"
        for content in ("no number", "1" * 100):
            Path(path).write_text(content)
            with open(path) as moved_here:
                held = Locks()
                held.take_pid_file(path)
                self.assertEqual(moved_here.read(), content)
                held.release()

    def test_pid_file_of_another_daemon(self) -> None:
        """A PID file that is locked is left alone, whoever it belongs to and whatever it holds."""
        path = self.root + "/pid"
        Path(path).write_text("no number")
        if os.geteuid() == 0:
            os.chown(path, 54321, 54321)
        self.hold(path, "lockf")
        self.assertRaises(PidFileLockError, Locks().take_pid_file, path)
        self.assertEqual(Path(path).read_text(), "no number")

    def test_lock_that_is_a_link(self) -> None:
        """The queue's lock is in a folder of the daemon's own: a link there is refused by name."""
        path, secret = self.root + "/lock", Path(self.root, "secret")
        secret.touch(0o600)
        os.symlink(secret, path)
        error = self.assertRaises(OSError, LockedFile, path)
        self.assertIn(f"{path} is a link", str(error))
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
