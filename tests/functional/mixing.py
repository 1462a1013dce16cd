"""A daemon under a mixed load whose clients come, die at any moment, and misbehave.

The daemon itself lives through it all: what clients were promised must hold at
the end, and what they cost while they lived must be given back.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from ganeti_masterd.luxi.messages import encode_request
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import ledger as books
from tests.functional.crashing import strangers
from tests.functional.ledger import FINAL, Ledger
from tests.functional.load import Client
from tests.functional.waiting import equal_to, job_is, jobs_end, until

MIB = 1 << 20

#: How long a client lives, in seconds, and how many do at a time.
LIFE = (0.05, 12.0)
CLIENTS = 8

#: Seconds that a client does nothing between two requests.
PAUSE = 0.02

#: The duration of the job that is the last of all.
LAST = 0.001

#: How many jobs are looked at in one go, and how many of the last ones on disk.
_SLICE = 2000
_ON_DISK = 4000

_END = b"\x03"


class Rude(threading.Thread):
    """Connects, asks for something, and is gone before it has been answered; again and again."""

    def __init__(self, path: str, seed: int) -> None:
        super().__init__(name=f"rude {seed}", daemon=True)
        self.visits = 0
        self._path = path
        self._random = random.Random(seed)
        self._dead = threading.Event()

    def run(self) -> None:
        """Does so until it is told to end."""
        while not self._dead.wait(self._random.uniform(0.0, 0.1)):
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
            ):
                connection.settimeout(5.0)
                connection.connect(self._path)
                connection.sendall(self._message())
                self.visits += 1
                # Some stay for a while, parked or with their answer unread.
                self._dead.wait(self._random.choice((0.0, 0.0, 0.01, 1.0)))

    def end(self) -> None:
        """Lets it end."""
        self._dead.set()

    def _message(self) -> bytes:
        last = self._random.randint(1, 5000)
        jobs = encode_request("QueryJobs", [None, ["id", "status", "ops", "oplog"]]) + _END
        wait = encode_request("WaitForJobChange", [last, ["status"], ["success"], None, 60]) + _END
        nodes = encode_request("Query", ["node", ["name", "mfree", "dfree"], None]) + _END
        return self._random.choice(
            (
                b"",
                jobs[: self._random.randint(1, len(jobs) - 1)],
                jobs,
                jobs * 5,
                wait,
                nodes,
                nodes * 20,
                os.urandom(40),
            )
        )


class CallLog:
    """The calls of simulated nodes, read as they are logged: of a long log the end is kept."""

    def __init__(self, path: Path) -> None:
        self.found: Counter[float] = Counter()
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> None:
        """Counts what came since; to be called more often than the log is begun anew."""
        if self._file is None:
            if not self._path.exists():
                return
            self._file = self._path.open("rb")
        # Asked before reading: what has another name by then gets no more lines.
        turned_over = not self._path.exists() or not os.path.samestat(
            os.fstat(self._file.fileno()), self._path.stat()
        )
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        self.found += books.calls_in_lines(line.decode("ascii") for line in lines)
        if turned_over:
            self._file.close()
            self._file = None
            self.read()

    def close(self) -> None:
        """Ends reading."""
        if self._file is not None:
            self._file.close()


class MixedLoad:
    """One daemon under load, and what its clients were promised.

    ``daemon`` runs and logs its simulated nodes' calls. Everything random comes
    from ``seed``, but for the moments.
    """

    def __init__(self, daemon: DaemonProcess, seed: int) -> None:
        self.daemon = daemon
        self.ledger = Ledger(pauses={None})
        self.deaths = 0
        self.answered = 0
        #: Memory of the daemon in MiB at equal distances of time, with no ended job in its queue.
        self.memory: list[float] = []
        self._random = random.Random(seed)
        self._before = self._held()
        self._calls = CallLog(daemon.root / "simulation" / "calls.log")

    def run(self, seconds: float, samples: int) -> None:
        """Keeps the load up for that long, and looks at the memory so many times."""
        rude = [Rude(self.daemon.socket, self._random.getrandbits(32)) for _ in range(3)]
        for each in rude:
            each.start()
        crowd: list[tuple[float, Client]] = []
        begun = time.monotonic()
        while True:
            now = time.monotonic() - begun
            for death, client in [each for each in crowd if each[0] <= now or now >= seconds]:
                crowd.remove((death, client))
                self._bury(client)
            if now >= seconds:
                break
            if now >= seconds * (len(self.memory) + 1) / samples:
                self._sample()
            self._calls.read()
            # The first of them all is the one that changes what there is only one of.
            while len(crowd) < CLIENTS:
                alone = not any(client.alone for _, client in crowd)
                client = Client(
                    self.daemon.socket, self._random.getrandbits(32), alone=alone, pause=PAUSE
                )
                client.start()
                crowd.append((now + self._random.uniform(*LIFE), client))
            time.sleep(0.02)
        for each in rude:
            each.end()
            each.join()
        self._sample()

    def finish(self) -> None:
        """Lets every job end; checks all of them, the files, and that everything was given back."""
        with self.daemon.client(60.0) as master:
            jobs_end(master, 120.0)
            last = master.submit_job([{"OP_ID": "OP_TEST_DELAY", "duration": LAST}])
            job_is(master, last, *FINAL)
            faults = [*self.ledger.faults]
            faults += books.tag_faults(self.ledger, master.query_tags("cluster"))
            faults += strangers(self.ledger, master.query_jobs(None, ["id", "ops", "status"]), last)
            until("the last call is logged, once", self._last_calls, equal_to(1))
            calls = self._calls.found
            for jobs in _slices(sorted(self.ledger.jobs)):
                rows = books.rows_of(master, jobs)
                faults += books.faults_in(self.ledger, rows, calls)
                faults += books.run_faults(self.ledger, rows, calls)
            rows = books.rows_of(master, sorted(self.ledger.jobs)[-_ON_DISK:])
        self._calls.close()
        self._given_back()
        log = self.daemon.log_text()
        assert "Traceback" not in log
        behind = [line for line in log.splitlines() if "does not get the queue" in line]
        assert not behind, behind[:5]
        self.daemon.stop()
        faults += books.disagreements(rows, Path(self.daemon.paths.queue))
        assert not faults, "\n  ".join([f"{len(faults)} faults:", *faults[:20]])

    def _last_calls(self) -> int:
        self._calls.read()
        return self._calls.found[LAST]

    def _bury(self, client: Client) -> None:
        client.die()
        client.join(60.0)
        assert not client.is_alive(), f"{client.name} does not end"
        self.deaths += 1
        self.answered += client.answered
        self.ledger.add(client.ledger)

    def _sample(self) -> None:
        with self.daemon.client(60.0) as master:
            self.ledger.swept = True
            master.auto_archive_jobs(-1, 30)
        self.memory.append(self.daemon.resident_bytes() / MIB)

    def _held(self) -> tuple[int, int]:
        """Descriptors and threads of the daemon."""
        threads = len(os.listdir(f"/proc/{self.daemon.pid}/task"))
        return self.daemon.descriptors(), threads

    def _given_back(self) -> None:
        # A file or two stay open once they were needed; threads are made as they are.
        files, _ = self._before
        until("descriptors are closed", lambda: self._held()[0], lambda held: held <= files + 4)
        assert self._held()[1] <= 32, "threads are left"


def _slices(jobs: list[int]) -> list[list[int]]:
    return [jobs[start : start + _SLICE] for start in range(0, len(jobs), _SLICE)]
