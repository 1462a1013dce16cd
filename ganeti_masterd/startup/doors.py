"""The one place that chooses between simulated nodes and real ones.

A :class:`Door` leads to simulated nodes, or to node daemons over HTTPS. Both the vote before the
start and the daemon itself open one; no other code knows which kind it is.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ganeti_masterd.events import Events
from ganeti_masterd.mailbox import RunInThread
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.https import HTTPSNodes, noded_port
from ganeti_masterd.rpc.interfaces import INodeRPC
from ganeti_masterd.simulation.calllog import CallLogMode
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.control import CONTROL, listen
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.timing import Timers


class Door(Protocol):
    """The node RPC with its life cycle: usable from :meth:`start` to :meth:`close`."""

    nodes: INodeRPC

    def start(self) -> Deferred[None]:
        """Makes the nodes ready to be called; may block."""

    def start_threads(self) -> None:
        """Moves blocking work to a thread; called just before the reactor runs."""

    def close(self) -> Deferred[None]:
        """Cancels calls in flight and stops what was started; fires when that is done."""


def open_door(
    reactor: Any,
    timers: Timers,
    paths: Paths,
    master: str,
    *,
    simulate_log: CallLogMode | None,
    description: Description | None = None,
    events: Events | None = None,
    in_thread: RunInThread | None = None,
) -> Door:
    """Returns the door to simulated nodes, or, with ``simulate_log`` None, to real ones.

    ``in_thread`` runs functions that read large answers of real ones in a thread.
    """
    if simulate_log is None:
        return RealDoor(reactor, timers, paths, events, in_thread)
    return SimulatedDoor(reactor, timers, paths, master, simulate_log, description, events)


class RealDoor:
    """Node daemons over HTTPS."""

    def __init__(
        self,
        reactor: Any,
        timers: Timers,
        paths: Paths,
        events: Events | None = None,
        in_thread: RunInThread | None = None,
    ) -> None:
        self.nodes: INodeRPC = HTTPSNodes(
            reactor,
            timers,
            Certificates(paths.server_certificate, paths.client_certificate),
            port=noded_port(),
            root=paths.root,
            events=events,
            in_thread=in_thread,
        )

    def start(self) -> Deferred[None]:
        """See :meth:`Door.start`."""
        return succeed(None)

    def start_threads(self) -> None:
        """See :meth:`Door.start_threads`; there are none."""

    def close(self) -> Deferred[None]:
        """See :meth:`Door.close`."""
        return self.nodes.close()


class SimulatedDoor:
    """Simulated nodes, which store their state below the root, in a thread of their own.

    Until :meth:`start_threads` they read and write in the caller's thread, blocking it.
    """

    def __init__(
        self,
        reactor: Any,
        timers: Timers,
        paths: Paths,
        master: str,
        log: CallLogMode,
        description: Description | None = None,
        events: Events | None = None,
    ) -> None:
        self._reactor = reactor
        self._control = os.path.join(paths.root, CONTROL)
        self._listening: IListeningPort | None = None
        self._pool = ThreadPool(1, 1, "simulation")
        self._simulated = SimulatedNodes(
            timers,
            root=paths.root,
            master=master,
            description=description,
            log=log,
            in_disk_thread=self._in_disk_thread,
            processes=reactor,
            events=events,
        )
        self.nodes: INodeRPC = self._simulated

    def start(self) -> Deferred[None]:
        """See :meth:`Door.start`; fails with an error of SQLite or an ``OSError``."""
        return self._simulated.start()

    def start_threads(self) -> None:
        """See :meth:`Door.start_threads`; also starts to read switches set from outside."""
        self._pool.start()
        self._listening = listen(self._reactor, self._control, self._simulated)

    def close(self) -> Deferred[None]:
        """See :meth:`Door.close`."""
        stopped = succeed(None)
        if self._listening is not None:
            stopped = self._listening.stopListening() or stopped
        return stopped.addBoth(lambda _: self.nodes.close()).addBoth(self._ended)

    def _in_disk_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        if self._pool.started:
            return deferToThreadPool(self._reactor, self._pool, function, *args)
        return maybeDeferred(function, *args)

    def _ended(self, result: Any) -> Any:
        if self._pool.started:
            self._pool.stop()
        return result
