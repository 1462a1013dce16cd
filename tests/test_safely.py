"""Opening, giving away and walking in folders where others put links."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ganeti_masterd import safely
from ganeti_masterd.safely import UnsafePath

STRANGER = 54321


class SafelyTestCase(SynchronousTestCase):
    """A folder of this user's in the temporary one, and a file that nothing may change."""

    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="gnt-"))
        self.addCleanup(shutil.rmtree, self.top)
        self.secret = self.top / "secret"
        self.secret.write_text("secret")
        self.secret.chmod(0o600)
        self.folder = self.top / "folder"
        self.folder.mkdir()
        self.path = self.folder / "file"
        before = len(os.listdir("/proc/self/fd"))
        self.addCleanup(lambda: self.assertEqual(len(os.listdir("/proc/self/fd")), before))

    def refuses(self, component: Path, reason: str, act: Callable[[], object]) -> None:
        """What is done must be refused with the component and the reason."""
        error = self.assertRaises(UnsafePath, act)
        self.assertEqual(error.filename, str(component))
        self.assertIn(reason, str(error))
        self.assertTrue(str(error).startswith(str(component)))

    def as_root(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")

    def unchanged(self) -> None:
        """Nobody has touched the secret."""
        found = self.secret.stat()
        self.assertEqual(self.secret.read_text(), "secret")
        self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (os.geteuid(), 0o600))


class OpeningTests(SafelyTestCase):
    """Files and folders by their path."""

    def create(self) -> None:
        os.close(safely.open_file(str(self.path), os.O_RDWR | os.O_CREAT, 0o600))

    def test_file(self) -> None:
        """A file is made with its mode, and read."""
        self.create()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.path.write_text("text")
        self.assertEqual(safely.read(str(self.path)), b"text")

    def test_missing(self) -> None:
        """What is missing is named by its whole path, whichever component it is."""
        for path in (self.path, self.folder / "a" / "b"):
            error = self.assertRaises(FileNotFoundError, safely.read, str(path))
            self.assertIn(str(path.parent.relative_to(self.folder.parent)), error.filename)

    def test_last_component(self) -> None:
        """The last component is never followed, even if the link leads nowhere."""
        for target in (self.secret, self.top / "nowhere"):
            self.path.symlink_to(target)
            self.refuses(self.path, "is a link", self.create)
            self.path.unlink()
        self.assertFalse((self.top / "nowhere").exists())
        self.unchanged()

    def test_other_kinds(self) -> None:
        """A FIFO, a socket or a folder is no file; none of them blocks."""
        os.mkfifo(self.path)
        self.refuses(self.path, "is no regular file", lambda: safely.read(str(self.path)))
        self.refuses(self.path, "is no regular file", self.create)
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(self.path))
        self.assertRaises(OSError, safely.read, str(self.path))
        self.path.unlink()
        self.path.mkdir()
        self.refuses(self.path, "is no regular file", lambda: safely.read(str(self.path)))

    def test_hard_link(self) -> None:
        """Another name of a file is refused where it matters, and only there."""
        self.path.hardlink_to(self.secret)
        self.assertEqual(safely.read(str(self.path)), b"secret")
        self.refuses(
            self.path,
            "has another name",
            lambda: safely.open_file(str(self.path), os.O_RDWR, single=True),
        )

    def test_own_link_on_the_way(self) -> None:
        """A link that only this user could make is followed, relative, absolute and upwards."""
        self.path.write_text("text")
        for target in ("folder", str(self.folder), f"../{self.top.name}/folder"):
            link = self.top / "link"
            link.symlink_to(target)
            self.assertEqual(safely.read(str(link / "file")), b"text")
            link.unlink()

    def test_link_in_a_folder_of_others(self) -> None:
        """A link on the way that stands where others may write is refused by name."""
        self.top.chmod(0o775)
        link = self.top / "link"
        link.symlink_to(self.folder)
        self.refuses(link, "other accounts can change", lambda: safely.read(str(link / "file")))
        self.top.chmod(0o1777)  # a sticky one is as good as an own one
        self.path.touch()
        safely.read(str(link / "file"))

    def test_link_of_another(self) -> None:
        """A link on the way that another account made is refused with its number."""
        self.as_root()
        link = self.top / "link"
        link.symlink_to(self.folder)
        os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
        self.refuses(link, f"uid {STRANGER}", lambda: safely.read(str(link / "file")))

    def test_link_in_a_folder_of_another(self) -> None:
        """Nor does root follow its own link where another account could have moved it."""
        self.as_root()
        os.chown(self.top, STRANGER, STRANGER)
        link = self.top / "link"
        link.symlink_to(self.folder)
        self.refuses(link, "other accounts can change", lambda: safely.open_folder(str(link)))

    def test_circle(self) -> None:
        """Links that lead to each other end in an error."""
        one, two = self.top / "one", self.top / "two"
        one.symlink_to(two)
        two.symlink_to(one)
        self.assertRaises(OSError, safely.open_folder, str(one))

    def test_missing_folders(self) -> None:
        """Folders are made on the way if asked for, and not through a file."""
        os.close(safely.open_folder(str(self.folder / "a/b/c"), make=True))
        self.assertTrue((self.folder / "a/b/c").is_dir())
        self.path.touch()
        for make in (False, True):
            self.assertRaises(
                NotADirectoryError, safely.open_folder, str(self.path / "a"), make=make
            )


