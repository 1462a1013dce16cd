"""The questions to a candidate, the states sent to it, and the calls that send them."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, SerialRow
from ganeti_masterd.replication.calls import calls_for
from ganeti_masterd.replication.comparison import (
    FURTHER,
    MOST,
    SLICE,
    CandidateComparison,
    difference,
    lowest_held,
    sha1,
)
from ganeti_masterd.replication.standing import TABLE, CandidateStanding, step
from ganeti_masterd.replication.states import (
    ArchiveMove,
    ConfigFile,
    DrainFlag,
    JobFile,
    SerialFile,
    states_of,
)
from ganeti_masterd.rpc.calls import CALLS
from tests.replication.model import FILES, Bytes

CONFIG = ConfigFile(Bytes(b"config"))


def body(job_id: int, *, ended: bool = False) -> bytes:
    return json.dumps({"id": job_id, "end_timestamp": [1, 0] if ended else None}).encode()


class ComparisonTests(SynchronousTestCase):
    def compared(self, files: dict[str, bytes], highest: int, slice_: int) -> list[list[str]]:
        """Makes a whole comparison; returns the files of each question."""
        self.held = CandidateComparison(FILES, highest, slice_=slice_)
        asked = []
        while not self.held.complete:
            asked.append(self.held.paths())
            found = {path: sha1(files[path]) for path in asked[-1] if path in files}
            self.held.found(found)
        return asked

    def test_slices(self) -> None:
        """All ids up to half a slice beyond the highest are asked for."""
        asked = self.compared({}, 5, 4)
        self.assertEqual(asked[0], [FILES.serial, FILES.config, *map(FILES.job, range(1, 5))])
        self.assertEqual(asked[1], [*map(FILES.job, range(5, 9))])
        self.assertEqual(len(asked), 2)
        self.assertEqual((self.held.serial, self.held.config, self.held.jobs), (None, None, {}))

    def test_ahead(self) -> None:
        """If a candidate has jobs above the highest id, questions go on until there are no more."""
        files = {FILES.job(job_id): b"{}" for job_id in (3, 7, 11)}
        self.assertEqual(len(self.compared(files, 2, 4)), 4)
        self.assertEqual(list(self.held.jobs), [3, 7, 11])

    def test_lowest(self) -> None:
        """A million ids given cost nothing where the candidate can't have files of them."""
        lowest = lowest_held([999_990, 999_995], 1_000_100)
        self.assertEqual(lowest, 1_000_100 - SLICE)
        self.held = CandidateComparison(FILES, 1_000_100, lowest=lowest)
        turns = 0
        while not self.held.complete:
            asked = self.held.paths()
            self.assertEqual(asked[:2] == [FILES.serial, FILES.config], turns == 0)
            self.held.found({FILES.serial: "s", FILES.config: "c"} if turns == 0 else {})
            turns += 1
        self.assertEqual((turns, self.held.serial, self.held.config), (2, "s", "c"))
        self.assertEqual(lowest_held([7], 1_000_100), 7)
        self.assertEqual(lowest_held([], 5), 1)

    def test_strays(self) -> None:
        """Files above all ids, however many, and an id beyond all reason, come to an end."""
        self.held = CandidateComparison(FILES, 10, slice_=4)
        turns = 0
        while not self.held.complete:
            self.held.found(dict.fromkeys(self.held.paths(), "x"))
            turns += 1
        self.assertLessEqual(turns, FURTHER + 4)
        self.held = CandidateComparison(FILES, 10**18 - 1, slice_=MOST // 10)
        turns = 0
        while not self.held.complete:
            self.held.found({})
            turns += 1
        self.assertLessEqual(turns, 12)

    def test_difference(self) -> None:
        """Differences are sent, serial and configuration first, moves last; and the drain flag."""
        files = {
            FILES.serial: b"9\n",
            FILES.config: b"other",
            FILES.job(1): body(1, ended=True),
            FILES.job(2): body(2),
            FILES.job(4): body(4),
            FILES.job(5): body(5),
            FILES.job(6): body(6, ended=True),
        }
        self.compared(files, 9, 50)
        live = {1: body(1, ended=True), 2: body(2, ended=True), 3: body(3)}
        states = difference(
            self.held,
            serial=9,
            drained=True,
            config=CONFIG,
            jobs=live,
            body=live.__getitem__,
            archived={4: body(4, ended=True), 6: body(6, ended=True)},
        )
        self.assertEqual(
            states,
            [
                DrainFlag(True),
                CONFIG,
                JobFile(2, body(2, ended=True), True),
                JobFile(3, body(3), False),
                JobFile(4, body(4, ended=True), True),
                *map(ArchiveMove, (4, 5, 6)),
            ],
        )


class CallTests(SynchronousTestCase):
    def test_calls(self) -> None:
        """Each state becomes a call of noded's; all moves become one."""
        states = [
            SerialFile(7),
            DrainFlag(True),
            CONFIG,
            JobFile(1, b"{}", False),
            ArchiveMove(2),
            ArchiveMove(10001),
        ]
        calls = calls_for(states, FILES)
        for procedure, arguments in calls:
            CALLS[procedure].check(arguments)
        self.assertEqual(
            calls,
            [
                ("jobqueue_update", [FILES.serial, [0, "7\n"]]),
                ("jobqueue_set_drain_flag", [True]),
                (
                    "upload_file_single",
                    [FILES.config, [0, "config"], 33184, "gnt-masterd", "gnt-confd", None, None],
                ),
                ("jobqueue_update", [FILES.job(1), [0, "{}"]]),
                (
                    "jobqueue_rename",
                    [[[FILES.job(n), FILES.archived_job(n)] for n in (2, 10001)]],
                ),
            ],
        )

    def test_states_of_a_commit(self) -> None:
        """A commit's serial is first, its configuration next, then its jobs in their order."""
        rows = [
            JobRow(5, body(5)),
            LogRow(4, 0, b"[]"),
            ConfigRow("cluster", "", b"{}"),
            JobRow(4, body(4, ended=True)),
            JobRow(3, body(3, ended=True), archived=True),
            SerialRow(9),
        ]
        serial, config, *jobs = states_of(rows, lambda: Bytes(b"new"))
        self.assertEqual(serial, SerialFile(9))
        assert isinstance(config, ConfigFile)
        self.assertEqual(config.content, b"new")
        self.assertEqual(
            jobs,
            [JobFile(5, body(5), False), JobFile(4, body(4, ended=True), True), ArchiveMove(3)],
        )

    def test_made_ready_once(self) -> None:
        """A configuration is prepared once for any number of candidates."""
        images = [b"only once"]

        class Image:
            serial_no = 1

            def encode(self) -> bytes:
                return images.pop()

            def size(self) -> int:
                return len(images[0])

            def compressed(self) -> str:
                raise AssertionError("it is short")

        config = ConfigFile(Image())
        self.assertFalse(config.ready)
        self.assertEqual(config.travelling, [0, "only once"])
        self.assertTrue(config.ready)
        self.assertIs(config.travelling, config.travelling)
        self.assertFalse(config.large)


class StandingTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Every standing is in the table, and only the steps in it are allowed."""
        self.assertEqual(set(TABLE), set(CandidateStanding))
        for before in CandidateStanding:
            for after in CandidateStanding:
                if after in TABLE[before][1]:
                    self.assertIs(step(before, after), after)
                else:
                    self.assertRaises(ProgrammerError, step, before, after)
