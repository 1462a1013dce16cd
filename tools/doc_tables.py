"""Tables of the documentation that are read off the code's own, so that none goes stale.

Each function returns reStructuredText. Sphinx puts it where the documents say
``.. from-code:: NAME`` (the directive is in ``docs/conf.py``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar, cast

from ganeti_masterd.constants import STATUSES_FINALIZED
from ganeti_masterd.execution.phases import TABLE as PHASES
from ganeti_masterd.jobs.model import STEPS
from ganeti_masterd.logical_units.backups.procedure import EXPORT
from ganeti_masterd.logical_units.moves.cleaning_up import CLEANUP
from ganeti_masterd.logical_units.moves.copying import COPY
from ganeti_masterd.logical_units.moves.failing_over import FAILOVER
from ganeti_masterd.logical_units.moves.migrating import MIGRATION
from ganeti_masterd.logical_units.moves.replacing_in_place import EXCHANGE, IN_PLACE
from ganeti_masterd.logical_units.moves.replacing_secondary import NEW_SECONDARY
from ganeti_masterd.logical_units.registry import UNITS
from ganeti_masterd.logical_units.steps.procedure import Procedure
from ganeti_masterd.luxi.clientstates import TABLE as CLIENT
from ganeti_masterd.luxi.serverstates import TABLE as CONNECTION
from ganeti_masterd.monitoring.declarations import METRICS
from ganeti_masterd.options import Options
from ganeti_masterd.query.resources import RESOURCES
from ganeti_masterd.replication.standing import TABLE as CANDIDATE
from ganeti_masterd.requests.methods import Method
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.requests.wconfd import WCONFD_METHODS
from ganeti_masterd.simulation.ends import MEETING
from ganeti_masterd.simulation.switches import SWITCHES
from ganeti_masterd.startup.shutdown import TABLE as SHUTDOWN
from tools.log_lines import MEANINGS, log_lines

S = TypeVar("S", bound=Enum)

#: Where a docstring says that a rule comes from: nothing for readers.
_SOURCE = re.compile(r" \((spec|real) [^)]*\)")


def table(header: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table whose cells are reStructuredText of one line each."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        f"   :widths: {' '.join(map(str, widths))}",
        "",
    ]
    for row in (header, *rows):
        lines += [f"   {'* -' if index == 0 else '  -'} {cell}" for index, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def options() -> str:
    """Returns what may stand after ``gnt-masterd`` on the command line."""
    flags = cast(list[list[Any]], Options.optFlags)
    parameters = Options.optParameters
    declared = [(_option(name, short), "", text) for name, short, text in flags]
    for name, short, default, text, *_ in parameters:
        declared.append((_option(name, short, value=True), _default(default), text))
    declared.sort(key=lambda item: item[0].rpartition("--")[2])
    return "\n".join(f"{names}\n    {text}{default}\n" for names, default, text in declared)


def _option(name: str, short: str | None, *, value: bool = False) -> str:
    shown = f"``--{name}{'=' if value else ''}``"
    return shown if short is None else f"``-{short}``, {shown}"


def _default(value: object) -> str:
    return "" if value is None or value == "" else f" Default: {value}."


def methods() -> str:
    """Returns every LUXI method: its arguments with their types, what it does."""
    return _methods(METHODS)


def wconfd() -> str:
    """Returns every method of wconfd's socket, as :func:`methods` does."""
    return _methods(WCONFD_METHODS)


def _methods(declared: Mapping[str, Method]) -> str:
    return table(
        ("Method", "Arguments", "What it does"),
        (22, 40, 38),
        (
            (f"``{name}``", _arguments(method), _first_sentence(method.function))
            for name, method in sorted(declared.items())
        ),
    )


def _arguments(method: Method) -> str:
    if method.any_arguments:
        return "any"
    shown = [
        f"``{argument.name.rstrip('_')}``: {argument.expected}"
        + ("" if argument.required else " (optional)")
        for argument in method.arguments
    ]
    return "; ".join(shown) or "none"


def resources() -> str:
    """Returns what can be queried."""
    return ", ".join(f"``{name}``" for name in sorted(RESOURCES)) + "\n"


def units() -> str:
    """Returns every opcode, with its logical unit."""
    return table(
        ("Opcode", "Logical unit", "What it does"),
        (28, 30, 42),
        (
            (f"``{op_id}``", f":class:`{unit.__module__}.{unit.__name__}`", _first_sentence(unit))
            for op_id, unit in sorted(UNITS.items())
        ),
    )


def steps() -> str:
    """Returns the states of an opcode, and which may follow each."""
    return table(
        ("From", "May become"),
        (20, 80),
        ((f"``{status}``", _followers(status, following)) for status, following in STEPS.items()),
    )


def _followers(status: str, following: frozenset[str]) -> str:
    if not following:
        return "nothing: it has ended" if status in STATUSES_FINALIZED else "nothing"
    order = list(STEPS)
    return ", ".join(f"``{name}``" for name in sorted(following, key=order.index))


