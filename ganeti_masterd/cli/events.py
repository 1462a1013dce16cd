"""``gnt-luxi events``: what happens on the cluster, from the stream of ``--monitoring``."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import click

from ganeti_masterd.cli.command import Command, JobIdType
from ganeti_masterd.cli.output import Output
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import json_text, printable
from ganeti_masterd.luxi.eventlines import EventLines, event_request
from ganeti_masterd.luxi.failures import ConnectionLost, unreachable

#: Bytes that are read at a time.
_CHUNK = 1 << 16


@click.command("events", cls=Command)
@click.argument("address", metavar="[HOST:]PORT|PATH")
@click.option("--follow", is_flag=True, help="Go on, until Ctrl-C or the daemon ends.")
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ", help="Go on after this one.")
@click.option("--job", "job_id", type=JobIdType(), metavar="ID", help="Only events of this job.")
@pass_session
def events(
    session: Session, address: str, follow: bool, since: int | None, job_id: int | None
) -> None:
    """Show what happens on the cluster.

    The daemon has to run with --monitoring; give its port, or the path of its socket. First comes
    the state of now, and with --follow everything that happens then. With --json each event is an
    object on a line of its own, as the daemon sends it.
    """
    with _connected(address, session.timeout) as connection:
        connection.sendall(event_request(since))
        for event in _received(connection):
            if session.out.json:
                if job_id is None or _about(event, job_id):
                    session.out.record(event)
            else:
                _show(session.out, event, job_id)
            if not follow:
                return


def _connected(address: str, timeout: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        if not address.startswith("/") and port.isascii() and port.isdigit():
            connection = socket.create_connection(
                (host.strip("[]") or "localhost", int(port)), timeout
            )
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout)
            connection.connect(address)
    except (OSError, OverflowError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        raise unreachable(address, code, str(error)) from None
    return connection


def _received(connection: socket.socket) -> Iterator[dict[str, Any]]:
    lines = EventLines()
    while True:
        try:
            data = connection.recv(_CHUNK)
        except OSError as error:
            raise ConnectionLost(f"Events: {error}") from None
        if not data:
            raise ConnectionLost(f"Events: {lines.ended()}")
        yield from lines.feed(data)


def _about(event: dict[str, Any], job_id: int) -> bool:
    job = event.get("job")
    return event.get("id") == job_id or (isinstance(job, dict) and job.get("id") == job_id)


def _show(out: Output, event: dict[str, Any], job_id: int | None) -> None:
    kind = event["event"]
    if kind == "state":
        jobs = event.get("jobs")
        for job in jobs if isinstance(jobs, list) else ():
            _show(out, {"event": "job", "seq": event["seq"], "job": job}, job_id)
        waits = event.get("waits")
        _show(out, {"event": "waits", "seq": event["seq"], "waits": waits}, job_id)
        return
    if job_id is not None and kind != "waits" and not _about(event, job_id):
        return
    match event:
        case {
            "event": "job",
            "job": {"id": number, "status": status, "summary": list(summary)} as job,
        }:
            more = next((f": {job[key]}" for key in ("error", "progress") if job.get(key)), "")
            what = ", ".join(map(str, summary))
            out.line(printable(f"job {number}: {status}: {what}{more}"))
        case {"event": "log", "id": number, "text": text}:
            out.line(printable(f"job {number}: {text}"))
        case {"event": "archived", "id": number}:
            out.line(printable(f"job {number}: archived"))
        case {"event": "waits", "waits": list(waits)}:
            for wait in waits:
                if isinstance(wait, dict) and job_id in (None, wait.get("job_id")):
                    out.line(printable(str(wait.get("sentence"))))
        case {"event": "faults", "faults": list(faults)}:
            out.line(printable("; ".join(map(str, faults)) or "No faults any more"))
        case {"event": "config", "serial": serial, "changed": list(changed)}:
            names = [
                f"{each.get('section')} {each.get('name')} {each.get('what')}"
                for each in changed
                if isinstance(each, dict)
            ]
            out.line(printable(f"configuration {serial}: {', '.join(names)}"))
        case _:
            rest = {key: value for key, value in event.items() if key not in ("event", "seq")}
            out.line(printable(f"{kind}: {json_text(rest)}"))
