"""Whatever lies in the queue's folder: a start takes it, skips it or refuses it by its name."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.jobs import files, model
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job, OpState, decode_job_of, merge_log
from ganeti_masterd.jobs.restart import restore
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.journal.disk import NotAFile, RealDisk, read_file
from ganeti_masterd.journal.layout import QueueFiles, job_number
from ganeti_masterd.journal.recovery import Identity, recover
from tests.examples import examples
from tests.jobs.scene import QueueScene

NOOP = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "reason": []}

NUMBERS = st.one_of(
    st.integers(0, 30_000).map(str),
    st.sampled_from(
        [
            "007",
            "00",
            "-1",
            "+1",
            "1_0",
            " 1",
            "1 ",
            "²",
            "\u0667",
            "\u0967\u0968",
            "1.0",
            "inf",
            "",
        ]
    ),
    st.sampled_from(["9" * 17, "9" * 18, "9" * 19, "9" * 70, "1e3", "0x1"]),
)
JOBS = NUMBERS.map(lambda number: f"job-{number}")
NAMES = st.one_of(
    JOBS,
    JOBS.map(lambda name: f"{name}.following"),
    JOBS.map(lambda name: f"{name}.corrupt"),
    st.sampled_from(["serial", "serial.following", "drain", "version", "x.following"]),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
    ).filter(lambda name: name not in (".", "..")),
)
PLACES = st.one_of(
    NAMES,
    NUMBERS.filter(bool).map(lambda number: f"archive/{number}"),
    st.tuples(NUMBERS.filter(bool), NAMES).map(lambda parts: f"archive/{parts[0]}/{parts[1]}"),
    st.just("archive"),
)
KINDS = st.sampled_from(["job", "rubbish", "empty", "folder", "pipe", "nowhere", "circle"])


def body(job_id: int) -> bytes:
    return model.encode_job(Job(id=job_id, ops=(OpState(input=NOOP, status="queued"),)))


def put(path: str, kind: str) -> bool:
    """Puts something there, unless something is; returns whether it did."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            return False
        match kind:
            case "folder":
                os.mkdir(path)
            case "pipe":
                os.mkfifo(path)
            case "nowhere":
                os.symlink(path + "-that-is-not-there", path)
            case "circle":
                os.symlink(path, path)
            case _:
                number = job_number(os.path.basename(path))
                content = {"empty": b"", "rubbish": b"\xff{"}.get(kind)
                with open(path, "xb") as file:
                    file.write(
                        body(1 if number is None else number) if content is None else content
                    )
        return True
    return False


