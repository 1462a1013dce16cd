"""Where the files stand, how one is replaced, on both disks."""

from __future__ import annotations

import ast
import errno
import os
import re
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import ganeti_masterd
from ganeti_masterd.journal.disk import MOST_OPEN, RealDisk
from ganeti_masterd.journal.files import replace_file, replace_files
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import (
    PRIVATE_PARAMETERS,
    QueueFiles,
    QueuePaths,
    archive_number,
    encode_serial,
    job_number,
    parse_serial,
)
from ganeti_masterd.opcodes.parameters import parameters
from ganeti_masterd.opcodes.registry import OPCODES
from ganeti_masterd.testing.disk import ForgetfulDisk, Power, PowerCut
from tests.journal.scene import put

PACKAGE = Path(ganeti_masterd.__file__).parent


class FilesTests(SynchronousTestCase):
    def test_paths(self) -> None:
        """Files stand where Ganeti's other programs look for them."""
        files = QueueFiles("/lib/queue", "/lib/config.data")
        self.assertEqual(files.job(7), "/lib/queue/job-7")
        self.assertEqual(files.archived_job(9_999), "/lib/queue/archive/0/job-9999")
        self.assertEqual(files.archived_job(120_001), "/lib/queue/archive/12/job-120001")
        self.assertEqual(files.serial, "/lib/queue/serial")
        self.assertEqual(files.config_directory, "/lib")

    def test_job_number(self) -> None:
        """Only a job's own file has a number."""
        self.assertEqual(job_number("job-12"), 12)
        for name in ("job-", "job-1.following", "job-x", "job-²", "12", "serial", "job--1"):
            self.assertIsNone(job_number(name), name)

    def test_serial(self) -> None:
        """A serial that is missing or damaged counts as none."""
        self.assertEqual(parse_serial(b"12\n"), 12)
        for content in (None, b"", b"twelve\n", b"-3\n", b"1 2", b"\xb2", b"1" * 5000):
            self.assertIsNone(parse_serial(content), content)
        self.assertEqual(parse_serial(encode_serial(7)), 7)

    def test_queue(self) -> None:
        """Flags and locks stand in the queue's folder, a corrupt file beside its archived job."""
        files = QueuePaths("/lib/queue")
        self.assertEqual(files.drain, "/lib/queue/drain")
        self.assertEqual(files.lock, "/lib/queue/lock")
        self.assertEqual(files.version, "/lib/queue/version")
        self.assertEqual(files.corrupt_job(10_000), "/lib/queue/archive/1/job-10000.corrupt")
        self.assertIsNone(job_number("job-10000.corrupt"))

    def test_archive_number(self) -> None:
        """Only a directory that is called by a number belongs to the archive."""
        self.assertEqual(archive_number("12"), 12)
        for name in ("", "x", "²", "1.old", "-1", "1" * 100):
            self.assertIsNone(archive_number(name), name)

    def test_one_place(self) -> None:
        """No other module spells the names of the queue's files."""
        spelt = re.compile(r"(^|/)job-(\d|\\d|$)|/(archive|serial|drain|queue/.*)(/|$)|\.corrupt$")
        found = [
            f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
            for path in sorted(PACKAGE.rglob("*.py"))
            if path != PACKAGE / "journal" / "layout.py"
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " not in node.value
            and spelt.search(node.value)
        ]
        self.assertEqual(found, [])


