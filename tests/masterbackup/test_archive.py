"""Backups: what is written comes back; whatever else is in a file is refused by name."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.jobs.model import encode_job, new_job
from ganeti_masterd.masterbackup import laying_down
from ganeti_masterd.masterbackup.archive import check_backup, write_backup
from ganeti_masterd.masterbackup.contents import FORMAT, BackupFault, BackupManifest, mode_of
from ganeti_masterd.masterbackup.laying_down import MARK, lay_down
from ganeti_masterd.startup.paths import Paths
from tests.config.sample import CLUSTER, CONTENT, sample

JOB = encode_job(new_job(3, [{"OP_ID": "OP_TEST_DELAY", "duration": 1}], 1.0))
FILES = [
    ("config.data", CONTENT),
    ("queue/serial", b"7\n"),
    ("queue/version", b"1\n"),
    ("ssconf_cluster_name", b"cluster\n"),
    ("queue/job-3", JOB),
    ("queue/archive/0/job-2", b"{}"),
    ("rapi/users", b"me secret\n"),
]


def manifest(digests: dict[str, str], **other: Any) -> BackupManifest:
    given = {
        "format": FORMAT,
        "cluster": CLUSTER,
        "name": "cluster",
        "master": "node1",
        "taken": 1.0,
        "serial": sample().header.serial_no,
        "last_job": 7,
        "files": digests,
        **other,
    }
    return msgspec.convert(given, BackupManifest)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.path = f"{self.folder}/backup"
        self.paths = Paths(f"{self.folder}/root")

    def refused(self, words: str, path: str | None = None) -> None:
        """Checks that a backup can't be laid down, says why, and leaves nothing behind."""
        error = self.assertRaises(BackupFault, lay_down, path or self.path, self.paths)
        self.assertIn(words, str(error.args[0]))
        self.assertFalse(os.path.exists(self.paths.root))

    def rewritten(self, change: Callable[[tarfile.TarFile, tarfile.TarInfo, bytes], bool]) -> None:
        """Writes the backup anew; ``change`` may add what it likes, and says if it did."""
        with open(self.path, "rb") as file:
            old = io.BytesIO(file.read())
        with (
            tarfile.open(fileobj=old, mode="r:gz") as read,
            tarfile.open(self.path, "w:gz") as tar,
        ):
            for member in read:
                content = read.extractfile(member)
                assert content is not None
                body = content.read()
                if not change(tar, member, body):
                    tar.addfile(member, io.BytesIO(body))


def put(tar: tarfile.TarFile, name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type = len(content), kind
    member.linkname = "/etc/shadow" if kind != tarfile.REGTYPE else ""
    tar.addfile(member, io.BytesIO(content))


class WritingTests(Case):
    """Making a backup."""

    def test_round_trip(self) -> None:
        """All files come back with their modes; the backup is its owner's alone."""
        write_backup(self.path, FILES, manifest)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["backup"])
        self.assertEqual(lay_down(self.path, self.paths).last_job, 7)
        for name, content in FILES:
            path = f"{self.paths.data}/{name}"
            with open(path, "rb") as file:
                self.assertEqual(file.read(), content)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode_of(name, content))
        self.assertFalse(os.path.exists(f"{self.paths.data}/{MARK}"))

    def test_nothing_is_replaced(self) -> None:
        """A file, or a link, that has the name already stays as it is."""
        os.symlink("/nowhere", self.path)
        self.assertRaises(BackupFault, write_backup, self.path, FILES, manifest)
        self.assertEqual(os.listdir(self.folder), ["backup"])

    def test_failing(self) -> None:
        """If what is to be backed up can't be had, or doesn't fit together, no file is left."""

        def files() -> Any:
            yield FILES[0]
            raise OSError("gone")

        self.assertRaises(OSError, write_backup, self.path, files(), manifest)
        self.assertRaises(BackupFault, write_backup, self.path, FILES[1:], manifest)
        self.assertRaises(BackupFault, write_backup, self.path, [("passwd", b"")], manifest)
        self.assertEqual(os.listdir(self.folder), [])


