"""``gnt-luxi monitoring-password``: a line for the file of ``--monitoring-users``."""

from __future__ import annotations

import sys

import click

from ganeti_masterd.cli.command import Command
from ganeti_masterd.cli.session import Session, pass_session


@click.command("monitoring-password", cls=Command)
@click.argument("name")
@pass_session
def monitoring_password(session: Session, name: str) -> None:
    """Print a line for the file of --monitoring-users.

    Asks for the password on the terminal; else it is the first line of standard input. Add what
    it prints to the file, which not every user of the host may read, and restart the daemon.
    """
    # Here, as only this command needs it in memory.
    from ganeti_masterd.monitoring.passwords import password_line

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        line = password_line(name, password)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if session.out.json:
        session.out.record({"line": line})
    else:
        session.out.line(line)
