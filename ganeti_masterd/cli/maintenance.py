"""``gnt-luxi node-maintenance``: empties a node before it is switched off, and fills it again.

All is done by ordinary jobs. What is still to do is read off the cluster, so the command can be
stopped at any time: jobs that it has submitted go on, and the next run waits for them and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
import msgspec

from ganeti_masterd.cli import maintenance_plan as planning
from ganeti_masterd.cli.command import Command, CommandFault
from ganeti_masterd.cli.displays import Nothing, display, ending, follow
from ganeti_masterd.cli.following import LogFollower
from ganeti_masterd.cli.jobfile import REASON_CLIENT, RawJob, with_reason
from ganeti_masterd.cli.maintenance_plan import HostedInstance, MaintainedNode, PlannedMove
from ganeti_masterd.cli.output import Column
from ganeti_masterd.cli.rows import JobOutcome, ShownJob, Whole, fetch
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import counted, duration
from ganeti_masterd.constants import STATUSES_FINALIZED
from ganeti_masterd.errors import LuxiError

T = TypeVar("T")

COLUMNS = (
    Column("Instance"),
    Column("What"),
    Column("To", wraps=True),
    Column("MiB", right=True),
    Column("Takes about", right=True),
)


@click.command("node-maintenance", cls=Command)
@click.argument("node")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and end.")
@click.option("--undo", is_flag=True, help="Bring back what an earlier run moved.")
@click.option("--keep-mirrors", is_flag=True, help="Leave mirrors: nothing is copied.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask before it begins.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default="100",
    show_default=True,
    metavar="MIB",
    help="MiB per second that are copied, for the times in the plan.",
)
@pass_session
def node_maintenance(
    session: Session,
    node: str,
    only_plan: bool,
    undo: bool,
    keep_mirrors: bool,
    yes: bool,
    speed: float,
) -> None:
    """Empty a node before it is switched off, or fill it again.

    Shows the plan; then drains NODE, migrates its primary instances (those that are down fail
    over), has mirrors moved to other nodes, and says whether the node may be switched off. May be
    stopped, and run again to go on. The exit code is 1 if the node may not be switched off, or with
    --undo if something did not come back.
    """
    if undo and keep_mirrors:
        raise click.UsageError("--keep-mirrors is not for --undo.")
    work = _Maintenance(session, node)
    if not only_plan:
        work.wait_for_earlier_jobs()
    if undo:
        work.undo(only_plan=only_plan, yes=yes, speed=speed)
    else:
        work.begin(only_plan=only_plan, yes=yes, speed=speed, keep_mirrors=keep_mirrors)


class _Maintenance:
    """One run of the command."""

    def __init__(self, session: Session, node: str) -> None:
        self._session = session
        self._out = session.out
        self._node = self._look_at(node)
        self._name = self._node.name
        self._command = f"node-maintenance {self._name}"

    # The two ways

    def begin(self, *, only_plan: bool, yes: bool, speed: float, keep_mirrors: bool) -> None:
        """Empties the node."""
        if self._node.master:
            raise CommandFault(
                f"Node {self._name} is the master: make another one the master first "
                "(gnt-luxi master-failover, there)"
            )
        instances = self._instances()
        places = {} if keep_mirrors else self._places(instances)
        plan = planning.plan_of(self._name, instances, places, keep_mirrors=keep_mirrors)
        self._show(plan, speed)
        if only_plan:
            self._document(plan)
            return
        if plan:
            self._confirm(yes)
        self._run(planning.drain(self._node), required=True)
        self._run(planning.moves(self._name, self._instances()))
        if not keep_mirrors:
            self._run(planning.evacuation(self._name, self._instances()))
        self._end(plan)

    def _end(self, plan: Sequence[PlannedMove]) -> None:
        """Says whether the node may be switched off."""
        self._node = self._look_at(self._name)
        instances = self._instances()
        running = planning.running_on(self._name, instances)
        unprotected = planning.unprotected_without(self._name, instances)
        if self._out.json:
            self._document(plan, running=running, unprotected=unprotected, may_be_off=not running)
        elif running:
            self._out.line(
                f"Node {self._name} must not be switched off: {', '.join(running)} "
                f"{'run' if len(running) > 1 else 'runs'} there"
            )
        else:
            self._out.line(f"Node {self._name} may be switched off")
        if unprotected and not self._out.json:
            self._out.line(f"Without redundancy while it is off: {', '.join(unprotected)}")
        if running:
            raise click.exceptions.Exit(1)

    def undo(self, *, only_plan: bool, yes: bool, speed: float) -> None:
        """Fills the node again."""
        if self._node.offline:
            raise CommandFault(
                f"Node {self._name} is marked offline: bring it back first "
                f"(gnt-node add --readd {self._name})"
            )
        moved = self._moved()
        plan = planning.returning(self._name, moved)
        self._show(plan, speed)
        if only_plan:
            self._document(plan)
            return
        if plan:
            self._confirm(yes)
        self._run(planning.undrain(self._node), required=True)
        self._run(planning.returns(self._name, moved))
        missing = [one.name for one in self._moved()]
        if self._out.json:
            self._document(plan, missing=missing)
        elif missing:
            self._out.line(f"Not back yet, run this again for them: {', '.join(missing)}")
        else:
            self._out.line(f"All is back on node {self._name}")
        if missing:
            raise click.exceptions.Exit(1)

    # What there is

    def _look_at(self, name: str) -> MaintainedNode:
        rows = self._ask("node", planning.NODE_FIELDS, ["=", "name", name], MaintainedNode)
        if not rows:
            raise CommandFault(f"There is no node {name}")
        return rows[0]

    def _instances(self) -> list[HostedInstance]:
        """Returns the instances that the node has now."""
        return self._find("|", ["=", "pnode", self._name], ["=[]", "snodes", self._name])

    def _moved(self) -> list[HostedInstance]:
        """Returns the instances that were moved away, and aren't back."""
        tags = planning.TagNames(self._name)
        return self._find("|", ["=[]", "tags", tags.primary], ["=[]", "tags", tags.secondary])

    def _find(self, *filter: Any) -> list[HostedInstance]:
        return self._ask("instance", planning.INSTANCE_FIELDS, list(filter), HostedInstance)

    def _ask(self, what: str, fields: Iterable[str], filter: Any, kind: type[T]) -> list[T]:
        answer = self._session.client.query(what, list(fields), filter)
        try:
            rows = [[value for _, value in row] for row in answer["data"]]
            return msgspec.convert(rows, list[kind])  # type: ignore[valid-type]
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise LuxiError(f"The answer about {what}s can't be understood: {error}") from None

    def _places(self, instances: Sequence[HostedInstance]) -> Mapping[str, str]:
        """Returns where an allocator would put the mirrors that are on the node now."""
        names = [one.name for one in planning.mirrors(self._name, instances)]
        names = [name for name in names if name in self._node.secondaries]
        if not names:
            return {}
        cluster = self._session.client.cluster_info()
        op = {
            "OP_ID": "OP_TEST_ALLOCATOR",
            "direction": "out",
            "mode": "node-evacuate",
            "name": names[0],
            "iallocator": cluster.get("default_iallocator") or "builtin",
            "instances": names,
            "evac_mode": "secondary-only",
        }
        (job,) = with_reason([[op]], None, self._command)
        number = self._session.client.submit_job(job)
        (outcome,) = self._wait([number], quiet=True).values()
        if outcome.failed:
            self._out.note(f"gnt-luxi: where mirrors would go isn't known: {ending(outcome)}")
            return {}
        return planning.mirror_places(json.loads(outcome.opresult[0]))

    # Jobs

    def wait_for_earlier_jobs(self) -> None:
        """Waits for jobs of an earlier run."""
        client = self._session.client
        shown = fetch(client, ShownJob, None).values()
        waiting = [job.id for job in shown if job.status not in STATUSES_FINALIZED]
        ours = [job.id for job in fetch(client, Whole, waiting).values() if self._is_ours(job.ops)]
        if ours:
            self._out.note(f"gnt-luxi: {counted(len(ours), 'job')} of an earlier run first")
            self._wait(ours)
            self._node = self._look_at(self._name)

    def _is_ours(self, ops: Iterable[Mapping[str, Any]]) -> bool:
        return any(
            entry[:2] == [REASON_CLIENT, self._command]
            for op in ops
            for entry in op.get("reason") or ()
        )

    def _run(self, jobs: Sequence[RawJob], *, required: bool = False) -> None:
        """Submits jobs, and waits for them and those that they submit.

        What fails is shown; ``required``: it ends the command.
        """
        if not jobs:
            return
        answers = self._session.client.submit_many_jobs(with_reason(jobs, None, self._command))
        for good, text in answers:
            if not good:
                raise CommandFault(f"A job was refused: {text}")
        ended = self._wait([int(number) for _, number in answers])
        if required and any(outcome.failed for outcome in ended.values()):
            raise CommandFault("It ends here, as this job is needed for all that follows")
        inner = [number for outcome in ended.values() for number in _submitted(outcome)]
        if inner:
            self._wait(inner)

    def _wait(self, jobs: Sequence[int], *, quiet: bool = False) -> dict[int, JobOutcome]:
        shown = Nothing() if quiet or self._out.json else display(self._out, jobs)
        follower = LogFollower(self._session.client, jobs, timeout=self._session.timeout)
        return follow(follower.events(), shown)

    # Talking

    def _show(self, plan: Sequence[PlannedMove], speed: float) -> None:
        if self._out.json:
            return
        rows = [
            (
                move.instance,
                move.action,
                move.to,
                str(move.mebibytes) if move.mebibytes else "-",
                duration(move.mebibytes / speed) if move.mebibytes else "-",
            )
            for move in plan
        ]
        self._out.table(COLUMNS, rows)
        total = sum(move.mebibytes for move in plan)
        self._out.line(
            f"{counted(len(plan), 'step')}, {total:,} MiB to copy, about {duration(total / speed)} "
            f"at {speed:g} MiB/s"
            if plan
            else "There is nothing to move"
        )

    def _confirm(self, yes: bool) -> None:
        if yes:
            return
        if not self._out.rich:
            raise CommandFault("Nothing was done: give --yes, as there is nobody to ask")
        click.confirm("Go on?", abort=True)

    def _document(self, plan: Sequence[PlannedMove], **more: Any) -> None:
        if self._out.json:
            moves = [msgspec.structs.asdict(move) for move in plan]
            self._out.document({"node": self._name, "plan": moves, **more})


def _submitted(outcome: JobOutcome) -> list[int]:
    """Returns the jobs that a job's opcodes submitted."""
    found = []
    for result in outcome.opresult:
        if isinstance(result, dict):
            found += [int(number) for good, number in result.get("jobs", ()) if good]
    return found
