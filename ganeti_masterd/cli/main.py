"""The ``gnt-luxi`` program: its global options, and its commands."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

import click

from ganeti_masterd.cli.backup import backup, restore_backup
from ganeti_masterd.cli.call import call
from ganeti_masterd.cli.cluster import drain, info, pause_watcher
from ganeti_masterd.cli.command import EXIT_INTERRUPTED, Program
from ganeti_masterd.cli.config import config
from ganeti_masterd.cli.control import archive, cancel, priority
from ganeti_masterd.cli.events import events
from ganeti_masterd.cli.failover import master_failover
from ganeti_masterd.cli.jobs import job, jobs, why
from ganeti_masterd.cli.listings import commands, fields
from ganeti_masterd.cli.maintenance import node_maintenance
from ganeti_masterd.cli.passwords import monitoring_password
from ganeti_masterd.cli.recover import recover
from ganeti_masterd.cli.session import Session
from ganeti_masterd.cli.submitting import submit
from ganeti_masterd.cli.switch import switch
from ganeti_masterd.cli.top import top
from ganeti_masterd.cli.watching import wait, watch
from ganeti_masterd.constants import LUXI_DEF_RWTO


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"gnt-luxi {version('ganeti-masterd')}")
        context.exit()


@click.group(
    "gnt-luxi",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--root",
    metavar="DIR",
    help="Folder used as /, as with the daemon. Default: GANETI_ROOTDIR; else your own "
    "simulation if one is running; else the system's.",
)
@click.option("--socket", metavar="PATH", help="The path of the daemon's socket.")
@click.option("--json", is_flag=True, help="Print JSON on standard output, and nothing else there.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=str(LUXI_DEF_RWTO),
    show_default=True,
    metavar="SECONDS",
    help="How long the daemon may take over one answer.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version, and exit.",
)
@click.pass_context
def program(
    context: click.Context, root: str | None, socket: str | None, json: bool, timeout: float
) -> None:
    """Talk to the master daemon of a Ganeti cluster."""
    if root is not None and socket is not None:
        raise click.UsageError("Give either --root or --socket.")
    session = Session(root, socket, timeout, json=json, environment=os.environ)
    context.obj = session
    context.call_on_close(session.close)


for _command in (
    info,
    jobs,
    job,
    why,
    top,
    events,
    submit,
    watch,
    wait,
    cancel,
    priority,
    archive,
    drain,
    pause_watcher,
    recover,
    master_failover,
    switch,
    node_maintenance,
    config,
    backup,
    restore_backup,
    *commands,
    fields,
    monitoring_password,
    call,
):
    program.add_command(_command)


def main() -> None:
    """Runs the program on the process's arguments; ends the process."""
    for stream in (sys.stdout, sys.stderr):
        # Don't fail on a log line with characters that the terminal's encoding lacks.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        program(prog_name="gnt-luxi")
    except KeyboardInterrupt:  # before a command is running
        sys.exit(EXIT_INTERRUPTED)
