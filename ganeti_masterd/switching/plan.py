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


NeedsStep = Callable[[NodeStanding], bool]
PlannedStep = tuple[NeedsStep, SwitchStep[ISwitchHost]]

LUXID = "ganeti-luxid"
WCONFD = "ganeti-wconfd"

_UNITS_TO = "Enable gnt-masterd.service instead of ganeti-luxid.service and ganeti-wconfd.service"
_UNITS_BACK = "Enable ganeti-luxid.service and ganeti-wconfd.service instead of gnt-masterd.service"


def _drain(wanted: NeedsStep) -> PlannedStep:
    return wanted, SwitchStep(
        name="drain",
        does="Close the job queue",
        do=lambda host: host.drain(True),
        undoes="Open the job queue",
        undo=lambda host: host.drain(False),
    )


def _wait(wanted: NeedsStep) -> PlannedStep:
    return wanted, SwitchStep(
        name="wait", does="Wait until no job runs", do=lambda host: host.wait_for_jobs()
    )


def _answer(wanted: NeedsStep, own: bool, name: str) -> PlannedStep:
    return wanted, SwitchStep(
        name="answer",
        does=f"See that {name} answers, and has all jobs",
        do=lambda host: host.answers(own),
    )


def _open(wanted: NeedsStep) -> PlannedStep:
    return wanted, SwitchStep(
        name="open",
        does="Open the job queue",
        do=lambda host: host.drain(False),
        undoes="Close the job queue",
        undo=lambda host: host.drain(True),
    )


def _runs(standing: NodeStanding) -> bool:
    return standing.luxid or standing.wconfd


#: From luxid and wconfd to this daemon.
TO: tuple[PlannedStep, ...] = (
    _drain(lambda now: now.luxid and not now.drained),
    _wait(lambda now: now.luxid),
    (
        lambda now: now.luxid,
        SwitchStep(
            name="stop-luxid",
            does="Stop luxid",
            do=lambda host: host.stop_peer(LUXID),
            undoes="Start luxid",
            undo=lambda host: host.start_peer(LUXID),
        ),
    ),
    (
        lambda now: _runs(now) and not now.own,
        SwitchStep(
            name="processes",
            does="Wait until luxid's processes have ended",
            do=lambda host: host.wait_for_processes(),
        ),
    ),
    (
        lambda now: now.wconfd,
        SwitchStep(
            name="stop-wconfd",
            does="Stop wconfd",
            do=lambda host: host.stop_peer(WCONFD),
            undoes="Start wconfd",
            undo=lambda host: host.start_peer(WCONFD),
        ),
    ),
    (
        lambda now: not now.hook_current,
        SwitchStep(
            name="hook",
            does="Have daemon-util know gnt-masterd",
            do=lambda host: host.hook(True),
            undoes="Have daemon-util know luxid and wconfd again",
            undo=lambda host: host.hook(False),
        ),
    ),
    (
        lambda now: now.systemd and not now.unit,
        SwitchStep(
            name="unit",
            does="Write gnt-masterd.service",
            do=lambda host: host.unit(True),
            undoes="Remove gnt-masterd.service",
            undo=lambda host: host.unit(False),
        ),
    ),
    (
        lambda now: now.systemd and bool(now.peer_units),
        SwitchStep(
            name="enable",
            does=_UNITS_TO,
            do=lambda host: host.enable(True),
            undoes=_UNITS_BACK,
            undo=lambda host: host.enable(False),
        ),
    ),
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
    _answer(lambda now: now.master, True, "gnt-masterd"),
    _open(lambda now: now.luxid and not now.drained),
)

#: From this daemon to luxid and wconfd.
BACK: tuple[PlannedStep, ...] = (
    _drain(lambda now: now.own and not now.drained),
    _wait(lambda now: now.own),
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
    (
        lambda now: now.systemd and now.enabled,
        SwitchStep(
            name="enable",
            does=_UNITS_BACK,
            do=lambda host: host.enable(False),
            undoes=_UNITS_TO,
            undo=lambda host: host.enable(True),
        ),
    ),
    (
        lambda now: now.systemd and now.own_unit,
        SwitchStep(
            name="unit",
            does="Remove gnt-masterd.service",
            do=lambda host: host.unit(False),
            undoes="Write gnt-masterd.service",
            undo=lambda host: host.unit(True),
        ),
    ),
    (
        lambda now: now.hook,
        SwitchStep(
            name="hook",
            does="Have daemon-util know luxid and wconfd again",
            do=lambda host: host.hook(False),
            undoes="Have daemon-util know gnt-masterd",
            undo=lambda host: host.hook(True),
        ),
    ),
    (
        lambda now: now.master and not now.wconfd,
        SwitchStep(
            name="start-wconfd",
            does="Start wconfd",
            do=lambda host: host.start_peer(WCONFD),
            undoes="Stop wconfd",
            undo=lambda host: host.stop_peer(WCONFD),
        ),
    ),
    (
        lambda now: now.master and not now.luxid,
        SwitchStep(
            name="start-luxid",
            does="Start luxid",
            do=lambda host: host.start_peer(LUXID),
            undoes="Stop luxid",
            undo=lambda host: host.stop_peer(LUXID),
        ),
    ),
    _answer(lambda now: now.master, False, "luxid"),
    _open(lambda now: now.own and not now.drained),
)


def planned(
    table: tuple[PlannedStep, ...], standing: NodeStanding
) -> list[SwitchStep[ISwitchHost]]:
    """Returns the steps that a switch from this standing takes.

    None if the only one is to see that a daemon answers: then there is nothing to switch.
    """
    steps = [step for wanted, step in table if wanted(standing)]
    return [] if [step.name for step in steps] == ["answer"] else steps
