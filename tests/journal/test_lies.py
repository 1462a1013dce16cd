"""A disk that says it has written and hasn't, or refuses once: what stood there is kept."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal.files import replace_file, replace_files
from ganeti_masterd.journal.rows import ConfigRow, SerialRow
from ganeti_masterd.testing.disk import ForgetfulDisk, Lie
from tests.journal.scene import FILES, Scene, job, put


class ReadBackTests(SynchronousTestCase):
    def test_old_file_stands(self) -> None:
        """A file that doesn't read back as written takes nobody's place."""
        for lie in Lie:
            disk = ForgetfulDisk(["/d"])
            put(disk, "/d/config", b"good")
            disk.lies = [lie]
            error = self.assertRaises(OSError, replace_file, disk, "/d/config", b"newer")
            self.assertEqual(error.errno, errno.EIO)
            self.assertEqual(error.filename, "/d/config.following")
            self.assertEqual(disk.read("/d/config"), b"good")
            self.assertEqual(disk.names("/d"), ["config"])

    def test_none_of_several(self) -> None:
        """All are read back before one is renamed."""
        disk = ForgetfulDisk(["/d"])
        put(disk, "/d/1", b"good")
        steps = replace_files(disk, [("/d/1", b"newer"), ("/d/2", b"other")])
        next(steps)
        disk.lies = [Lie.WRONG]
        self.assertRaises(OSError, list, steps)
        self.assertEqual((disk.read("/d/1"), disk.names("/d")), (b"good", ["1"]))


class ReplayTests(SynchronousTestCase):
    """A start on a disk that lies, or refuses, at any of its effects; and the one after it."""

    def left(self) -> Scene:
        scene = Scene()
        put(scene.disk, FILES.serial, b"3\n")
        put(scene.disk, FILES.job(1), job(1, 0).body)
        scene.open()
        scene.journal.commit(
            [SerialRow(9), ConfigRow("", "v", b"1"), job(1, 1), job(2, 2), job(3, 1, archived=True)]
        )
        scene.thread.run()
        scene.disk.crash(lambda n: n - 1)
        return scene

    def held(self, scene: Scene) -> list[bytes | None]:
        read = scene.disk.read
        return [
            read(FILES.config),
            read(FILES.serial),
            read(FILES.job(1)),
            read(FILES.job(2)),
            read(FILES.archived_job(3)),
        ]

    def after(self) -> list[bytes | None]:
        scene = self.left()
        scene.recover()
        return self.held(scene)

    def test_refused(self) -> None:
        """Wherever an effect fails, nothing is lost: the next start has it all."""
        expected = self.after()
        for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            effects = failed = 0
            while failed == effects:
                scene = self.left()
                before = self.held(scene)
                scene.power.fail_after(effects, OSError(number, os.strerror(number)))
                effects += 1
                try:
                    scene.recover()
                except OSError as error:
                    self.assertEqual(error.errno, number)
                    failed += 1
                for now, old, new in zip(self.held(scene), before, expected, strict=True):
                    self.assertIn(now, (old, new))
                scene.power.fail_after(0, None)
                scene.recover()
                self.assertEqual(self.held(scene), expected)
            self.assertGreater(failed, 15)

    def test_lied_to(self) -> None:
        """Whichever file is not what was written, it never gets its name, and the rows stay."""
        expected = self.after()
        for lie in Lie:
            for writes in range(5):
                scene = self.left()
                before = self.held(scene)
                scene.disk.lies = [*[None] * writes, lie]
                self.assertRaises(OSError, scene.recover)
                for now, old, new in zip(self.held(scene), before, expected, strict=True):
                    self.assertIn(now, (old, new))
                self.assertEqual(len(scene.store.load()), 5)
                scene.recover()
                self.assertEqual(self.held(scene), expected)
