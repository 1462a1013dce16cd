"""LUXI methods that set the queue's drain flag and the watcher's pause."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ganeti_masterd.errors import prereq
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import method

#: The last second of the year 9999. A pause may not last longer, as no calendar goes on from there.
LATEST = 253402300799


@method("SetDrainFlag", changes=True)
def set_drain_flag(daemon: Daemon, peer: Peer, drained: bool) -> Deferred[bool]:
    """Stops the queue from accepting jobs, or lets it accept them again."""
    return daemon.switches.set_drained(drained)


@method("SetWatcherPause", changes=True)
def set_watcher_pause(
    daemon: Daemon, peer: Peer, until: float | None = None
) -> Deferred[float | None]:
    """Pauses the watcher until a time (seconds since the epoch); null or no argument ends it."""
    if until is not None and until < daemon.queue.timers.now():
        raise prereq("SetWatcherPause: the time given is in the past")
    if until is not None and not until <= LATEST:  # nor NaN
        raise prereq("SetWatcherPause: the time given is after the year 9999")
    whole = None if until is None else int(until)
    return daemon.switches.set_watcher_pause(whole).addCallback(lambda _: until)
