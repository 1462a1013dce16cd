"""Printing results: tables and colours on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from ganeti_masterd.cli.words import STYLES, json_text

if TYPE_CHECKING:
    from rich.console import Console


#: Blanks between the columns of a table, and the least width to which a column is cut.
_GAP = 2
_NARROWEST = 4


class Column(Struct, frozen=True):
    """A column of a table; ``status`` columns are coloured by their values."""

    title: str
    right: bool = False
    status: bool = False
    wraps: bool = False


def fitted(widths: Sequence[int], room: int) -> list[int]:
    """Returns the columns' widths, reduced to fit into ``room``; the widest are cut first.

    No column is cut below :data:`_NARROWEST`, even if they don't fit then.
    """
    most = next(
        (
            most
            for most in range(room, _NARROWEST, -1)
            if sum(min(width, most) for width in widths) <= room
        ),
        _NARROWEST,
    )
    return [min(width, most) for width in widths]


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def console() -> Console:
    """Returns a console on standard output that prints text without interpreting markup."""
    # Imported late: plain lines don't need it, and it takes as long to load as a call to the
    # daemon.
    from rich.console import Console

    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Output:
    """Standard output, in the form that was asked for; notes go to standard error."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    @property
    def rich(self) -> bool:
        """Whether to print tables, colours and progress."""
        return not self.json and on_terminal()

    def document(self, value: Any) -> None:
        """Prints a value as JSON: indented on a terminal, else on one line."""
        click.echo(json_text(value, indent=on_terminal()))

    def record(self, value: Any) -> None:
        """Prints a value as JSON on one line, and flushes the output."""
        click.echo(json_text(value))
        sys.stdout.flush()

    def line(self, text: str = "", style: str | None = None) -> None:
        """Prints a line, and flushes the output; ``style`` is used only on terminals."""
        if style is not None and self.rich:
            console().print(text, style=style)
        else:
            click.echo(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Prints a remark that isn't part of the result on standard error."""
        click.echo(text, err=True)

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[str]],
        *,
        headers: bool | None = None,
        separator: str | None = None,
    ) -> None:
        """Prints rows: as a table on a terminal, else as lines of fields separated by tabs.

        If ``separator`` is given, prints lines in any case. Titles are printed with tables
        only, unless ``headers`` says otherwise.
        """
        if not self.rich or separator is not None:
            between = "\t" if separator is None else separator
            if headers:
                click.echo(between.join(column.title for column in columns))
            for row in rows:
                click.echo(between.join(each.replace("\n", " ") for each in row))
            return
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        screen = console()
        rows = list(rows)
        titles = [column.title if headers is not False else "" for column in columns]
        longest = [
            max(cell_len(line) for cell in cells for line in cell.split("\n"))
            for cells in zip(titles, *rows, strict=True)
        ]
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, _GAP, 0, 0),
            header_style="bold",
            show_header=headers is not False,
        )
        room = screen.width - _GAP * (len(columns) - 1)
        for column, width in zip(columns, fitted(longest, room), strict=True):
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                width=width,
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
            )
        for row in rows:
            table.add_row(
                *(
                    Text(cell, style=STYLES.get(cell, "") if column.status else "")
                    for column, cell in zip(columns, row, strict=True)
                )
            )
        screen.print(table, soft_wrap=False)

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Prints named values, one per line; names are bold on a terminal."""
        pairs = list(pairs)
        width = max((len(name) for name, _ in pairs), default=0) + 1
        if not self.rich:
            for name, value in pairs:
                click.echo(f"{name + ':':{width}} {value}")
            return
        from rich.text import Text

        screen = console()
        for name, value in pairs:
            screen.print(Text.assemble((f"{name + ':':{width}}", "bold"), f" {value}"))