class GivingTests(SafelyTestCase):
    """Owners and modes."""

    def give(self, mode: int) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            safely.give(descriptor, str(self.path), -1, -1, mode)
        finally:
            os.close(descriptor)

    def test_hard_link_that_would_change(self) -> None:
        """A file with two names is not changed."""
        self.path.hardlink_to(self.secret)
        self.refuses(self.path, "has another name", lambda: self.give(0o644))
        self.unchanged()

    def test_hard_link_that_is_right(self) -> None:
        """A file that is right may have any number of names, as after ``cp -al``."""
        self.path.hardlink_to(self.secret)
        self.give(0o600)
        self.unchanged()

    def test_mode(self) -> None:
        """A file of one name, and a folder, get their mode."""
        self.path.touch(0o600)
        self.give(0o640)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_tree(self) -> None:
        """Everything in a tree changes hands, and nothing that links in it lead to."""
        self.as_root()
        (self.folder / "below").mkdir()
        (self.folder / "below" / "out").symlink_to(self.top)
        self.path.symlink_to(self.secret)
        os.mkfifo(self.folder / "fifo")
        safely.give_tree(str(self.folder), STRANGER, STRANGER)
        self.unchanged()
        everything = [self.folder, *self.folder.rglob("*")]
        self.assertEqual({each.lstat().st_uid for each in everything}, {STRANGER})
        self.assertEqual(self.top.stat().st_uid, 0)

    def test_tree_with_a_hard_link(self) -> None:
        """A second name of a file elsewhere stops it."""
        self.as_root()
        self.path.hardlink_to(self.secret)
        self.refuses(
            self.path,
            "has another name",
            lambda: safely.give_tree(str(self.folder), STRANGER, STRANGER),
        )
        self.unchanged()


class OwnFolderTests(SafelyTestCase):
    """A private folder in a folder that others may write to."""

    def own(self) -> None:
        parent = os.open(self.folder, os.O_RDONLY)
        try:
            os.close(safely.own_folder(parent, str(self.path)))
        finally:
            os.close(parent)
        found = self.path.lstat()
        self.assertTrue(stat.S_ISDIR(found.st_mode))
        self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (os.geteuid(), 0o700))

    def test_new_and_old(self) -> None:
        """It is made, and used again; one that is open to others is closed."""
        self.own()
        self.path.chmod(0o777)
        self.own()

    def test_in_the_way(self) -> None:
        """A file, a FIFO or a link of that name is removed, and what a link leads to stays."""
        target = self.top / "target"
        target.mkdir(0o755)
        for make in (
            self.path.touch,
            lambda: os.mkfifo(self.path),
            lambda: self.path.symlink_to(target),
            lambda: self.path.symlink_to(self.secret),
            lambda: self.path.hardlink_to(self.secret),
        ):
            make()
            self.own()
            self.path.rmdir()
        self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o755)
        self.unchanged()

    def test_folder_of_another(self) -> None:
        """Another account's folder is removed if it is empty, and else renamed."""
        self.as_root()
        for content in ([], ["q"]):
            self.path.mkdir()
            for name in content:
                (self.path / name).touch()
            os.chown(self.path, STRANGER, STRANGER)
            self.own()
            self.path.rmdir()
            self.assertEqual(len(os.listdir(self.folder)), len(content))
