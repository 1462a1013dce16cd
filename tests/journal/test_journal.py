"""The open journal: group commit, order, failures, rounds of following, a clean close."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import DaemonStopping, JobQueueError
from ganeti_masterd.events import Committed, Events
from ganeti_masterd.journal import journal as journal_module
from ganeti_masterd.journal.following import KNOWN_DIRECTORIES
from ganeti_masterd.journal.interfaces import IDisk, IJournal
from ganeti_masterd.journal.rounds import FollowingPace
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, SerialRow
from ganeti_masterd.testing.journal import MemoryJournal
from tests.journal.scene import FILES, Scene, job

FULL = OSError(errno.ENOSPC, "No space left on device")

#: Seconds until files follow.
PAUSE = FollowingPace().pause


class JournalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.scene = Scene()
        self.journal = self.scene.open()
        self.disk, self.store, self.thread = self.scene.disk, self.scene.store, self.scene.thread
        self.told: list[Any] = []

    def commit(self, *rows: Any, name: str | None = None) -> Deferred[None]:
        label = name if name is not None else f"row {len(rows)}"
        done = self.journal.commit(rows, lambda: self.told.append(f"publish {label}"))
        done.addBoth(lambda result: self.told.append((label, result)) or result)
        return done

    def commit_during_a_round(self) -> None:
        """Commits job 2 while a round that has job 1 is under way."""
        self.commit(job(1))
        self.thread.run()
        self.scene.clock.advance(PAUSE)
        self.thread.step()
        self.commit(job(2))


class CommitTests(JournalTestCase):
    def test_interface(self) -> None:
        """Both journals are journals."""
        verifyObject(IJournal, self.journal)
        verifyObject(IJournal, MemoryJournal())

    def test_durable_before_published(self) -> None:
        """Nothing is published until the store has it."""
        done = self.commit(job(1))
        self.assertNoResult(done)
        self.assertEqual(self.told, [])
        self.thread.step()
        self.successResultOf(done)
        self.assertEqual(len(self.store.load()), 1)

    def test_group(self) -> None:
        """What gathers behind a batch is one transaction, published in order, then told."""
        appended: list[int] = []
        append = self.store.append
        self.store.append = lambda entries: (appended.append(len(entries)), append(entries))
        for n in range(1, 5):
            self.commit(job(n), name=str(n))
        self.thread.step()
        self.thread.step()
        self.assertEqual(appended, [1, 3])
        self.assertEqual(
            self.told[2:],
            ["publish 2", "publish 3", "publish 4", ("2", None), ("3", None), ("4", None)],
        )

    def test_answers_commit_together(self) -> None:
        """What callers commit as they are answered goes in one batch."""
        for n in range(1, 4):
            self.journal.commit([job(n)]).addCallback(
                lambda _, n=n: self.journal.commit([job(n, 2)])
            )
        self.thread.step()
        self.thread.step()
        before = len(self.store.load())
        self.thread.step()
        self.assertEqual((before, len(self.store.load())), (4, 6))

    def test_no_rows(self) -> None:
        """A commit without rows is published in its place all the same."""
        self.commit(job(1), name="a")
        self.commit(name="b")
        self.thread.run()
        self.assertEqual(self.told[1::2], [("a", None), ("b", None)])

    def test_publish_that_raises(self) -> None:
        """It is logged; its commit and the others are as durable as ever."""
        done = self.journal.commit([job(1)], lambda: 1 // 0)
        other = self.commit(job(2), name="b")
        self.thread.run()
        self.successResultOf(done)
        self.successResultOf(other)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_event(self) -> None:
        """Each transaction is an event, where anyone looks."""
        events, seen = Events(), []
        events.subscribe(Committed, seen.append)
        journal = self.scene.open(events=events)
        journal.commit([job(1), job(2)])
        self.scene.thread.run()
        self.assertEqual([event.rows for event in seen], [2])

    def test_reserved(self) -> None:
        """The reserved serial moves when it is durable, and never back."""
        self.commit(SerialRow(10))
        self.assertEqual(self.journal.reserved, 0)
        self.thread.run()
        self.assertEqual(self.journal.reserved, 10)
        self.commit(SerialRow(5))
        self.thread.run()
        self.assertEqual(self.journal.reserved, 10)
        self.assertEqual(self.scene.open().reserved, 10)


class FailureTests(JournalTestCase):
    def test_all_pending_fail(self) -> None:
        """A refusal fails the batch and all behind it: rolled back once, nothing published."""
        self.journal.on_rollback(lambda: self.told.append("rollback"))
        first, second = self.commit(job(1), name="a"), self.commit(job(2), name="b")
        self.store.fault = FULL
        self.thread.step()
        self.assertEqual(self.told[0], "rollback")
        self.assertEqual(len(self.told), 3)
        for done in (first, second):
            error = self.failureResultOf(done, JobQueueError).value
            self.assertIn("No space left on device", str(error))
        self.assertEqual((len(self.store.load()), self.journal.backlog), (0, 0))

    def test_usable_afterwards(self) -> None:
        """The next commit tries again, also one made as a failure is told."""
        again: list[Deferred[None]] = []

        def retry(failure: Any) -> None:
            self.store.fault = None
            again.append(self.commit(job(2, 2), name="c"))

        self.store.fault = FULL
        self.commit(job(1)).addErrback(retry)
        self.thread.run()
        self.successResultOf(again[0])
        self.assertEqual([entry.job_id for entry in self.store.load().jobs], [2])

    def test_rollback_that_raises(self) -> None:
        """It is logged; the other rollbacks run and the commits fail in order."""
        self.journal.on_rollback(lambda: 1 // 0)
        self.journal.on_rollback(lambda: self.told.append("rollback"))
        self.store.fault = FULL
        self.failureResultOf_after(self.commit(job(1)))
        self.assertIn("rollback", self.told)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unexpected_fault(self) -> None:
        """A fault of the code fails commits like the disk's, with a traceback in the log."""
        self.store.fault = RuntimeError("a bug")
        self.failureResultOf_after(self.commit(job(1)))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_chain_after_failure(self) -> None:
        """A failed row is no link: the next one replaces what was committed before."""
        self.commit(job(1, 1))
        self.thread.run()
        self.store.fault = FULL
        self.failureResultOf_after(self.commit(job(1, 2)))
        self.store.fault = None
        self.commit(job(1, 3))
        self.thread.run()
        first, last = self.store.load().jobs
        self.assertEqual(last.base, first.made)

    def failureResultOf_after(self, done: Deferred[None]) -> None:
        self.thread.run()
        self.failureResultOf(done, JobQueueError)


