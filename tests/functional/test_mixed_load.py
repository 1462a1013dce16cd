"""Some seconds of mixed load with clients that die; ``tests/soak`` has it for twenty minutes."""

from __future__ import annotations

import os
from collections.abc import Callable

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.mixing import MixedLoad

SECONDS = 6.0


def test_clients_that_die(make_daemon: Callable[..., DaemonProcess]) -> None:
    """Whenever clients die and whatever they leave, promises hold and nothing of theirs stays."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    with make_daemon() as daemon:
        load = MixedLoad(daemon, seed)
        load.run(SECONDS, samples=2)
        load.finish()
    print(f"{load.deaths} deaths, {load.answered} answers, {len(load.ledger.jobs)} jobs")
    assert load.deaths > 8
    assert load.answered > 100
