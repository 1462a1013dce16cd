"""``gnt-luxi nodes``, ``instances`` and so on: one command for each resource, and ``fields``.

Each command is an entry of :data:`LISTINGS`; it gets its rows with LUXI's Query.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import click
from msgspec import Struct

from ganeti_masterd.cli.cells import CellWriting, ListedAnswer, Units, as_object, read_answer
from ganeti_masterd.cli.command import Command, CommandFault
from ganeti_masterd.cli.output import Column
from ganeti_masterd.cli.patterns import name_filter
from ganeti_masterd.cli.session import Session, pass_session


class Listing(Struct, frozen=True):
    """A command that lists a resource; ``key`` is the field with the row's name, if any."""

    command: str
    resource: str
    about: str
    shown: tuple[str, ...]
    key: str | None = None


LISTINGS = (
    Listing(
        "nodes",
        "node",
        "List nodes.",
        ("name", "role", "group", "dtotal", "dfree", "mtotal", "mfree", "pinst_cnt", "sinst_cnt"),
        "name",
    ),
    Listing(
        "instances",
        "instance",
        "List instances.",
        ("name", "status", "pnode", "snodes", "os", "oper_ram", "disk_usage"),
        "name",
    ),
    Listing(
        "groups",
        "group",
        "List node groups.",
        ("name", "node_cnt", "pinst_cnt", "alloc_policy"),
        "name",
    ),
    Listing(
        "networks",
        "network",
        "List networks.",
        ("name", "network", "gateway", "free_count", "reserved_count", "group_list"),
        "name",
    ),
    Listing("os", "os", "List operating systems.", ("name", "valid", "variants"), "name"),
    Listing("extstorage", "extstorage", "List storage providers.", ("name", "parameters"), "name"),
    Listing("exports", "export", "List exports; NAMES are nodes.", ("node", "export"), "node"),
    Listing(
        "locks",
        "lock",
        "List the locks that are held or waited for.",
        ("name", "mode", "owner", "pending"),
        "name",
    ),
    Listing(
        "filters",
        "filter",
        "List the filter rules of the job queue; NAMES are UUIDs.",
        ("uuid", "priority", "action", "predicates"),
        "uuid",
    ),
    Listing(
        "cluster",
        "cluster",
        "Show values of the cluster.",
        ("cluster_name", "master_node", "drain_flag", "watcher_pause"),
    ),
)

#: For ``fields``; jobs are listed by a separate command, :mod:`ganeti_masterd.cli.jobs`.
JOBS = Listing("jobs", "job", "List jobs.", ("id", "status", "summary"), "id")

_BY_COMMAND = {listing.command: listing for listing in (*LISTINGS, JOBS)}


class Wish(Struct, frozen=True, kw_only=True):
    """The values of a listing's options; None for those not given."""

    fields: str | None = None
    filter: str | None = None
    headers: bool | None = None
    separator: str | None = None
    units: Units | None = None
    verbose: bool = False


def wishes(command: Callable[..., Any], sizes: bool = True) -> Callable[..., Any]:
    """Adds the options of a listing to a command, which gets them as a :class:`Wish`, ``wish``.

    With ``sizes`` it also gets the options for sizes and for missing values.
    """

    def gathered(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in Wish.__struct_fields__ if name in options}
        return command(*args, wish=Wish(**given), **options)

    gathered.__doc__ = command.__doc__
    gathered.__dict__.update(command.__dict__)
    for option in reversed(_OPTIONS if sizes else _OPTIONS[:_FOR_ALL]):
        gathered = option(gathered)
    return gathered


#: How many of the options, from the first, are for every listing.
_FOR_ALL = 4
_OPTIONS = (
    click.option(
        "-o",
        "--output",
        "fields",
        metavar="FIELDS",
        help="Fields to show, separated by commas; +FIELDS adds to the default ones.",
    ),
    click.option(
        "-F",
        "--filter",
        metavar="FILTER",
        help="Only rows that pass, such as 'not master and mfree > 1024'.",
    ),
    click.option(
        "--headers/--no-headers",
        default=None,
        help="Print a line of titles, or none. Default: only on a terminal.",
    ),
    click.option(
        "--separator",
        metavar="TEXT",
        help="Separate the columns with this. Default: a tab; on a terminal a table is drawn.",
    ),
    click.option(
        "--units",
        type=click.Choice(["h", "m", "g", "t"]),
        help="Show sizes in suitable units (h), or as numbers of MiB, GiB or TiB. Default: h on a "
        "terminal, otherwise m.",
    ),
    click.option("-v", "--verbose", is_flag=True, help="Say in words why a value is missing."),
)