class EffectTests(JournalTestCase):
    def test_after_commits(self) -> None:
        """An effect runs after every commit made before it, with the disk."""
        order: list[str] = []
        append = self.store.append
        self.store.append = lambda entries: (order.append("commit"), append(entries))
        self.commit(job(1))
        self.commit(job(2))

        def effect(disk: IDisk, path: str) -> bytes | None:
            order.append("effect")
            disk.write(path, b"there", 0o600)
            return disk.read(path)

        done = self.journal.effect(effect, "/queue/x")
        self.commit(job(3))
        self.thread.run()
        self.assertEqual(order[:3], ["commit", "commit", "effect"])
        self.assertEqual(self.successResultOf(done), b"there")
        self.assertEqual(self.disk.read("/queue/x"), b"there")

    def test_alone(self) -> None:
        """Without commits an effect runs at once."""
        done = self.journal.effect(lambda disk: disk.names("/queue"))
        self.thread.step()
        self.assertEqual(self.successResultOf(done), [])

    def test_fault(self) -> None:
        """An effect that fails, fails its caller with what it raised."""
        done = self.journal.effect(lambda disk: disk.sync("/none"))
        self.thread.run()
        self.failureResultOf(done, FileNotFoundError)

    def test_after_failed_commits(self) -> None:
        """An effect behind commits that fail runs all the same."""
        self.store.fault = FULL
        failed = [self.commit(job(1)), self.commit(job(2))]
        done = self.journal.effect(lambda disk: "ran")
        self.thread.run()
        for commit in failed:
            self.failureResultOf(commit, JobQueueError)
        self.assertEqual(self.successResultOf(done), "ran")


