"""Twenty minutes of mixed load with clients that die; GANETI_MASTERD_SOAK_MINUTES says another."""

from __future__ import annotations

import os
from collections.abc import Callable

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.mixing import MixedLoad

MINUTES = float(os.environ.get("GANETI_MASTERD_SOAK_MINUTES", "20"))
SAMPLES = 20


def test_clients_that_die(make_daemon: Callable[..., DaemonProcess]) -> None:
    """Nothing that was promised is lost, and from half time on the daemon's memory stays."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    with make_daemon() as daemon:
        load = MixedLoad(daemon, seed)
        load.run(60.0 * MINUTES, SAMPLES)
        print(f"{load.deaths} deaths, {load.answered} answers, {len(load.ledger.jobs)} jobs")
        print("memory in MiB:", *(f"{each:.0f}" for each in load.memory))
        load.finish()
    half = load.memory[SAMPLES // 2 :]
    assert max(half) - half[0] < 24