def _machine(
    header: Sequence[str],
    machine: Mapping[S, tuple[str, frozenset[S]]],
    shown: Callable[[S], str] = lambda state: f"``{state.name}``",
) -> str:
    """Returns a table of states: each, what is done in it, and what may follow."""
    order = list(machine)
    return table(
        header,
        (17, 50, 33),
        (
            (
                shown(state),
                meaning,
                ", ".join(map(shown, sorted(following, key=order.index))) or "nothing",
            )
            for state, (meaning, following) in machine.items()
        ),
    )


def phases() -> str:
    """Returns where a job under way may stand, and what may follow."""
    return _machine(("Phase", "The job's current opcode", "Then"), PHASES)


def candidate() -> str:
    """Returns where a master candidate may stand, and what may follow."""
    header = ("Standing", "A candidate", "Then")
    return _machine(header, CANDIDATE, lambda standing: standing.value)


def connection() -> str:
    """Returns what the server's end of a LUXI connection does, and what may follow."""
    return _machine(("State", "The connection", "Then"), CONNECTION)


def client() -> str:
    """Returns what a LUXI client does about its connection, and what may follow."""
    return _machine(("State", "The client", "Then"), CLIENT)


def procedure_table(procedure: Procedure[Any]) -> str:
    """Returns the steps of a procedure: what each does, how it ends half-way, what helps then."""
    return table(
        ("", "Step", "If it ends there", "What goes on from there"),
        (4, 34, 36, 26),
        (
            (
                f"{number}"
                + (" (final)" if step.final else "")
                + (" (not killed)" if step.shielded else ""),
                step.does + ("" if step.undo is None else " (taken back on failure)"),
                step.leaves,
                f"``{step.finish}``",
            )
            for number, step in enumerate(procedure.steps, 1)
        ),
    )


def replacement_in_place() -> str:
    """Returns how mirrors get new volumes on a node where they stay."""
    return procedure_table(IN_PLACE)


def exchange_of_volumes() -> str:
    """Returns how the volumes of one mirror are exchanged on a node."""
    return procedure_table(EXCHANGE)


def replacement_of_secondary() -> str:
    """Returns how mirrors get another secondary node."""
    return procedure_table(NEW_SECONDARY)


def failover_of_instance() -> str:
    """Returns how an instance fails over."""
    return procedure_table(FAILOVER)


def migration_of_instance() -> str:
    """Returns how an instance is migrated."""
    return procedure_table(MIGRATION)


def cleanup_after_migration() -> str:
    """Returns how a migration that ended half-way is cleaned up."""
    return procedure_table(CLEANUP)


def move_of_instance() -> str:
    """Returns how the disks of an instance are copied to another node."""
    return procedure_table(COPY)


def export_of_instance() -> str:
    """Returns how an instance is exported."""
    return procedure_table(EXPORT)


def shutdown() -> str:
    """Returns how a shutdown goes on: what may happen in each state, and what is done."""
    return table(
        ("State", "What happens", "Then", "What is done"),
        (14, 30, 14, 42),
        (
            (
                f"``{state.name}``",
                happening.value,
                f"``{following.name}``",
                "; ".join(act.value for act in acts),
            )
            for (state, happening), (following, acts) in SHUTDOWN.items()
        ),
    )


def metrics() -> str:
    """Returns every metric of the daemon's own, with its kind and its labels."""
    return table(
        ("Metric", "Kind", "Labels", "What it tells"),
        (36, 10, 18, 36),
        (
            (
                f"``{metric.name}``",
                metric.kind,
                ", ".join(f"``{label}``" for label in metric.labels),
                metric.text,
            )
            for metric in METRICS.values()
        ),
    )


def switches() -> str:
    """Returns every command that disturbs simulated nodes."""
    return table(
        ("Command", "What it does"),
        (40, 60),
        (
            (f"``{' '.join((name, *switch.words))}``", switch.does)
            for name, switch in SWITCHES.items()
        ),
    )


def meetings() -> str:
    """Returns what two ends of a simulated mirror do when they meet."""
    return table(
        ("One end", "The other", "Then the first"),
        (30, 30, 40),
        (
            (one.value, other.value, "is compared by generation" if what is None else what.value)
            for (one, other), what in MEETING.items()
        ),
    )


def log() -> str:
    """Returns every kind of line in the log, by the part that writes it, and what it means."""
    return table(
        ("Level", "Part", "Line", "What it means"),
        (8, 16, 38, 38),
        (
            (
                line.level,
                f"``{line.module.removeprefix('ganeti_masterd.')}``",
                f"``{line.text}``",
                MEANINGS[line.text],
            )
            for line in log_lines()
        ),
    )


def _first_sentence(what: object) -> str:
    text = " ".join((inspect.getdoc(what) or "").split("\n\n")[0].split())
    return _SOURCE.sub("", text).replace("*", r"\*")


#: What ``.. from-code:: NAME`` may name.
TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        options,
        methods,
        wconfd,
        resources,
        units,
        steps,
        phases,
        candidate,
        connection,
        client,
        replacement_in_place,
        exchange_of_volumes,
        replacement_of_secondary,
        failover_of_instance,
        migration_of_instance,
        cleanup_after_migration,
        move_of_instance,
        export_of_instance,
        shutdown,
        metrics,
        switches,
        meetings,
        log,
    )
}