class FollowingTests(JournalTestCase):
    def follow(self, seconds: float = 1.0) -> None:
        self.scene.run(seconds)

    def test_files(self) -> None:
        """The files take over serial, configuration, jobs, archive; the journal is empty then."""
        self.scene.config = {"v": 1}
        rows = [SerialRow(8), ConfigRow("", "v", b"1"), job(1), job(2), job(3, archived=True)]
        self.commit(*rows)
        self.follow()
        self.assertEqual(self.disk.names("/queue"), ["archive", "job-1", "job-2", "serial"])
        self.assertEqual(self.disk.read(FILES.serial), b"8\n")
        self.assertEqual(self.disk.read(FILES.config), b'{"v":1}')
        self.assertEqual(self.disk.read("/queue/job-1"), rows[2].body)
        self.assertEqual(self.disk.read("/queue/archive/0/job-3"), rows[4].body)
        self.assertEqual((len(self.store.load()), self.journal.backlog), (0, 0))

    def test_order(self) -> None:
        """Serial, config.data, jobs, archive moves, each synced; the rows go last."""
        self.commit(job(3))
        self.follow()
        order: list[str] = []
        for name in ("write", "sync", "rename", "sync_directory", "unlink"):
            method = getattr(self.disk, name)

            def recorded(*arguments: Any, name: str = name, method: Any = method) -> None:
                order.append(f"{name} {arguments[0]}")
                method(*arguments)

            setattr(self.disk, name, recorded)
        followed = self.store.followed
        self.store.followed = lambda *args: (order.append("rows"), followed(*args))
        self.commit(job(3, archived=True), job(2), ConfigRow("", "v", b"1"), SerialRow(3))
        self.follow()
        self.assertEqual(
            [line.replace(".following", "+") for line in order],
            [
                *("write /queue/serial+", "sync /queue/serial+", "rename /queue/serial+"),
                "sync_directory /queue",
                *("write /etc/config.data+", "sync /etc/config.data+", "rename /etc/config.data+"),
                "sync_directory /etc",
                *("write /queue/job-2+", "sync /queue/job-2+", "rename /queue/job-2+"),
                "sync_directory /queue/archive",
                "rename /queue/job-3",
                *("sync_directory /queue/archive/0", "sync_directory /queue", "rows"),
            ],
        )

    def test_coalesced(self) -> None:
        """Quick changes of a job become one file, the last one."""
        for n in range(5):
            self.commit(job(1, n))
            self.thread.run()
        self.assertIsNone(self.disk.read("/queue/job-1"))
        self.assertEqual(self.journal.backlog, 5)
        before = self.scene.power.effects
        self.follow(PAUSE)
        self.assertEqual(self.disk.read("/queue/job-1"), job(1, 4).body)
        # write, sync, rename, directory, rows (counted before and after)
        self.assertEqual(self.scene.power.effects - before, 6)

    def test_configuration_once_a_second(self) -> None:
        """While configuration waits for its second, so does every job's file."""
        self.journal = self.scene.open(pace=FollowingPace(pause=0.25))
        self.commit(ConfigRow("", "v", b"1"))
        self.follow(0.25)
        self.assertEqual(self.scene.images, 1)
        self.commit(ConfigRow("", "v", b"2"), job(1))
        self.follow(0.5)
        self.assertEqual(self.scene.images, 1)
        self.assertIsNone(self.disk.read("/queue/job-1"))
        self.follow(0.5)
        self.assertEqual(self.scene.images, 2)
        self.assertEqual(self.disk.read("/queue/job-1"), job(1).body)

    def test_configuration_that_comes_while_a_round_is_planned(self) -> None:
        """A round already planned sooner waits for the configuration's second too."""
        self.journal = self.scene.open(pace=FollowingPace(pause=0.25))
        self.commit(ConfigRow("", "v", b"1"))
        self.follow(0.25)
        self.commit(job(1))
        self.thread.run()
        self.commit(ConfigRow("", "v", b"2"), job(1, 1))
        self.follow(0.26)
        self.assertEqual((self.scene.images, self.disk.read("/queue/job-1")), (1, None))
        self.follow(1.0)
        self.assertEqual((self.scene.images, self.journal.backlog), (2, 0))

    def test_commits_go_between_files(self) -> None:
        """A commit during a round waits for one file, not for the round."""
        self.commit(*[job(n) for n in range(1, 50)])
        self.thread.run()
        self.scene.clock.advance(PAUSE)
        for _ in range(5):
            self.thread.step()
        done = self.commit(job(50))
        self.thread.step()
        self.successResultOf(done)
        self.assertNotIn("job-49", self.disk.names("/queue"))

    def test_share_of_files_far_behind(self) -> None:
        """Files that are far behind follow though commits never cease."""
        self.patch(journal_module, "BEHIND", 20)
        self.commit(*[job(n) for n in range(1, 30)])
        self.thread.run()
        self.scene.clock.advance(PAUSE)
        for turn in range(60):
            self.commit(job(100 + turn))
            while self.journal._flying is not None:
                self.thread.step()  # as if the next commit were always there before a step
        self.assertIn("job-29", self.disk.names("/queue"))

    def test_newer_rows_stay(self) -> None:
        """What is committed during a round is not dropped with it."""
        self.commit(job(1, 1))
        self.thread.run()
        self.scene.clock.advance(PAUSE)
        self.commit(job(1, 2), LogRow(1, 0, b'"new"'))
        self.thread.run()
        self.assertEqual(self.journal.backlog, 2)
        self.assertEqual(len(self.store.load()), 2)

    def test_log_lines(self) -> None:
        """Log lines write no file, and stay until their job's next row is in its file."""
        self.commit(job(1), LogRow(1, 0, b'"a"'))
        self.commit(LogRow(2, 0, b'"b"'))
        self.follow()
        self.assertEqual([line.job_id for line in self.store.load().logs], [1, 2])
        self.assertEqual(self.journal.backlog, 2)
        self.commit(job(1, 1))
        self.thread.run()
        self.scene.clock.advance(PAUSE)
        self.commit(LogRow(1, 0, b'"later"'))
        self.thread.run()
        self.assertEqual([line.entry for line in self.store.load().logs], [b'"b"', b'"later"'])
        self.assertEqual(self.journal.backlog, 2)

    def test_archived_with_another_body(self) -> None:
        """An archived row that says more than the file is written anew."""
        self.commit(job(1))
        self.follow()
        self.commit(job(1, 2, archived=True))
        self.follow()
        self.assertEqual(self.disk.read("/queue/archive/0/job-1"), job(1, 2).body)
        self.assertIsNone(self.disk.read("/queue/job-1"))

    def test_fault(self) -> None:
        """While files can't follow, commits go on; a later round makes all good."""
        self.disk.faults["write"] = FULL
        self.commit(job(1, 1), job(2, 1), SerialRow(5))
        self.follow()
        self.assertEqual(self.journal.backlog, 3)
        self.assertIn("OSError", self.journal.files_fault or "")
        self.disk.faults.clear()
        done = self.commit(job(1, 2))
        self.follow(3.9)
        self.successResultOf(done)
        self.assertEqual((self.journal.backlog, self.disk.names("/queue")), (4, []))
        self.follow(1.1)
        self.assertEqual((self.journal.backlog, self.journal.files_fault), (0, None))
        self.assertEqual(self.disk.read("/queue/job-1"), job(1, 2).body)
        self.assertEqual(self.disk.read("/queue/job-2"), job(2, 1).body)
        self.assertEqual(self.disk.read("/queue/serial"), b"5\n")

    def test_fault_in_the_image(self) -> None:
        """A configuration that can't be had is a fault like the disk's."""
        self.patch(self.scene, "image", None)
        journal = self.journal
        journal.config_from(lambda: 1 // 0)
        self.commit(ConfigRow("", "v", b"1"))
        self.follow()
        self.assertEqual(journal.backlog, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        journal.config_from(Scene().image)
        self.follow(5.0)
        self.assertEqual(journal.backlog, 0)

    def test_fault_in_the_plan(self) -> None:
        """Whoever commits is told though no round can be planned; the next one has all."""

        def broken() -> None:
            raise ValueError("no plan")

        plan = self.journal._rounds._plan
        self.patch(self.journal._rounds, "_plan", broken)
        first = self.commit(job(1))
        self.thread.run()
        self.successResultOf(first)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.patch(self.journal._rounds, "_plan", plan)
        second = self.commit(job(2))
        self.follow(PAUSE)
        self.successResultOf(second)
        self.assertEqual(self.disk.names("/queue"), ["job-1", "job-2"])

    def test_many_archive_directories(self) -> None:
        """Of the archive's directories no more than some are remembered, and all are durable."""
        count = 2 * KNOWN_DIRECTORIES + 1
        for number in range(count):
            job_id = 10_000 * number + 1
            self.commit(job(job_id))
            self.commit(job(job_id, archived=True))
            self.follow()
        known = self.journal._writing._follower._durable_directories
        self.assertLessEqual(len(known), KNOWN_DIRECTORIES)
        self.scene.disk.crash(lambda versions: 0)
        for number in range(count):
            path = FILES.archived_job(10_000 * number + 1)
            self.assertIsNotNone(self.scene.disk.read(path), path)

    def test_pace(self) -> None:
        """The pauses are options."""
        journal = self.scene.open(pace=FollowingPace(pause=3.0))
        journal.commit([job(1)])
        self.scene.run(2.9)
        self.assertEqual(journal.backlog, 1)
        self.scene.run(0.2)
        self.assertEqual(journal.backlog, 0)


class SettleTests(JournalTestCase):
    def test_nothing(self) -> None:
        """With nothing to follow it fires at once."""
        self.successResultOf(self.journal.settle())

    def test_pending_commits(self) -> None:
        """It waits for commits made before it, and hurries."""
        self.commit(job(1))
        self.commit(job(2), ConfigRow("", "v", b"1"))
        done = self.journal.settle()
        self.assertNoResult(done)
        self.thread.run()
        self.successResultOf(done)
        self.assertEqual(self.disk.read("/queue/job-2"), job(2).body)

    def test_failed_commits(self) -> None:
        """A commit that fails is none that it waits for."""
        self.store.fault = FULL
        self.commit(job(1)).addErrback(lambda failure: None)
        done = self.journal.settle()
        self.thread.run()
        self.successResultOf(done)

    def test_during_a_round(self) -> None:
        """What is committed during a round is in the next one, which it waits for."""
        self.commit_during_a_round()
        done = self.journal.settle()
        self.thread.run()
        self.successResultOf(done)
        self.assertEqual(self.disk.read("/queue/job-2"), job(2).body)

    def test_fault(self) -> None:
        """It waits out a disk that refuses."""
        self.disk.faults["sync"] = FULL
        self.commit(job(1))
        done = self.journal.settle()
        self.scene.run(1.0)
        self.assertNoResult(done)
        self.disk.faults.clear()
        self.scene.run(5.0)
        self.successResultOf(done)


class CloseTests(JournalTestCase):
    def test_clean(self) -> None:
        """What is pending is committed, the files follow, the serial is exact, the thread ends."""
        self.scene.serial = 4
        self.commit(SerialRow(100))
        commit = self.commit(job(4), ConfigRow("", "v", b"1"))
        done = self.journal.close()
        self.thread.run()
        self.successResultOf(commit)
        self.successResultOf(done)
        self.assertEqual(self.disk.read(FILES.serial), b"4\n")
        self.assertEqual(self.disk.read("/queue/job-4"), job(4).body)
        self.assertEqual(len(self.store.load()), 0)
        self.assertEqual(self.scene.open().reserved, 4)
        self.assertEqual(self.scene.clock.getDelayedCalls(), [])

    def test_open_log_lines(self) -> None:
        """Log lines that no row superseded go into their job's file."""
        self.commit(job(1), LogRow(1, 0, b'"a"'))
        self.scene.run(1.0)
        done = self.journal.close()
        self.thread.run()
        self.successResultOf(done)
        self.assertEqual(self.disk.read("/queue/job-1"), JobRow(1, b'{"n":0,"log":["a"]}').body)
        self.assertEqual(len(self.store.load()), 0)

    def test_nothing_after(self) -> None:
        """After close everything is refused as the daemon stops; another close is told with it."""
        done, twice = self.journal.close(), self.journal.close()
        for refused in (
            self.journal.commit([job(1)]),
            self.journal.effect(lambda disk: None),
            self.journal.settle(),
        ):
            self.failureResultOf(refused, DaemonStopping)
        self.thread.run()
        for closed in (done, twice, self.journal.close()):
            self.successResultOf(closed)

    def test_serial_unknown(self) -> None:
        """Where the last id can't be had, serial stays as reserved."""
        self.commit(SerialRow(100))
        self.journal.serial_from(lambda: 1 // 0)
        done = self.journal.close()
        self.thread.run()
        self.successResultOf(done)
        self.assertEqual(self.disk.read(FILES.serial), b"100\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_files_cannot_follow(self) -> None:
        """It ends all the same, says so, and the rows are there at the next start."""
        self.disk.faults["write"] = FULL
        self.commit(job(1))
        settled = self.journal.settle()
        self.scene.run(1.0)
        done = self.journal.close()
        self.thread.run()
        self.failureResultOf(settled, JobQueueError)
        error = self.failureResultOf(done, JobQueueError).value
        self.assertIn("No space left on device", str(error))
        self.failureResultOf(self.journal.close(), JobQueueError)
        self.assertEqual(len(self.store.load()), 1)
        self.disk.faults.clear()
        self.scene.open()
        self.assertEqual(self.disk.read("/queue/job-1"), job(1).body)

    def test_commit_fails(self) -> None:
        """A commit that fails at the end does not keep the journal open."""
        self.store.fault = FULL
        commit = self.commit(job(1))
        done = self.journal.close()
        self.thread.step()
        self.store.fault = None
        self.failureResultOf(commit, JobQueueError)
        self.thread.run()
        self.successResultOf(done)

    def test_during_a_round(self) -> None:
        """A round under way is finished, and what came behind it follows."""
        self.commit_during_a_round()
        done = self.journal.close()
        self.thread.run()
        self.successResultOf(done)
        self.assertEqual(self.disk.names("/queue"), ["job-1", "job-2"])
