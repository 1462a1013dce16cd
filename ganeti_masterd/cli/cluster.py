"""``gnt-luxi info``, ``drain`` and ``pause-watcher``: the cluster and its two switches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import click
from msgspec import Meta

from ganeti_masterd.cli.answers import config_values, read_as
from ganeti_masterd.cli.command import Command, Seconds
from ganeti_masterd.cli.rows import ShownJob, fetch
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import duration, minute, printable

_OFF, _STATUS = -1.0, -2.0

#: Until when the watcher pauses: seconds since the epoch that a calendar has.
PauseEnd: Any = Annotated[float, Meta(ge=0, le=253402300799)] | None


@click.command("info", cls=Command)
@pass_session
def info(session: Session) -> None:
    """Show the cluster, its versions, and the state of its queue."""
    cluster = read_as(dict[str, Any], session.client.cluster_info(), "the cluster")
    drained, given = config_values(session.client, ["drain_flag", "watcher_pause"])
    pause = _pause(given)
    jobs = Counter(row.status for row in fetch(session.client, ShownJob, None).values())
    if session.out.json:
        session.out.document(
            {
                "socket": session.place.socket,
                "cluster": cluster,
                "jobs": {"total": jobs.total(), **jobs},
                "drained": bool(drained),
                "watcher_pause": pause,
            }
        )
        return
    session.out.facts(
        [
            *cluster_facts(cluster),
            ("Jobs", _job_counts(jobs)),
            ("Queue", _queue_text(bool(drained))),
            ("Watcher", _watcher_text(pause)),
            ("Socket", session.place.socket),
        ]
    )


def cluster_facts(cluster: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields names and values of what the daemon returned; leaves out what it didn't."""

    def text(key: str) -> str:
        value = cluster.get(key)
        return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))

    versions = [
        f"{name} {cluster[key]}"
        for name, key in (
            ("protocol", "protocol_version"),
            ("configuration", "config_version"),
            ("OS interface", "os_api_version"),
        )
        if key in cluster
    ]
    yield "Cluster", text("name") + (f" ({text('uuid')})" if "uuid" in cluster else "")
    for title, key in (("Master", "master"), ("Ganeti", "software_version")):
        if key in cluster:
            more = f" ({', '.join(versions)})" if key == "software_version" and versions else ""
            yield title, text(key) + more
    for title, key in (
        ("Hypervisors", "enabled_hypervisors"),
        ("Disk templates", "enabled_disk_templates"),
        ("Tags", "tags"),
    ):
        if cluster.get(key):
            yield title, text(key)


def _job_counts(jobs: Counter[str]) -> str:
    if not jobs:
        return "none"
    parts = ", ".join(f"{number:,} {status}" for status, number in jobs.most_common())
    return f"{jobs.total():,} ({parts})"


def _queue_text(drained: bool) -> str:
    return "drained: takes no new jobs" if drained else "open"


def _pause(value: Any) -> float | None:
    """Returns until when the watcher pauses; raises ``LuxiError`` for what is no time."""
    until: float | None = read_as(PauseEnd, value, "the watcher's pause")
    return until


def _watcher_text(until: float | None) -> str:
    if until is None:
        return "not paused"
    left = duration(until - time.time())
    return f"paused until {minute((int(until), 0))} (another {left})"


@click.command("drain", cls=Command)
@click.argument("state", type=click.Choice(["on", "off", "status"]), default="status")
@pass_session
def drain(session: Session, state: str) -> None:
    """Close the queue to new jobs, or open it.

    'on' closes it: jobs that are already in it still run, new ones are refused. 'off' opens it
    again. Without either, show the current state.
    """
    if state == "status":
        (value,) = config_values(session.client, ["drain_flag"])
        drained = bool(value)
    else:
        drained = state == "on"
        session.client.set_drain_flag(drained)
    if session.out.json:
        session.out.document({"drained": drained})
    else:
        session.out.line(f"The queue is {_queue_text(drained)}")


@click.command("pause-watcher", cls=Command)
@click.argument(
    "time_",
    metavar="[DURATION|off|status]",
    type=Seconds(off=_OFF, status=_STATUS),
    default="status",
)
@pass_session
def pause_watcher(session: Session, time_: float) -> None:
    """Pause the watcher for a time, or end the pause.

    A duration is 90 (seconds), 30m, 12h or 7d; 'off' ends the pause. Without either, show
    until when the watcher is paused.
    """
    if time_ == _STATUS:
        (value,) = config_values(session.client, ["watcher_pause"])
        until = _pause(value)
    else:
        until = None if time_ == _OFF else int(time.time() + time_)
        session.client.set_watcher_pause(until)
    if session.out.json:
        session.out.document({"watcher_pause": until})
    else:
        session.out.line(f"The watcher is {_watcher_text(until)}")
