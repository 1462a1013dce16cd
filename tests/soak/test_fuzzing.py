"""A million mutated requests to one daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.fuzzing import Fuzzer
from tests.functional.waiting import until

MESSAGES = 1_000_000
SLICE = 50_000

#: How many files a daemon keeps open once it has needed them.
FILES = 4
MIB = 1 << 20


def test_mutated_requests(make_daemon: Callable[..., DaemonProcess]) -> None:
    """Each is answered as it must be, no fault is logged, and memory and descriptors return."""
    with make_daemon("--simulate-log=off") as daemon:
        before, memory = daemon.descriptors(), []
        for number in range(MESSAGES // SLICE):
            seed = int.from_bytes(os.urandom(4))
            print(f"slice {number}, seed {seed}")
            fuzzer = Fuzzer(daemon, seed)
            fuzzer.run(SLICE)
            # Requests for all archived jobs hold these in memory for a while: let them be few.
            for job in Path(daemon.paths.queue).glob("archive/*/job-*"):
                job.unlink()
            until("descriptors are closed", daemon.descriptors, lambda held: held <= before + FILES)
            memory.append(daemon.resident_bytes() / MIB)
            print(f"{memory[-1]:.0f} MiB, {fuzzer.counts}")
            assert "Traceback" not in daemon.log_text()
        # The heap of a process settles in the first slices; from then on it stays.
        half = len(memory) // 2
        assert max(memory[half:]) - memory[half] < 12
