"""Fifty clients of the remote API at once, under luxid and then under gnt-masterd.

The rates are printed, not asserted: ``--capture=no`` shows them.
"""

from __future__ import annotations

import os

from tests.functional.rapi_crowd import crowd, crowded_cluster, went_well

CLIENTS = int(os.environ.get("GANETI_MASTERD_RAPI_CLIENTS", "50"))


def test_crowd() -> None:
    """There is no error under either, and the same cluster does all of it faster than before."""
    with crowded_cluster() as cluster:
        before = crowd(cluster, CLIENTS, 3000)
        went_well(cluster, CLIENTS, before)
        cluster.take_over()
        after = crowd(cluster, CLIENTS, 3000)
        went_well(cluster, CLIENTS, after)
        assert "Traceback" not in cluster.log()
    print(f"\n{CLIENTS} clients under luxid: {before}")
    print(f"{CLIENTS} clients under gnt-masterd: {after}")
    print(f"gnt-masterd does {after.jobs_rate / before.jobs_rate:.1f} times as many jobs a second")
