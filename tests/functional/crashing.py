"""A daemon that is killed again and again while many clients are at work, and what is left."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from pathlib import Path

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import ledger as books
from tests.functional.ledger import FINAL, Ledger
from tests.functional.load import Client
from tests.functional.waiting import job_is, jobs_end

#: How long a daemon may serve before it is killed, and may start before it is, seconds.
LIFE = (0.05, 1.6)
BIRTH = (0.0, 0.9)


class Crashes:
    """Kills one daemon many times and checks after each start that it kept its promises.

    ``daemon`` must log its simulated nodes' calls as ``synced``. Everything
    random comes from ``seed``, but for the moment at which a kill strikes.
    """

    def __init__(self, daemon: DaemonProcess, seed: int, clients: int = 4) -> None:
        self.daemon = daemon
        self.ledger = Ledger(pauses={None})
        self.kills = 0
        self.answered = 0
        self._random = random.Random(seed)
        self._clients = clients
        self._settled: set[int] = set()
        self._queue = Path(daemon.paths.queue)
        self._config = Path(daemon.paths.config)
        self._calls = daemon.root / "simulation" / "calls.log"

    def once(self) -> None:
        """One life of the daemon: started, checked, put under load, killed."""
        if self.kills and self._random.random() < 0.25:
            self.daemon.launch()
            time.sleep(self._random.uniform(*BIRTH))
            self._kill()
        self.daemon.start()
        self.check()
        crowd = [
            Client(self.daemon.socket, self._random.getrandbits(32), alone=number == 0)
            for number in range(self._clients)
        ]
        for client in crowd:
            client.start()
        time.sleep(self._random.uniform(*LIFE))
        self._kill()
        for client in crowd:
            client.join()
            self.ledger.add(client.ledger)
            self.answered += client.answered
        self.ledger.killed()
        self._none(books.file_faults(self.ledger, self._queue, self._config))

    def _kill(self) -> None:
        self.daemon.kill()
        self.kills += 1

    def check(self) -> None:
        """Compares what the daemon says with what clients were promised.

        A job that had ended when it was checked before isn't looked at again
        until :meth:`finish`.
        """
        calls = books.calls_in(self._calls)
        with self.daemon.client() as master:
            rows = books.rows_of(master, self.ledger.jobs.keys() - self._settled)
            faults = books.faults_in(self.ledger, rows, calls)
            faults += books.tag_faults(self.ledger, master.query_tags("cluster"))
            (pause,) = master.config_values(["watcher_pause"])
        if pause not in self.ledger.pauses:
            faults.append(f"the watcher's pause is {pause}, not one of {self.ledger.pauses}")
        self._settled |= {job for job, row in rows.items() if row["status"] in FINAL}
        self._none([*self.ledger.faults, *faults])

    def finish(self) -> None:
        """Lets every job end, checks all of them, stops the daemon and checks its files."""
        self.daemon.start()
        self.check()
        with self.daemon.client() as master:
            jobs_end(master, 60.0)
            last = master.submit_job([{"OP_ID": "OP_TEST_DELAY", "duration": 0.001}])
            job_is(master, last, *FINAL)
            rows = books.rows_of(master, self.ledger.jobs)
            calls = books.calls_in(self._calls)
            faults = books.faults_in(self.ledger, rows, calls)
            faults += books.run_faults(self.ledger, rows, calls)
            faults += books.tag_faults(self.ledger, master.query_tags("cluster"))
            faults += strangers(
                self.ledger, master.query_jobs(None, ["id", "ops", "archived"]), last
            )
        if last <= self.ledger.last_before:
            faults.append(f"job {last} came after job {self.ledger.last_before}")
        self.daemon.stop()
        faults += books.disagreements(rows, self._queue)
        faults += [f"the journal holds {rows}" for rows in journal_rows(self.daemon)]
        if int((self._queue / "serial").read_text("ascii")) != last:
            faults.append(f"after a clean stop serial is not {last}")
        self._none(faults)

    def _none(self, faults: list[str]) -> None:
        text = "\n  ".join([f"after {self.kills} kills, {len(faults)} faults:", *faults[:20]])
        assert not faults, text


def journal_rows(daemon: DaemonProcess) -> list[str]:
    """Returns the kinds of rows that a stopped daemon's journal holds, with how many."""
    with sqlite3.connect(f"file:{daemon.paths.journal}?mode=ro", uri=True) as journal:
        counts = {
            table: journal.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("jobs", "logs", "config", "serials")
        }
    journal.close()
    return [f"{count} {table}" for table, count in counts.items() if count]


def clerk_of(daemon: DaemonProcess) -> int | None:
    """Returns the process that writes the daemon's job files, if there is one."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = path.with_name("cmdline").read_bytes()
            if parent == daemon.pid and b"clerk_process" in command:
                return int(path.parent.name)
    return None


def strangers(ledger: Ledger, jobs: list[list[object]], last: int) -> list[str]:
    """Returns the jobs that no one sent, and those that one request made twice."""
    owner: dict[float, int] = {}
    faults = []
    for job, ops, _ in jobs:
        for op in ops:  # type: ignore[attr-defined]
            if op["OP_ID"] != "OP_TEST_DELAY" or job == last:
                continue
            duration = op["duration"]
            if duration not in ledger.sent:
                faults.append(f"job {job} is nobody's")
            if owner.setdefault(duration, job) != job:  # type: ignore[arg-type]
                faults.append(f"jobs {owner[duration]} and {job} are one and the same")
    return faults
