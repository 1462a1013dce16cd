"""``gnt-luxi call``: any LUXI method, by name."""

from __future__ import annotations

import click

from ganeti_masterd.cli.command import Command
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.luxi.documents import ProtocolError, parse_strictly


@click.command("call", cls=Command)
@click.argument("method")
@click.argument("args", required=False, default="[]")
@pass_session
def call(session: Session, method: str, args: str) -> None:
    """Call a LUXI method, and print its result as JSON.

    ARGS is a JSON list of the arguments. Default: no arguments.

    \b
      gnt-luxi call QueryConfigValues '[["cluster_name", "master_node"]]'
    """  # noqa: D301
    try:
        values = parse_strictly(args.encode("utf-8", "surrogateescape"))
    except ProtocolError as error:
        raise click.BadParameter(str(error), param_hint="'ARGS'") from None
    if not isinstance(values, list):
        raise click.BadParameter(f"expected a JSON list, such as '[{args}]'", param_hint="'ARGS'")
    session.out.document(session.call(method, *values))
