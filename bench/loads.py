"""The loads that the generator knows: what is asked for, and what it measured.

Both processes share these types; a load travels as JSON in the generator's
argument, a :class:`Measured` on its standard output.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Query(Struct, frozen=True, tag=True):
    """Clients that ask the same thing again and again, each after its answer."""

    method: str
    args: list[Any]
    clients: int
    seconds: float


class Counted(Struct, frozen=True, tag=True):
    """Clients that ask the same thing until it was asked ``requests`` times in all."""

    method: str
    args: list[Any]
    clients: int
    requests: int


class Beside(Struct, frozen=True, tag=True):
    """A client with a large request, again and again, while another asks for the cluster's name.

    The latencies are the other client's; ``large`` is the median of the large request.
    """

    method: str
    args: list[Any]
    seconds: float


class Jobs(Struct, frozen=True, tag=True):
    """Clients that each submit a job that does nothing, wait for its end, and go on.

    ``on_master``: that calls the master's node daemon; else it calls no node.
    """

    clients: int
    seconds: float
    on_master: bool = True


class Changes(Struct, frozen=True, tag=True):
    """Clients that each give an instance a tag and take it away again, job after job.

    Client N changes ``instanceN``, so that none waits for another's lock.
    """

    clients: int
    seconds: float


class Instances(Struct, frozen=True, tag=True):
    """Clients that make, start, stop or remove instances, one job after another each.

    The instances are ``prefix`` with a number, ``count`` of them from ``first`` on, each the
    work of one client. ``action`` is one of :data:`bench.load.ACTIONS`, ``more`` are further
    parameters of the opcodes that create. ``places`` are the nodes of instances, by turns, the
    primary first; none where an allocator chooses.
    """

    action: str
    clients: int
    count: int
    first: int = 1
    prefix: str = "bench"
    places: list[list[str]] = []
    more: dict[str, Any] = {}


class Burst(Struct, frozen=True, tag=True):
    """One submission of many jobs that do nothing, then a look at all each 50 ms.

    After ``limit`` seconds those not finished are counted as failed.
    """

    jobs: int
    limit: float = 120.0


class Idle(Struct, frozen=True, tag=True):
    """Connections that do nothing, while one client asks for the cluster's name."""

    connections: int
    requests: int


class Waiters(Struct, frozen=True, tag=True):
    """Clients that wait for one long job, while another asks for the cluster's name.

    The latencies are the other client's, which begins ``settle`` seconds after all
    others have asked; ``release`` is the time from the first to the last waiter
    that hears of the job's end.
    """

    clients: int
    requests: int
    duration: float = 8.0
    settle: float = 2.0


Load = Query | Counted | Beside | Jobs | Changes | Instances | Burst | Idle | Waiters


class Measured(Struct, frozen=True, kw_only=True):
    """What a load gave. Times are in seconds.

    ``count`` requests, or jobs that ended, in ``seconds``; latencies of each;
    ``slowest`` is the rate in the worst tenth of the time; ``cpu`` is what the
    generator itself used; ``acknowledged`` the time until a burst was taken;
    ``large`` the median of another, large request; ``last_job`` the highest job
    id; ``lost`` the connections that broke; ``failed`` the jobs that did not end
    in success.
    """

    count: int
    seconds: float
    median: float
    p99: float
    worst: float
    cpu: float
    slowest: float = 0.0
    acknowledged: float = 0.0
    release: float = 0.0
    large: float = 0.0
    last_job: int = 0
    lost: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Requests or jobs a second."""
        return self.count / self.seconds

    @property
    def busy(self) -> float:
        """The share of the time that the generator spent computing, 1.0 at its limit."""
        return self.cpu / self.seconds

    @property
    def ceiling(self) -> float:
        """The rate that the generator could reach if it never had to wait."""
        return self.count / self.cpu if self.cpu else float("inf")