class NamesTests(QueueScene):
    def setUp(self) -> None:
        super().setUp()
        self.top = os.path.realpath(self.mktemp())

    @contextlib.contextmanager
    def fresh(self) -> Iterator[QueueFiles]:
        os.makedirs(f"{self.top}/queue")
        try:
            yield QueueFiles(f"{self.top}/queue", f"{self.top}/config.data")
        finally:
            shutil.rmtree(self.top)

    def test_whatever_is_there(self) -> None:
        """Each job's file is taken, nothing else is read or moved, no start hangs or breaks."""

        @settings(
            max_examples=examples(150, 5000),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(st.tuples(PLACES, KINDS), max_size=6))
        def check(things: list[tuple[str, str]]) -> None:
            with self.fresh() as where:
                there = {
                    place: kind for place, kind in things if put(f"{where.queue}/{place}", kind)
                }
                self.start(where, there)

        check()

    def start(self, where: QueueFiles, there: dict[str, str]) -> None:
        folder = QueueFolder(where.queue)
        disk = RealDisk()
        self.folder = folder
        self.make_queue()
        try:
            recover(
                f"{self.top}/masterd/journal.db",
                identity=Identity("c", "m"),
                files=where,
                disk=disk,
                merge_log=merge_log,
                check_job=decode_job_of,
                merge_config=lambda content, rows: content,
                now=lambda: 0.0,
            ).store.close()
            loaded = files.load(folder)
            files.set_aside(folder, disk, loaded.corrupt)
            self.successResultOf(restore(self.queue, loaded, own=True))
        except (JobQueueError, OSError) as error:
            named = str(error) if isinstance(error, JobQueueError) else error.filename
            self.assertTrue(any(f"{where.queue}/{place}" in named for place in there), error)
            return
        finally:
            self.flushLoggedErrors()
        for place, kind in there.items():
            path = f"{where.queue}/{place}"
            number = job_number(place)
            if number is not None:
                self.assertEqual(number in loaded.jobs, kind == "job", place)
                self.assertGreaterEqual(self.queue.last_id, number)
            if kind not in ("job", "rubbish", "empty") and not place.endswith(".following"):
                self.assertTrue(os.path.lexists(path), place)
        for folder_path in folder.archive_folders():
            folder.read_archived(folder.ids_in(folder_path))

    def test_one_spelling(self) -> None:
        """A job has one name; others with its number are nobody's."""
        self.assertEqual(job_number("job-7"), 7)
        for name in ("job-007", "job-\u0667", "job-²", "job-+7", "job-7\n", "job-" + "9" * 19):
            self.assertIsNone(job_number(name), name)

    def test_ids_of_what_is_no_file(self) -> None:
        """A folder with a job's name is left alone, and its id isn't given again."""
        with self.fresh() as where:
            os.mkdir(where.job(77))
            loaded = files.load(QueueFolder(where.queue))
            self.assertEqual((loaded.jobs, loaded.corrupt), ({}, {}))
            self.assertEqual(loaded.strange, {77: where.job(77)})

    def test_a_folder_where_files_are_written(self) -> None:
        """What would stop the files from following is refused by its name, at the start."""
        for name in ("queue/job-3.following", "queue/serial.following", "config.data.following"):
            with self.fresh() as where:
                os.mkdir(f"{self.top}/{name}")
                error = self.assertRaises(
                    JobQueueError,
                    recover,
                    f"{self.top}/masterd/journal.db",
                    identity=Identity("c", "m"),
                    files=where,
                    disk=RealDisk(),
                    merge_log=merge_log,
                    check_job=decode_job_of,
                    merge_config=lambda content, rows: content,
                    now=lambda: 0.0,
                )
                self.assertIn(f"{self.top}/{name}", str(error))

    def test_archive_of_other_numbers(self) -> None:
        """A folder of the archive that holds jobs of another one doesn't hide the last id."""
        with self.fresh() as where:
            put(f"{where.archive}/0/job-12", "job")
            put(f"{where.archive}/99/job-3", "job")
            os.mkdir(f"{where.archive}/0/job-14")
            self.assertEqual(QueueFolder(where.queue).highest_archived(), 14)


class ReadFileTests(SynchronousTestCase):
    def test_only_files(self) -> None:
        """A pipe, a folder, a device are refused at once; a link to a file is followed."""
        top = self.mktemp()
        os.mkdir(top)
        os.mkfifo(f"{top}/pipe")
        for path in (top, f"{top}/pipe", "/dev/zero"):
            self.assertRaises(NotAFile, read_file, path)
            self.assertRaises(NotAFile, RealDisk().read, path)
        with open(f"{top}/file", "wb") as file:
            file.write(b"content")
        os.symlink("file", f"{top}/link")
        self.assertEqual(read_file(f"{top}/link"), b"content")
        self.assertEqual(read_file(f"{top}/file", 3), b"con")


class PauseFileTests(QueueScene):
    def test_what_is_no_time(self) -> None:
        """A pause file that holds no time is logged, and the watcher not paused."""
        self.make_queue()
        path = self.mktemp()
        now = self.queue.timers.now()
        for content in (b"inf", b"-inf", b"nan", b"1e300", b"-5", b"", b"soon", b"\xff", b"9" * 64):
            with open(path, "wb") as file:
                file.write(content)
            self.assertIsNone(Switches(self.queue, path).watcher_pause, content)
        with open(path, "wb") as file:
            file.write(b"%d.5\n" % (now + 9))
        self.assertEqual(Switches(self.queue, path).watcher_pause, int(now) + 9)
        os.unlink(path)
        os.mkfifo(path)
        self.assertIsNone(Switches(self.queue, path).watcher_pause)
        os.unlink(path)
        os.mkdir(path)
        self.assertIsNone(Switches(self.queue, path).watcher_pause)
