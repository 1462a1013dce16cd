"""Clients that ask for a long answer and go away: the daemon stops working for them."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from pathlib import Path

from bench.queues import full_queue
from ganeti_masterd.luxi.messages import encode_request
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.waiting import until

JOBS = 30_000
LOST = 20

FIELDS = ["id", "status", "ops", "oplog", "opresult"]

REQUESTS = re.compile(
    r'^ganeti_luxi_requests_total\{method="QueryJobs",outcome="(\w+)"\} (\d+)', re.MULTILINE
)


def answered(metrics: Path) -> dict[str, int]:
    """Returns how many QueryJobs requests ended so far, by their outcome."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60.0)
        client.connect(str(metrics))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with client.makefile("r", encoding="utf-8") as answer:
            return {outcome: int(count) for outcome, count in REQUESTS.findall(answer.read())}


def test_long_answers(make_daemon: Callable[..., DaemonProcess], folder: Path) -> None:
    """None of twenty answers that nobody waits for is made; one that somebody reads is."""
    full_queue(0, JOBS)(folder / "node1")
    metrics = folder / "metrics"
    daemon = make_daemon(f"--monitoring=unix:address={metrics}")
    daemon.start(60.0)
    question = encode_request("QueryJobs", [None, FIELDS]) + b"\x03"
    # All at work at once, so that none is done before the last has gone.
    with contextlib.ExitStack() as clients:
        for _ in range(LOST):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(daemon.socket)
            client.sendall(question)
    until(
        "no request is at work",
        lambda: answered(metrics),
        lambda found: sum(found.values()) >= LOST,
    )
    assert answered(metrics) == {"gone": LOST}
    with daemon.client(60.0) as master:
        assert len(master.query_jobs(None, FIELDS)) == JOBS
    assert answered(metrics) == {"gone": LOST, "ok": 1}
    assert "Traceback" not in daemon.log_text()
