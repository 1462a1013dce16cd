"""Several clients of the remote API at once, on a real cluster under gnt-masterd."""

from __future__ import annotations

from tests.functional.rapi_crowd import crowd, crowded_cluster, went_well

CLIENTS = 6


def test_crowd() -> None:
    """Every request is answered and every job succeeds."""
    with crowded_cluster() as cluster:
        cluster.take_over()
        result = crowd(cluster, CLIENTS)
        went_well(cluster, CLIENTS, result)
        assert "Traceback" not in cluster.log()
