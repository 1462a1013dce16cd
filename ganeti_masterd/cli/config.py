"""``gnt-luxi config``: earlier versions of the configuration, their differences, and the way back.

The daemon keeps them; these commands ask it (protocol/luxi.rst, Methods of this daemon).
"""

from __future__ import annotations

from typing import Any

import click
from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.command import CommandFault, CommandGroup
from ganeti_masterd.cli.output import Column
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import counted, minute, printable

#: How many versions are listed unless more are asked for.
LISTED = 20


class ListedVersion(Struct, frozen=True):
    """A version as the daemon lists it."""

    id: int
    time: float
    serial: int
    uid: int | None
    job: int | None
    note: str
    changes: list[str]
    change_count: int

    @property
    def author(self) -> str:
        """Who changed it, such as ``uid 0, job 812``; empty where that isn't known."""
        parts = [] if self.uid is None else [f"uid {self.uid}"]
        parts += [] if self.job is None else [f"job {self.job}"]
        return ", ".join(parts)

    @property
    def words(self) -> str:
        """What it changed, and what else is to be said."""
        parts = [self.note] if self.note else []
        parts += self.changes
        more = self.change_count - len(self.changes)
        if more:
            parts.append(f"and {counted(more, 'change')} more")
        return printable("; ".join(parts)) or "nothing that is shown"


class ListedDifference(Struct, frozen=True):
    """A difference as the daemon lists it."""

    text: str


class Restored(Struct, frozen=True):
    """What a restoration did, or would do."""

    refusals: list[str]
    kept: list[str]
    changes: list[str]
    serial: int | None


@click.group("config", cls=CommandGroup)
def config() -> None:
    """Show earlier versions of the configuration, or restore one.

    The daemon keeps each change of the last day, and fewer of the time before.
    """


@config.command("log")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=str(LISTED),
    show_default=True,
    metavar="N",
    help="Show the latest N versions only; 0 shows all.",
)
@pass_session
def log(session: Session, limit: int) -> None:
    """List versions, the latest last: when, who, and what was changed."""
    answer = session.call("ConfigLog", limit or None)
    found = read_as(list[ListedVersion], answer, "versions of the configuration")
    if session.out.json:
        session.out.document(answer)
        return
    session.out.table(
        (
            Column("Version", right=True),
            Column("Time"),
            Column("By"),
            Column("Changes", wraps=True),
        ),
        [(str(one.id), minute((int(one.time), 0)), one.author or "-", one.words) for one in found],
    )


@config.command("diff")
@click.argument("old", type=click.IntRange(min=1))
@click.argument("new", type=click.IntRange(min=1), required=False)
@pass_session
def diff(session: Session, old: int, new: int | None) -> None:
    """Say what differs between two versions; without NEW, between OLD and the latest.

    Private values are never shown, only that they were changed.
    """
    answer = session.call("ConfigDiff", old, new)
    found = read_as(list[ListedDifference], answer, "differences")
    if session.out.json:
        session.out.document(answer)
        return
    for one in found:
        session.out.line(printable(one.text))
    if not found:
        session.out.note("gnt-luxi: there is no difference")


@config.command("show")
@click.argument("version", type=click.IntRange(min=1))
@pass_session
def show(session: Session, version: int) -> None:
    """Print a version as JSON, with private values hidden."""
    session.out.document(read_as(dict[str, Any], session.call("ConfigShow", version)))


@config.command("restore")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--check", is_flag=True, help="Only say what would be changed.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@pass_session
def restore(session: Session, version: int, check: bool, yes: bool) -> None:
    """Bring a version back, if nothing contradicts it.

    Nodes are asked first: what runs there, and which disks they have. If any of it contradicts
    the version, nothing is changed. Roles and addresses of nodes, the master and the cluster's
    name stay as they are. Restoring is a change like any other, and another restore undoes it.
    """
    out = session.out
    checked = _ask(session, version, only_check=True)
    if checked.refusals:
        _refuse(session, version, checked)
    if check or not checked.changes:
        _tell(session, version, checked)
        return
    if not yes:
        if not out.rich:
            raise CommandFault("Nothing was done: give --yes, as there is nobody to ask")
        _tell(session, version, checked)
        click.confirm("Go on?", abort=True)
    done = _ask(session, version, only_check=False)
    if done.refusals:
        _refuse(session, version, done)
    _tell(session, version, done)


def _ask(session: Session, version: int, *, only_check: bool) -> Restored:
    answer = session.call("ConfigRestore", version, only_check)
    return read_as(Restored, answer, "the restored version")


def _refuse(session: Session, version: int, found: Restored) -> None:
    if session.out.json:
        _document(session, version, found)
        raise click.exceptions.Exit(1)
    lines = "".join(f"\n  {one}" for one in found.refusals)
    raise CommandFault(f"Version {version} can't be restored, nothing was changed:{lines}")


def _document(session: Session, version: int, found: Restored) -> None:
    session.out.document(
        {
            "version": version,
            "refusals": found.refusals,
            "kept": found.kept,
            "changes": found.changes,
            "serial": found.serial,
        }
    )


def _tell(session: Session, version: int, found: Restored) -> None:
    out = session.out
    if out.json:
        _document(session, version, found)
        return
    for one in found.changes:
        out.line(printable(one))
    for one in found.kept:
        out.line(printable(f"Stays as it is: {one}"))
    if not found.changes:
        out.line(f"Version {version} is what there is now")
    elif found.serial is not None:
        out.line(f"Version {version} is restored; the configuration has serial {found.serial}")