def chosen_fields(given: str | None, usual: Sequence[str]) -> list[str]:
    """Returns the fields given with ``-o``; raises ``click.BadParameter`` for an empty name."""
    if given is None:
        return list(usual)
    added = given.startswith("+")
    names = [name.strip() for name in given.removeprefix("+").split(",")]
    if not all(names):
        raise click.BadParameter(f"{given!r} names no field in one place", param_hint="'-o'")
    return [*usual, *names] if added else names


def chosen_rows(listing: Listing, names: Sequence[str], text: str | None) -> Any:
    """Returns the filter for names, or the parsed text of a filter; None for all rows.

    Raises ``click.UsageError`` if both are given, or if the text is not a filter.
    """
    if text is None:
        return None if listing.key is None else name_filter(listing.key, names)
    if names:
        raise click.UsageError(
            f"Give either names or a filter; a filter can hold names: {listing.key} == "
            f'"{names[0]}" or {listing.key} =* "{names[0]}*"'
        )
    return read_filter(text)


def read_filter(text: str) -> Any:
    """Returns a parsed filter; raises ``click.BadParameter``, showing where the text is wrong."""
    # Imported late, because the parser takes a while to load.
    from ganeti_masterd.cli.filterlang import FilterSyntaxError, parse_filter

    try:
        return parse_filter(text)
    except FilterSyntaxError as error:
        raise click.BadParameter(str(error), param_hint="'-F'") from None


def ask(session: Session, listing: Listing, fields: Sequence[str], chosen: Any) -> ListedAnswer:
    """Returns the daemon's answer; ends the command if a field doesn't exist."""
    answer = read_answer(session.client.query(listing.resource, fields, chosen))
    unknown = [head.name for head in answer.fields if head.kind == "unknown"]
    if unknown:
        known = read_answer(session.client.query_fields(listing.resource)).fields
        raise CommandFault(_no_such_fields(listing, unknown, [head.name for head in known]))
    return answer


def show(session: Session, answer: ListedAnswer, wish: Wish) -> None:
    """Prints an answer in the form that was asked for."""
    out = session.out
    if out.json:
        out.document([as_object(answer, row) for row in answer.data])
        return
    drawn = out.rich and wish.separator is None
    writing = CellWriting(units=wish.units or ("h" if drawn else "m"), verbose=wish.verbose)
    out.table(
        [Column(head.title, right=head.right) for head in answer.fields],
        [
            [
                writing.cell(head, status, value)
                for head, (status, value) in zip(answer.fields, row, strict=True)
            ]
            for row in answer.data
        ],
        headers=wish.headers,
        separator=wish.separator,
    )


def _no_such_fields(listing: Listing, unknown: Sequence[str], known: Sequence[str]) -> str:
    texts = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, 1)
        texts.append(repr(name) + (f" (is it {near[0]}?)" if near else ""))
    fields = "field" if len(unknown) == 1 else "fields"
    return f"No such {fields}: {', '.join(texts)}. To list all: gnt-luxi fields {listing.command}"


def _command(listing: Listing) -> click.Command:
    @pass_session
    def run(session: Session, wish: Wish, names: tuple[str, ...] = ()) -> None:
        fields = chosen_fields(wish.fields, listing.shown)
        show(session, ask(session, listing, fields, chosen_rows(listing, names, wish.filter)), wish)

    run.__doc__ = listing.about
    if listing.key is not None:
        run.__doc__ += (
            "\n\nAll of them, or those with the given NAMES; in a name, * matches any characters "
            "except dots, and ? matches one."
        )
        run = click.argument("names", nargs=-1, metavar="[NAMES]...")(run)
    return click.command(listing.command, cls=Command)(wishes(run))


#: The commands of all listings except that of jobs.
commands = tuple(_command(listing) for listing in LISTINGS)


@click.command("fields", cls=Command)
@click.argument("listing", metavar="RESOURCE", type=click.Choice(list(_BY_COMMAND)))
@click.argument("names", nargs=-1, metavar="[FIELDS]...")
@pass_session
def fields(session: Session, listing: str, names: tuple[str, ...]) -> None:
    """List the fields of a resource, for -o and -F.

    RESOURCE is the name of the command that lists it: nodes, instances, jobs ...
    """
    found = read_answer(session.client.query_fields(_BY_COMMAND[listing].resource, names or None))
    unknown = [head.name for head in found.fields if head.kind == "unknown"]
    if unknown:
        raise CommandFault(_no_such_fields(_BY_COMMAND[listing], unknown, ()))
    if session.out.json:
        session.out.document(found.fields)
        return
    session.out.table(
        [Column("Name"), Column("Kind"), Column("Title"), Column("Description", wraps=True)],
        [[head.name, head.kind, head.title, head.doc] for head in found.fields],
    )
