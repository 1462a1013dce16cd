"""The steps of the switch, as tables: to this daemon, and back to luxid and wconfd. Pure.

The order is that of docs/migrate.rst. A step is part of a switch only where it is needed, by
:class:`NodeStanding`, so that a switch that was cut off can be run again from where it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from ganeti_masterd.switching.steps import SwitchStep


class NodeStanding(Struct, frozen=True, kw_only=True):
    """What a node is like before a switch."""

    master: bool  #: This node is the master.
    luxid: bool  #: luxid runs.
    wconfd: bool  #: wconfd runs.
    own: bool  #: This daemon runs.
    drained: bool  #: The queue takes no new jobs.
    hook: bool  #: daemon-util knows this daemon, from some folder.
    hook_current: bool  #: daemon-util knows this daemon as this program would tell it.
    systemd: bool  #: systemd runs the system.
    unit: bool  #: systemd knows this daemon's unit.
    own_unit: bool  #: That unit was written by a switch.
    enabled: bool  #: That unit is enabled.
    peer_units: tuple[str, ...]  #: Ganeti's own units of luxid and wconfd that are enabled.


class ISwitchHost(Protocol):
    """What steps do. All block; they raise ``SwitchFault``, ``OSError`` or an error of Ganeti's."""

    def drain(self, closed: bool) -> None:
        """Closes the queue to new jobs, or opens it; waits until a master daemon answers."""

    def wait_for_jobs(self) -> None:
        """Waits until no job runs or waits for locks; raises if that takes too long."""

    def wait_for_processes(self) -> None:
        """Waits until no process of luxid's that has stopped runs a job."""

    def start_peer(self, name: str) -> None:
        """Starts ``ganeti-luxid`` or ``ganeti-wconfd`` itself unless it runs."""

    def stop_peer(self, name: str) -> None:
        """Stops it if it runs."""

    def start_own(self) -> None:
        """Starts this daemon unless it runs."""

    def stop_own(self) -> None:
        """Stops this daemon if it runs, and puts the queue in order."""

    def hook(self, wanted: bool) -> None:
        """Has daemon-util know this daemon, or not."""

    def unit(self, wanted: bool) -> None:
        """Writes this daemon's unit for systemd, or removes it."""

    def enable(self, own: bool) -> None:
        """Enables this daemon's unit and disables Ganeti's, or the reverse."""

    def answers(self, own: bool) -> None:
        """Waits until a master daemon answers; raises unless it knows all jobs and is ``own``."""


HostStep = SwitchStep[ISwitchHost]
NeedsStep = Callable[[NodeStanding], bool]
PlannedStep = tuple[NeedsStep, HostStep]

LUXID = "ganeti-luxid"
WCONFD = "ganeti-wconfd"

# What one direction does, and the other one in reverse.
_DRAIN: HostStep = SwitchStep(
    name="drain",
    does="Close the job queue",
    do=lambda host: host.drain(True),
    undoes="Open the job queue",
    undo=lambda host: host.drain(False),
)
_STOP_LUXID: HostStep = SwitchStep(
    name="stop-luxid",
    does="Stop luxid",
    do=lambda host: host.stop_peer(LUXID),
    undoes="Start luxid",
    undo=lambda host: host.start_peer(LUXID),
)
_STOP_WCONFD: HostStep = SwitchStep(
    name="stop-wconfd",
    does="Stop wconfd",
    do=lambda host: host.stop_peer(WCONFD),
    undoes="Start wconfd",
    undo=lambda host: host.start_peer(WCONFD),
)
_HOOK: HostStep = SwitchStep(
    name="hook",
    does="Have daemon-util know gnt-masterd",
    do=lambda host: host.hook(True),
    undoes="Have daemon-util know luxid and wconfd again",
    undo=lambda host: host.hook(False),
)
_UNIT: HostStep = SwitchStep(
    name="unit",
    does="Write gnt-masterd.service",
    do=lambda host: host.unit(True),
    undoes="Remove gnt-masterd.service",
    undo=lambda host: host.unit(False),
)
_ENABLE: HostStep = SwitchStep(
    name="enable",
    does="Enable gnt-masterd.service instead of ganeti-luxid.service and ganeti-wconfd.service",
    do=lambda host: host.enable(True),
    undoes="Enable ganeti-luxid.service and ganeti-wconfd.service instead of gnt-masterd.service",
    undo=lambda host: host.enable(False),
)

# What both do.
_WAIT: HostStep = SwitchStep(
    name="wait", does="Wait until no job runs", do=lambda host: host.wait_for_jobs()
)
_OPEN = _DRAIN.reverse("open")


def _answer(own: bool, name: str) -> HostStep:
    return SwitchStep(
        name="answer",
        does=f"See that {name} answers, and has all jobs",
        do=lambda host: host.answers(own),
    )


def _runs(standing: NodeStanding) -> bool:
    return standing.luxid or standing.wconfd


#: From luxid and wconfd to this daemon.
TO: tuple[PlannedStep, ...] = (
    (lambda now: now.luxid and not now.drained, _DRAIN),
    (lambda now: now.luxid, _WAIT),
    (lambda now: now.luxid, _STOP_LUXID),
    (
        lambda now: _runs(now) and not now.own,
        SwitchStep(
            name="processes",
            does="Wait until luxid's processes have ended",
            do=lambda host: host.wait_for_processes(),
        ),
    ),
    (lambda now: now.wconfd, _STOP_WCONFD),
    (lambda now: not now.hook_current, _HOOK),
    (lambda now: now.systemd and not now.unit, _UNIT),
    (lambda now: now.systemd and bool(now.peer_units), _ENABLE),
    (
        lambda now: now.master and not now.own,
        SwitchStep(
            name="start",
            does="Start gnt-masterd",
            do=lambda host: host.start_own(),
            undoes="Stop gnt-masterd",
            undo=lambda host: host.stop_own(),
        ),
    ),
    (lambda now: now.master, _answer(True, "gnt-masterd")),
    (lambda now: now.luxid and not now.drained, _OPEN),
)

#: From this daemon to luxid and wconfd.
BACK: tuple[PlannedStep, ...] = (
    (lambda now: now.own and not now.drained, _DRAIN),
    (lambda now: now.own, _WAIT),
    (
        lambda now: now.master and not _runs(now),
        SwitchStep(
            name="stop",
            does="Stop gnt-masterd, and put the queue in order",
            do=lambda host: host.stop_own(),
            undoes="Start gnt-masterd",
            undo=lambda host: host.start_own(),
        ),
    ),
    (lambda now: now.systemd and now.enabled, _ENABLE.reverse("enable")),
    (lambda now: now.systemd and now.own_unit, _UNIT.reverse("unit")),
    (lambda now: now.hook, _HOOK.reverse("hook")),
    (lambda now: now.master and not now.wconfd, _STOP_WCONFD.reverse("start-wconfd")),
    (lambda now: now.master and not now.luxid, _STOP_LUXID.reverse("start-luxid")),
    (lambda now: now.master, _answer(False, "luxid")),
    (lambda now: now.own and not now.drained, _OPEN),
)


def planned(table: tuple[PlannedStep, ...], standing: NodeStanding) -> list[HostStep]:
    """Returns the steps that a switch from this standing takes.

    There are none if the only one would be to see that a daemon answers: nothing is to be switched.
    """
    steps = [step for wanted, step in table if wanted(standing)]
    return [] if [step.name for step in steps] == ["answer"] else steps