class RefusingTests(Case):
    """Files that must not be used."""

    def setUp(self) -> None:
        super().setUp()
        write_backup(self.path, FILES, manifest)

    def test_cut_off(self) -> None:
        """A backup without its end, wherever it is cut, is refused."""
        with open(self.path, "rb") as file:
            whole = file.read()
        for length in (*range(0, len(whole) - 1, 97), len(whole) - 9):
            self.assertRaises(BackupFault, check_backup, io.BytesIO(whole[:length]))

    def test_flipped(self) -> None:
        """No byte of the compressed file, changed, goes unnoticed by the check or the digests."""
        with open(self.path, "rb") as file:
            whole = file.read()
        good = check_backup(io.BytesIO(whole))
        for place in range(10, len(whole), 53):
            bad = bytearray(whole)
            bad[place] ^= 0x10
            try:
                self.assertEqual(check_backup(io.BytesIO(bytes(bad))), good)
            except BackupFault:
                continue

    def test_no_archive(self) -> None:
        """Other files are no backups."""
        for content in (b"", b"text\n" * 1000, gzip.compress(b"text\n" * 1000)):
            with open(self.path, "wb") as file:
                file.write(content)
            self.refused("")

    def test_changed(self) -> None:
        """Another content, a missing file, one too many, one twice: each is named."""

        def other(tar: tarfile.TarFile, member: tarfile.TarInfo, body: bytes) -> bool:
            if member.name == "rapi/users":
                put(tar, "rapi/users", b"me known\n")
            return member.name == "rapi/users"

        def missing(tar: tarfile.TarFile, member: tarfile.TarInfo, body: bytes) -> bool:
            return member.name == "queue/version"

        def more(tar: tarfile.TarFile, member: tarfile.TarInfo, body: bytes) -> bool:
            if member.name == "queue/version":
                put(tar, "hmac.key", b"x")
            return False

        def twice(tar: tarfile.TarFile, member: tarfile.TarInfo, body: bytes) -> bool:
            if member.name == "queue/version":
                put(tar, "queue/version", body)
            return False

        for change, words in (
            (other, "rapi/users was changed"),
            (missing, "queue/version is missing"),
            (more, "hmac.key isn't in"),
            (twice, "queue/version twice"),
        ):
            os.unlink(self.path)
            write_backup(self.path, FILES, manifest)
            self.rewritten(change)
            self.refused(words)

    def test_names_and_links(self) -> None:
        """Names that lead elsewhere, links, devices and folders are refused, whatever they hold."""
        for name, kind in (
            ("../../../etc/passwd", tarfile.REGTYPE),
            ("/etc/passwd", tarfile.REGTYPE),
            ("queue/../config.data", tarfile.REGTYPE),
            ("queue/archive/../job-1", tarfile.REGTYPE),
            ("queue/job-03", tarfile.REGTYPE),
            ("masterd/journal.db", tarfile.REGTYPE),
            ("server.pem", tarfile.SYMTYPE),
            ("server.pem", tarfile.LNKTYPE),
            ("server.pem", tarfile.CHRTYPE),
            ("rapi", tarfile.DIRTYPE),
        ):

            def add(
                tar: tarfile.TarFile,
                member: tarfile.TarInfo,
                body: bytes,
                name: str = name,
                kind: bytes = kind,
            ) -> bool:
                if member.name == "queue/version":
                    put(tar, name, b"", kind)
                return False

            os.unlink(self.path)
            write_backup(self.path, FILES, manifest)
            self.rewritten(add)
            self.refused(repr(name))

    def test_extended_headers(self) -> None:
        """A header of a gigabyte, or one in another, is refused before it is read."""
        for kind in (b"x", b"g", b"L", b"K", b"X", b"S"):
            for size, blocks in ((1 << 30, 1), (512, 3000)):
                header = tarfile.TarInfo("@header")
                header.type, header.size = kind, size
                block = header.tobuf(tarfile.GNU_FORMAT)
                path = f"{self.mktemp()}.tar.gz"
                with gzip.open(path, "wb") as file:
                    file.write((block + bytes(512)) * blocks)
                self.refused(f"'@header', an extended header of {size} bytes", path)

    def test_contents(self) -> None:
        """A configuration or a job that can't be used, or doesn't fit the list, is refused."""
        base = dict(FILES)
        for change, other in (
            ({"config.data": b"{}"}, {}),
            ({"queue/job-3": b"{}"}, {}),
            ({"queue/job-9": JOB.replace(b'"id":3', b'"id":9')}, {}),
            ({"queue/serial": b"x"}, {}),
            ({}, {"cluster": "other"}),
            ({}, {"serial": 1}),
            ({}, {"format": 2}),
        ):
            files = {**base, **change}
            self.assertRaises(
                BackupFault,
                write_backup,
                f"{self.path}2",
                list(files.items()),
                lambda digests, other=other: manifest(digests, **other),
            )

    def test_machine_in_use(self) -> None:
        """A machine with a configuration, a queue, or half of another backup is left alone."""
        used = ("config.data", "queue/job-1", "queue/archive/0/job-3", "masterd/journal.db", MARK)
        for name in used:
            paths = Paths(f"{self.folder}/{name.replace('/', '-')}")
            path = f"{paths.data}/{name}"
            os.makedirs(os.path.dirname(path))
            with open(path, "w") as file:
                file.write("mine")
            self.assertRaises(BackupFault, lay_down, self.path, paths)
            self.assertFalse(os.path.exists(f"{paths.data}/ssconf_cluster_name"))

    def test_interrupted(self) -> None:
        """One that was interrupted can be run again, and not with another backup."""
        write = laying_down._write

        def broken(path: str, content: bytes, mode: int) -> None:
            if path.endswith("/job-3"):
                raise OSError("no room")
            write(path, content, mode)

        patch = self.patch(laying_down, "_write", broken)
        self.assertRaises(OSError, lay_down, self.path, self.paths)
        patch.restore()
        mark = f"{self.paths.data}/{MARK}"
        with open(mark, "rb") as file:
            own = file.read()
        for other in (b"\xff", own[1:], b""):
            with open(mark, "wb") as file:
                file.write(other)
            error = self.assertRaises(BackupFault, lay_down, self.path, self.paths)
            self.assertIn("half of another backup", str(error))
        with open(mark, "wb") as file:
            file.write(own)
        lay_down(self.path, self.paths)
        with open(f"{self.paths.queue}/job-3", "rb") as file:
            self.assertEqual(file.read(), JOB)