class EffectsTests(SynchronousTestCase):
    """All disk effects go through one interface (architecture.rst, journal rule 7)."""

    #: Those that touch real files: the disk itself, the store below the journal with its mark,
    #: and what reads a damaged store from a copy.
    SHELLS = (
        "journal/disk.py",
        "journal/examination.py",
        "journal/sqlite.py",
        "journal/tip.py",
    )
    EFFECTS = re.compile(
        "replace|renames?|unlink|remove|rmdir|mkdir|makedirs|link|symlink|f?truncate|write|fsync"
        "|O_CREAT|O_WRONLY|O_RDWR|O_TRUNC|O_APPEND"
    )

    def test_no_way_past_the_disk(self) -> None:
        """What holds acknowledged state writes, renames and removes no file by itself."""
        found = []
        for package in ("journal", "jobs", "config", "replication", "failover"):
            for path in sorted((PACKAGE / package).rglob("*.py")):
                place = path.relative_to(PACKAGE)
                if str(place) not in self.SHELLS:
                    tree = ast.parse(path.read_bytes())
                    found += [f"{place}:{n.lineno}" for n in ast.walk(tree) if self.effect(n)]
        self.assertEqual(found, [])

    def effect(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.value.id == "shutil" or (
                node.value.id == "os" and self.EFFECTS.fullmatch(node.attr) is not None
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            modes = [*node.args[1:2], *(each.value for each in node.keywords)]
            return node.func.id == "open" and any(
                isinstance(mode, ast.Constant) and str(mode.value).strip("rbt") for mode in modes
            )
        return False


class ReplaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = ForgetfulDisk(["/queue"])
        put(self.disk, "/queue/serial", b"old")

    def test_failures_leave_the_old_file(self) -> None:
        """Whatever fails, the old file stands and nothing half written lies about."""
        for method in ("write", "sync", "rename"):
            self.disk.faults = {method: OSError(errno.ENOSPC, "full")}
            self.assertRaises(OSError, replace_file, self.disk, "/queue/serial", b"new")
            self.assertEqual(self.disk.read("/queue/serial"), b"old")
            self.assertEqual(self.disk.names("/queue"), ["serial"])

    def test_several(self) -> None:
        """Several files go together; a failure leaves each old or new, and nothing else."""
        for number in range(3):
            put(self.disk, f"/queue/job-{number}", b"old")
        fresh = [(f"/queue/job-{number}", b"new") for number in range(3)]
        for method in ("write", "sync", "rename"):
            self.disk.faults = {method: OSError(errno.EIO, "broken")}
            self.assertRaises(OSError, list, replace_files(self.disk, fresh))
            names = self.disk.names("/queue")
            self.assertEqual(names, ["job-0", "job-1", "job-2", "serial"])
            self.assertEqual({self.disk.read(path) for path, _ in fresh}, {b"old"})
        self.disk.faults = {}
        self.assertEqual(len(list(replace_files(self.disk, fresh))), 7)
        self.assertEqual({self.disk.read(path) for path, _ in fresh}, {b"new"})

    def test_never_half(self) -> None:
        """After a crash with nothing unsynced left the file is the old one, else the new one."""
        for choice, expected in ((0, b"old"), (-1, b"new")):
            replace_file(self.disk, "/queue/serial", b"new")
            self.disk.crash(lambda n, choice=choice: choice % n)
            self.assertEqual(self.disk.read("/queue/serial"), expected)


class DiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = os.path.realpath(self.mktemp())
        os.mkdir(self.root)
        self.disk = RealDisk()

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def mode(self, name: str) -> int:
        return stat.S_IMODE(os.stat(self.path(name)).st_mode)

    def test_interface(self) -> None:
        """Both disks are disks."""
        verifyObject(IDisk, self.disk)
        verifyObject(IDisk, ForgetfulDisk())

    def test_both_alike(self) -> None:
        """The real disk and the forgetful one give the same answers."""
        double = ForgetfulDisk([self.root])
        for disk in (self.disk, double):
            disk.make_directory(self.path("a"), 0o750)
            disk.make_directory(self.path("a"), 0o750)
            disk.write(self.path("a/one"), b"1", 0o640)
            disk.write(self.path("a/one"), b"22", 0o640)
            disk.write(self.path("a/two"), b"", 0o640)
            disk.sync(self.path("a/one"))
            disk.sync_directory(self.path("a"))
            disk.rename(self.path("a/one"), self.path("three"))
            disk.unlink(self.path("a/none"))
            self.assertEqual(disk.names(self.path("a")), ["two"])
            self.assertEqual(disk.read(self.path("three")), b"22")
            self.assertIsNone(disk.read(self.path("a/one")))
            self.assertEqual(disk.names(self.path("nowhere")), [])
            for function, arguments in (
                (disk.write, (self.path("nowhere/x"), b"", 0o640)),
                (disk.rename, (self.path("none"), self.path("x"))),
                (disk.rename, (self.path("three"), self.path("nowhere/x"))),
                (disk.sync, (self.path("none"),)),
                (disk.sync_directory, (self.path("nowhere"),)),
                (disk.make_directory, (self.path("nowhere/x"), 0o750)),
            ):
                self.assertRaises(FileNotFoundError, function, *arguments)

    def test_synced(self) -> None:
        """What is synced reaches the disk: exactly that file, or that directory, and then."""
        synced: list[str] = []
        fsync = os.fsync

        def recording(descriptor: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        self.patch(os, "fsync", recording)
        self.disk.write(self.path("new"), b"1", 0o640)
        self.disk.write(self.path("other"), b"1", 0o640)
        self.assertEqual(synced, [])
        self.disk.sync(self.path("new"))  # through the descriptor that wrote it
        self.assertEqual(synced, [self.path("new")])
        self.disk.sync(self.path("new"))  # opened again
        self.assertEqual(synced, [self.path("new")] * 2)
        self.disk.rename(self.path("new"), self.path("job-1"))
        self.disk.sync_directory(self.root)
        self.assertEqual(synced[2:], [self.root])
        # Let go of while many are open: still synced when asked.
        for number in range(MOST_OPEN + 1):
            self.disk.write(self.path(f"many-{number}"), b"", 0o640)
        self.disk.sync(self.path("other"))
        self.assertEqual(synced[3:], [self.path("other")])

    def test_sync_that_fails(self) -> None:
        """A fault of the disk is not swallowed, and costs no descriptor."""

        def failing(descriptor: int) -> None:
            raise OSError(errno.EIO, "disk")

        self.patch(os, "fsync", failing)
        before = os.listdir("/proc/self/fd")
        self.disk.write(self.path("one"), b"1", 0o640)
        self.assertRaises(OSError, self.disk.sync, self.path("one"))
        self.assertRaises(OSError, self.disk.sync, self.path("one"))
        self.assertRaises(OSError, self.disk.sync_directory, self.root)
        self.assertEqual(os.listdir("/proc/self/fd"), before)

    def test_private_jobs(self) -> None:
        """A job's file with private parameters is for its owner alone, and no other file is."""
        for name, content, mode in (
            ("job-2", b'{"osparams_private":{"x":"y"}}', 0o600),
            ("job-2", b'{"osparams_private_cluster": {"os":{}}}', 0o600),
            ("job-2", b'{"osparams_private":null,"osparams_private_cluster":{}}', 0o640),
            ("config.data", b'{"osparams_private":{"x":"y"}}', 0o640),
        ):
            replace_file(self.disk, self.path(name), content)
            self.assertEqual(self.mode(name), mode, content)
        names = {
            parameter.name
            for opcode in OPCODES.values()
            for parameter in parameters(opcode).values()
            if parameter.secrecy == "private"
        }
        self.assertEqual(set(PRIVATE_PARAMETERS), names)

    def test_modes(self) -> None:
        """Modes are as asked, whatever the umask and the mode before."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.disk.make_directory(self.path("archive"), 0o750)
        self.disk.write(self.path("job-1"), b"", 0o600)
        self.disk.write(self.path("job-1"), b"", 0o640)
        self.assertEqual(self.mode("archive"), 0o750)
        self.assertEqual(self.mode("job-1"), 0o640)

    def test_group(self) -> None:
        """The longest directory that has a group gives it to itself and what is made below."""
        own, calls = os.getgid(), []
        disk = RealDisk({self.root: own + 1, self.path("queue"): own})
        self.patch(os, "fchown", lambda fd, uid, gid: calls.append((uid, gid)))
        self.patch(os, "chown", lambda path, uid, gid: calls.append((uid, gid)))
        disk.make_directory(self.path("queue"), 0o750)
        disk.write(self.path("queue/job-1"), b"", 0o640)
        disk.write(self.path("queueing"), b"", 0o640)
        RealDisk({self.path("queue"): own}).write(self.path("config.data"), b"", 0o640)
        self.assertEqual(calls, [(-1, own), (-1, own), (-1, own + 1)])

    def test_group_of_one_file(self) -> None:
        """A file may have a group of its own, and so does what takes its place."""
        own, calls = os.getgid(), []
        disk = RealDisk({self.root: own, self.path("pause"): own + 1})
        self.patch(os, "fchown", lambda fd, uid, gid: calls.append(gid))
        for name in ("pause", "pause.new", "pauses"):
            disk.write(self.path(name), b"", 0o644)
        self.assertEqual(calls, [own + 1, own + 1, own])

    def test_no_link_is_followed(self) -> None:
        """A link in the place of a temporary file is not written through."""
        os.symlink(self.path("victim"), self.path("job-1"))
        self.assertRaises(OSError, self.disk.write, self.path("job-1"), b"x", 0o640)
        self.assertNotIn("victim", os.listdir(self.root))

    def test_a_file_is_no_directory(self) -> None:
        """A file that has the name of a directory is a fault, not a directory."""
        self.disk.write(self.path("archive"), b"", 0o640)
        self.assertRaises(FileExistsError, self.disk.make_directory, self.path("archive"), 0o750)

    def test_descriptors(self) -> None:
        """No descriptor is left, whether a written file is synced, replaced, moved or removed."""
        before = os.listdir("/proc/self/fd")
        for number in range(100):  # more than may be open: those left are synced by name
            self.disk.write(self.path(f"job-{number}"), b"x", 0o640)
        self.disk.write(self.path("job-99"), b"y", 0o640)
        for number in range(0, 100, 3):
            self.disk.sync(self.path(f"job-{number}"))
        for number in range(1, 100, 3):
            self.disk.rename(self.path(f"job-{number}"), self.path("job"))
        for number in range(2, 100, 3):
            self.disk.unlink(self.path(f"job-{number}"))
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))
        self.assertEqual(self.disk.read(self.path("job-99")), b"y")

    def test_short_writes(self) -> None:
        """A write that takes only a part goes on with the rest."""
        write = os.write
        self.patch(os, "write", lambda fd, content: write(fd, bytes(content[:3])))
        self.disk.write(self.path("job-1"), b"0123456789", 0o640)
        self.assertEqual(self.disk.read(self.path("job-1")), b"0123456789")


class ForgetfulDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.power = Power()
        self.disk = ForgetfulDisk(["/d"], self.power)

    def test_content(self) -> None:
        """Content without a sync survives in part at most, if luck wills it so."""
        self.disk.write("/d/f", b"content", 0o640)
        self.disk.sync_directory("/d")
        answers = iter([1, 3])
        self.disk.crash(lambda n: next(answers))
        self.assertEqual(self.disk.read("/d/f"), b"con")
        self.disk.write("/d/f", b"content", 0o640)
        self.disk.crash(lambda n: 0)
        self.assertEqual(self.disk.read("/d/f"), b"con")

    def test_names(self) -> None:
        """A name without a sync of its directory is lost, with all below it."""
        self.disk.make_directory("/d/e", 0o750)
        put(self.disk, "/d/e/f", b"x")
        self.disk.crash(lambda n: 0)
        self.assertEqual(self.disk.names("/d"), [])

    def test_half_a_move(self) -> None:
        """Of a move, the old name may go and the new one not come."""
        put(self.disk, "/d/old", b"x")
        self.disk.rename("/d/old", "/d/new")
        answers = {"old": 1, "new": 0}
        order = iter(["old", "new"])
        self.disk.crash(lambda n: answers[next(order)])
        self.assertEqual(self.disk.names("/d"), [])

    def test_power(self) -> None:
        """After the cut nothing works until the power is back."""
        self.power.cut_after(1)
        self.disk.write("/d/f", b"x", 0o640)
        for _ in range(2):
            self.assertRaises(PowerCut, self.disk.sync, "/d/f")
        self.assertRaises(PowerCut, self.disk.read, "/d/f")
        self.disk.crash(lambda n: n - 1)
        self.assertEqual(self.disk.names("/d"), ["f"])

    def test_disk_full(self) -> None:
        """A write that fails leaves half of it."""
        self.disk.faults["write"] = OSError(errno.ENOSPC, "full")
        self.assertRaises(OSError, self.disk.write, "/d/f", b"1234", 0o640)
        self.assertEqual(self.disk.read("/d/f"), b"12")
