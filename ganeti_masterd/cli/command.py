"""Base classes of commands, the types of their arguments, and their exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from ganeti_masterd.cli.session import Session
from ganeti_masterd.cli.where import absence
from ganeti_masterd.cli.words import exception_text, parse_duration, printable
from ganeti_masterd.constants import (
    OP_PRIO_HIGH,
    OP_PRIO_HIGHEST,
    OP_PRIO_LOW,
    OP_PRIO_LOWEST,
    OP_PRIO_NORMAL,
)
from ganeti_masterd.errors import ConfigurationError, GenericError
from ganeti_masterd.luxi.failures import CallFailed, DaemonUnreachable

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

#: The priorities with a name, as the gnt-* tools have them.
PRIORITIES = {"low": OP_PRIO_LOW, "normal": OP_PRIO_NORMAL, "high": OP_PRIO_HIGH}


class CommandFault(click.ClickException):
    """Ends the command with exit code 1 and a message on standard error."""

    def show(self, file: Any = None) -> None:
        """Prints the message after the program's name."""
        click.echo(f"gnt-luxi: {printable(self.message)}", file=file, err=file is None)


class Command(click.Command):
    """A command that also accepts ``--json`` after its name."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(_json_option())


class CommandGroup(click.Group):
    """A command that has commands of its own; each accepts ``--json`` after its name."""

    command_class = Command

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(_json_option())


def _json_option() -> click.Option:
    return click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        callback=_wants_json,
        help="Print JSON on standard output, and nothing else there.",
    )


def _wants_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    session = context.find_object(Session)
    if value and session is not None:
        session.out.json = True


class Program(click.Group):
    """The program: turns exceptions of any command into a message and an exit code."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; see the class."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _give_up_output()
            raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from None
        except DaemonUnreachable as error:
            raise CommandFault(_unreachable(ctx, error)) from error
        except (CallFailed, ConfigurationError) as error:
            raise CommandFault(str(error)) from error
        except GenericError as error:
            raise CommandFault(exception_text(error)) from error


def _unreachable(context: click.Context, error: DaemonUnreachable) -> str:
    session, cause = context.find_object(Session), error.__cause__
    if session is None or not isinstance(cause, OSError):
        return str(error)
    return absence(session.place, cause)


def _give_up_output() -> None:
    """Discards what is still buffered for standard output, which Python would write at exit."""
    with contextlib.suppress(io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)


class JobIdType(click.ParamType):  # type: ignore[type-arg]
    """A job's id. Shells complete it to the ids in the queue, with each job's summary."""

    name = "job id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the id."""
        text = str(value)
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            self.fail(f"{text!r} is not a job id", param, ctx)
        return int(text)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Asks the daemon for its jobs; returns nothing if there is no daemon."""
        given = ctx.find_root().params
        session = Session(given.get("root"), given.get("socket"), COMPLETION_TIMEOUT)
        try:
            rows = session.client.query_jobs(None, ["id", "status", "summary"])
            return [
                CompletionItem(str(job), help=f"{status} {', '.join(summary)}")
                for job, status, summary in reversed(rows)
                if str(job).startswith(incomplete)
            ][:COMPLETIONS]
        except Exception:  # errors must not be shown at a shell's prompt
            return []
        finally:
            session.close()


#: Seconds that a shell waits for completions of job ids, and the most that it gets.
COMPLETION_TIMEOUT = 2.0
COMPLETIONS = 100


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration such as ``90``, ``30m``, ``12h`` or ``7d``, or one of some special words."""

    name = "duration"

    def __init__(self, **words: float) -> None:
        self._words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the seconds."""
        if isinstance(value, int | float):
            return float(value)
        if value in self._words:
            return self._words[value]
        try:
            return parse_duration(value)
        except ValueError as error:
            words = "".join(f", or {word!r}" for word in self._words)
            self.fail(f"{error}{words}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completes to the words."""
        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


class PriorityType(click.ParamType):  # type: ignore[type-arg]
    """A priority by its name, or a number from -20 (most urgent) to 19."""

    name = "priority"

    def __init__(self, *, submit: bool = False) -> None:
        self._submit = submit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number."""
        if value in PRIORITIES:
            return PRIORITIES[value]
        with contextlib.suppress(ValueError):
            number = int(value)
            allowed = (
                number in PRIORITIES.values()
                if self._submit
                else OP_PRIO_HIGHEST <= number <= OP_PRIO_LOWEST
            )
            if allowed:
                return number
        expected = "-10, 0 or 10" if self._submit else "a number from -20 (most urgent) to 19"
        self.fail(f"{value!r} is neither low, normal, high nor {expected}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completes to the names."""
        return [CompletionItem(name) for name in PRIORITIES if name.startswith(incomplete)]


def job_ids(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument ``jobs`` to a command: one or more job ids, without duplicates."""

    def once(_: click.Context, __: click.Parameter, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(value))

    return click.argument(
        "jobs", metavar="ID...", type=JobIdType(), nargs=-1, required=True, callback=once
    )(command)
