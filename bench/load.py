"""The load generator, a process of its own: ``python -m bench.load SOCKET LOAD``.

``LOAD`` is one of :mod:`bench.loads` as JSON. Prints one line, a ``Measured``
as JSON; ends with 1 and a message if the server gave an error.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from itertools import cycle, repeat
from statistics import median
from time import perf_counter, process_time
from typing import Any

import msgspec

from bench.crowd import Crowd, Failed, Script
from bench.loads import (
    Beside,
    Burst,
    Changes,
    Counted,
    Idle,
    Instances,
    Jobs,
    Load,
    Measured,
    Query,
    Waiters,
)

FINAL = frozenset({"success", "error", "canceled"})
#: A job that does nothing: the shortest delay that luxid takes, run on the master.
NO_OP = {
    "OP_ID": "OP_TEST_DELAY",
    "duration": 0.001,
    "on_master": True,
    "on_nodes": [],
    "reason": [],
}

#: The opcode that makes an instance with a mirror, where the allocator that is built in says.
CREATE = {
    "OP_ID": "OP_INSTANCE_CREATE",
    "mode": "create",
    "disk_template": "drbd",
    "disks": [{"size": 128}],
    "nics": [{}],
    "os_type": "noop",
    "name_check": False,
    "ip_check": False,
    "iallocator": "builtin",
}
REMOVE = {"OP_ID": "OP_INSTANCE_REMOVE"}

#: What is done with each instance of a load: opcodes, each a job that waits for the one before.
ACTIONS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "create": (CREATE,),
    "startup": ({"OP_ID": "OP_INSTANCE_STARTUP"},),
    "shutdown": ({"OP_ID": "OP_INSTANCE_SHUTDOWN"},),
    "remove": (REMOVE,),
    "pair": (CREATE, REMOVE),
}


def request(method: str, *args: Any) -> bytes:
    """Returns a request with its end mark."""
    return msgspec.json.encode({"method": method, "args": args}) + b"\x03"


PROBE = request("QueryConfigValues", ["cluster_name"])


def result(reply: bytes | None) -> Any:
    """Returns the result of a reply; raises :exc:`Failed` if it is an error."""
    decoded = msgspec.json.decode(reply or b"null")
    if not isinstance(decoded, dict) or decoded.get("success") is False:
        raise Failed(f"the server answered {decoded!r}")
    return decoded.get("result")


@dataclass
class Tally:
    """What the scripts of one load write down."""

    latencies: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    last_job: int = 0
    failed: int = 0
    acknowledged: float = 0.0

    def took(self, begun: float) -> None:
        """Notes one request or job that began then and ends now."""
        now = perf_counter()
        self.latencies.append(now - begun)
        self.ends.append(now)


def ask(data: bytes, tally: Tally, more: Callable[[], bool]) -> Script:
    """Sends the same request while there is ``more``.

    The first answer is decoded, the others are compared with it by their first
    bytes, which tell a result from an error.
    """
    first = yield data
    result(first)
    start = (first or b"")[:16]
    while more():
        begun = perf_counter()
        reply = yield data
        tally.took(begun)
        if reply is None or not reply.startswith(start):
            raise Failed(f"the server answered {reply!r}")


def tags(instance: str) -> Iterator[object]:
    """Yields opcodes without end that give an instance a tag and take it away again."""
    opcode = {"kind": "instance", "name": instance, "tags": ["bench"], "reason": []}
    return cycle([{"OP_ID": "OP_TAGS_SET", **opcode}, {"OP_ID": "OP_TAGS_DEL", **opcode}])


def instance_opcodes(load: Instances, numbers: Iterator[int]) -> Iterator[object]:
    """Yields what one client of a load does with the next instances of ``numbers``."""
    for number in numbers:
        for opcode in ACTIONS[load.action]:
            job = {**opcode, "instance_name": f"{load.prefix}{number}", "reason": []}
            if opcode is CREATE:
                job |= load.more
                if load.places:
                    nodes = load.places[number % len(load.places)]
                    job |= {
                        "iallocator": None,
                        **dict(zip(("pnode", "snode"), nodes, strict=False)),
                    }
            yield job


def submit_and_wait(tally: Tally, until: float, opcodes: Iterator[object]) -> Script:
    """Submits the next opcode as a job, waits for its end, and again.

    Ends when the time is up or there are no more opcodes.
    """
    while perf_counter() < until:
        opcode = next(opcodes, None)
        if opcode is None:
            return
        submission = request("SubmitJob", [opcode])
        begun = perf_counter()
        job = int(result((yield submission)))
        tally.last_job = max(tally.last_job, job)
        status: list[str] | None = None
        while status is None or status[0] not in FINAL:
            answer = result((yield request("WaitForJobChange", job, ["status"], status, -1, 25)))
            status = answer[0] if isinstance(answer, list) else status
        tally.took(begun)
        tally.failed += status[0] != "success"


def burst(tally: Tally, jobs: int, limit: float) -> Script:
    """Submits many jobs at once and looks at all of them until they have ended."""
    begun = perf_counter()
    answers = result((yield request("SubmitManyJobs", [[NO_OP]] * jobs)))
    tally.acknowledged = perf_counter() - begun
    ids = [int(job) for taken, job in answers if taken]
    if len(ids) != jobs:
        raise Failed(f"{jobs - len(ids)} of {jobs} jobs were not taken")
    tally.last_job = max(ids)
    look = request("QueryJobs", ids, ["status"])
    while True:
        states = [row[0] for row in result((yield look))]
        ended = sum(state in FINAL for state in states)
        if ended == jobs or perf_counter() - begun > limit:
            break
        yield 0.05
    tally.failed = jobs - states.count("success")
    tally.latencies = [perf_counter() - begun] * ended


def park(tally: Tally, job: int, status: str) -> Script:
    """Waits until the job has another status."""
    wait = request("WaitForJobChange", job, ["status"], [status], -1, 60)
    while True:
        answer = result((yield wait))
        if not isinstance(answer, list) or answer[0] != [status]:
            break
    tally.ends.append(perf_counter())


def start_long_job(tally: Tally, duration: float) -> Script:
    """Submits one job of that many seconds and waits until it runs."""
    job = int(result((yield request("SubmitJob", [{**NO_OP, "duration": duration}]))))
    tally.last_job = job
    while result((yield request("QueryJobs", [job], ["status"])))[0][0] != "running":
        yield 0.02


def times(count: int) -> Callable[[], bool]:
    """Returns a function that is true ``count`` times."""
    left = iter(range(count))
    return lambda: next(left, None) is not None


def settle(seconds: float, script: Script) -> Script:
    """Pauses before the script begins."""
    yield seconds
    yield from script


def slowest_tenth(ends: list[float], begun: float, seconds: float) -> float:
    """Returns the lowest rate in any of ten equal parts of the time."""
    tenth = seconds / 10
    counts = [0] * 10
    for end in ends:
        counts[min(9, int((end - begun) / tenth))] += 1
    return min(counts) / tenth


def measured(tally: Tally, crowd: Crowd, begun: float, cpu: float, **more: Any) -> Measured:
    """Returns what was measured since ``begun`` (``perf_counter``, ``process_time``)."""
    seconds, used = perf_counter() - begun, process_time() - cpu
    ranked = sorted(tally.latencies) or [seconds]

    def quantile(share: float) -> float:
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    return Measured(
        count=len(tally.latencies),
        seconds=seconds,
        median=quantile(0.5),
        p99=quantile(0.99),
        worst=ranked[-1],
        cpu=used,
        slowest=slowest_tenth(tally.ends, begun, seconds),
        acknowledged=tally.acknowledged,
        last_job=tally.last_job,
        lost=crowd.lost,
        failed=tally.failed,
        **more,
    )


@singledispatch
def play(load: Any, crowd: Crowd) -> Measured:
    """Plays one load on a crowd without clients and returns what it gave."""
    raise TypeError(f"not a load: {load!r}")


@play.register
def _(load: Query, crowd: Crowd) -> Measured:
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    until = begun + load.seconds
    data = request(load.method, *load.args)
    for _ in range(load.clients):
        crowd.add(ask(data, tally, lambda: perf_counter() < until))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Counted, crowd: Crowd) -> Measured:
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    data, more = request(load.method, *load.args), times(load.requests)
    for _ in range(load.clients):
        crowd.add(ask(data, tally, more))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Beside, crowd: Crowd) -> Measured:
    large, tally, begun, cpu = Tally(), Tally(), perf_counter(), process_time()
    until = begun + load.seconds
    crowd.add(ask(request(load.method, *load.args), large, lambda: perf_counter() < until))
    crowd.add(ask(PROBE, tally, lambda: perf_counter() < until))
    crowd.run()
    return measured(tally, crowd, begun, cpu, large=median(large.latencies))


@play.register
def _(load: Jobs, crowd: Crowd) -> Measured:
    opcode = {**NO_OP, "on_master": load.on_master}
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    for _ in range(load.clients):
        crowd.add(submit_and_wait(tally, begun + load.seconds, repeat(opcode)))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Changes, crowd: Crowd) -> Measured:
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    for number in range(1, load.clients + 1):
        crowd.add(submit_and_wait(tally, begun + load.seconds, tags(f"instance{number}")))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Instances, crowd: Crowd) -> Measured:
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    numbers = iter(range(load.first, load.first + load.count))
    for _ in range(load.clients):
        crowd.add(submit_and_wait(tally, float("inf"), instance_opcodes(load, numbers)))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Burst, crowd: Crowd) -> Measured:
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    crowd.add(burst(tally, load.jobs, load.limit))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Idle, crowd: Crowd) -> Measured:
    for _ in range(load.connections):
        crowd.add()
    tally, begun, cpu = Tally(), perf_counter(), process_time()
    crowd.add(ask(PROBE, tally, times(load.requests)))
    crowd.run()
    return measured(tally, crowd, begun, cpu)


@play.register
def _(load: Waiters, crowd: Crowd) -> Measured:
    waiting, tally = Tally(), Tally()
    crowd.add(start_long_job(tally, load.duration))
    crowd.run()
    begun, cpu = perf_counter(), process_time()
    for _ in range(load.clients):
        crowd.add(park(waiting, tally.last_job, "running"))
    crowd.add(settle(load.settle, ask(PROBE, tally, times(load.requests))))
    crowd.run()
    release = max(waiting.ends) - min(waiting.ends) if waiting.ends else float("nan")
    return measured(tally, crowd, begun, cpu, release=release)


def main(path: str, load: str) -> int:
    """Plays the load against the socket and prints what it measured."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    crowd = Crowd(path)
    try:
        decoded: Load = msgspec.json.decode(load, type=Load)
        print(msgspec.json.encode(play(decoded, crowd)).decode())
    except (Failed, OSError, msgspec.DecodeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        crowd.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
