"""``gnt-luxi top``: the cluster as it is now, on a terminal, until one quits."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import click
from msgspec.structs import replace

from ganeti_masterd.cli.command import Command, CommandFault
from ganeti_masterd.cli.output import console, on_terminal
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.topkeys import keys, pressed
from ganeti_masterd.cli.toplooks import Looks
from ganeti_masterd.cli.topview import FollowedJob, ScreenLine, TopState, Viewing, screen
from ganeti_masterd.cli.words import exception_text
from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.failures import CallFailed


@click.command("top", cls=Command)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default="1",
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@pass_session
def top(session: Session, interval: float) -> None:
    """Watch the cluster on a terminal.

    It shows what is wrong, what runs, what waits and why, and what failed; ? shows the keys. It
    asks over LUXI alone, and goes on when the daemon was restarted. NO_COLOR is heeded.
    """
    if session.out.json:
        raise click.UsageError("top has no JSON; gnt-luxi jobs --json and events --json have.")
    if not (on_terminal() and sys.stdin.isatty()):
        raise CommandFault("top needs a terminal; gnt-luxi jobs lists jobs anywhere")
    if os.environ.get("TERM", "dumb") in ("", "dumb"):
        raise CommandFault(f"top can't draw on this terminal (TERM={os.environ.get('TERM', '')})")
    _Top(session, interval).run()


class _Top:
    """One run: what is known, what is viewed, and the terminal."""

    def __init__(self, session: Session, interval: float) -> None:
        self._client = session.client
        self._looks = Looks(session.client)
        self._interval = interval
        self._state: TopState | None = None
        self._followed: FollowedJob | None = None
        self._trouble: str | None = None
        self._viewing = Viewing()

    def run(self) -> None:
        """Looks and draws until one quits."""
        from rich.console import ConsoleDimensions, Group
        from rich.live import Live
        from rich.text import Text

        def drawn(lines: list[ScreenLine]) -> Group:
            return Group(
                *(Text(line.text, line.style, no_wrap=True, overflow="crop") for line in lines)
            )

        terminal = console()
        with (
            _raw_keys() as (stdin, resized),
            Live(console=terminal, screen=True, auto_refresh=False, transient=True) as live,
        ):
            due = 0.0
            while True:
                if time.monotonic() >= due:
                    self._look()
                    due = time.monotonic() + self._interval
                # LINES and COLUMNS may come from another terminal, and don't follow this one.
                width, height = os.get_terminal_size(sys.stdout.fileno())
                terminal.size = ConsoleDimensions(width, height)
                lines = screen(
                    self._state,
                    self._viewing,
                    width,
                    height,
                    followed=self._followed if self._viewing.following is not None else None,
                    trouble=self._trouble,
                )
                live.update(drawn(lines), refresh=True)
                wait = max(0.0, due - time.monotonic())
                ready, _, _ = select.select([stdin, resized], [], [], wait)
                if resized in ready:
                    os.read(resized, 4096)
                if stdin in ready and not self._pressed(os.read(stdin, 4096)):
                    return

    def _look(self) -> None:
        try:
            self._state = self._looks.state()
            self._follow()
            self._trouble = None
        except CallFailed as failure:
            self._client.close()
            self._trouble = exception_text(failure)
        except GenericError as error:  # refused, such as while it stops
            self._trouble = exception_text(error)

    def _follow(self) -> None:
        following = self._viewing.following
        if following is None:
            self._followed = None
            return
        found = self._looks.job(following)
        if found is not None:
            self._followed = found
        elif self._followed is None or self._followed.job.id != following:
            self._viewing = replace(self._viewing, following=None)

    def _pressed(self, data: bytes) -> bool:
        """Takes keys; returns False for the end, as when the terminal is gone."""
        if not data:
            return False
        following = self._viewing.following
        for key in keys(data.decode("utf-8", "replace")):
            viewing = pressed(key, self._viewing, self._state)
            if viewing is None:
                return False
            self._viewing = viewing
        if self._viewing.following not in (None, following):
            self._look()
        return True


@contextmanager
def _raw_keys() -> Iterator[tuple[int, int]]:
    """Has keys come one by one, without echo.

    Yields the descriptor of the keys and one that is readable after the terminal was resized.
    """
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handled = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        tty.setcbreak(stdin)
        yield stdin, reading
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handled)
        signal.set_wakeup_fd(woken)
        os.close(reading)
        os.close(writing)
