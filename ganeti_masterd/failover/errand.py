"""A whole fail-over, step by step: :class:`FailOver`.

It can be interrupted at any point and run again. This node's own ssconf names the old master until
the end, so no daemon starts here after half a fail-over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from msgspec import Struct

from ganeti_masterd.config.document import ConfigImage
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import GenericError, PidFileLockError
from ganeti_masterd.failover import asking, voting
from ganeti_masterd.failover.adoption import (
    adopt,
    archived_here,
    forget_journal,
    queue_held,
    read_own,
)
from ganeti_masterd.failover.asking import NodeFailed
from ganeti_masterd.failover.fetching import Fetch, FetchFailed
from ganeti_masterd.failover.holdings import Held, Lacking, OwnFiles, lacking, serial_of
from ganeti_masterd.failover.newest import Copy, Newest, check_candidate, choose, promoted
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.replication.comparison import sha1
from ganeti_masterd.rpc.interfaces import INodeRPC, Target
from ganeti_masterd.startup.agreement import Say
from ganeti_masterd.startup.checks import IMachine, StartRefused, named_master, refuse_others
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.locks import refuse_held
from ganeti_masterd.startup.paths import Paths


class FailOverWishes(Struct, frozen=True):
    """The options of a fail-over.

    ``vote``: the other nodes must agree. ``keep_own``: if another candidate's files differ and
    can't be read, this node's are used. ``start``: start the daemon at the end.
    """

    vote: bool = True
    keep_own: bool = False
    start: bool = True


class FailOverPlan(Struct, frozen=True):
    """Which node takes over from which, according to this node's own files."""

    old: str
    own: str
    snapshot: Snapshot

    def node(self, name: str) -> Node:
        """Returns a node by name; raises :class:`StartRefused` if there is none."""
        node = self.snapshot.nodes.named(name)
        if node is None:
            raise StartRefused(
                f"The configuration knows no node {name}, which ssconf names as master"
            )
        return node

    @property
    def others(self) -> list[Node]:
        """All nodes except this one."""
        return [node for node in self.snapshot.nodes.values() if node.name != self.own]


class FailOverReport(Struct, frozen=True):
    """What was done.

    ``config_of`` is the node whose configuration was used, ``config_serial`` the document's new
    serial number, ``serial`` the last job id that may have been given. ``jobs`` were taken from
    other candidates. ``journals`` are this node's own old journals, under their new names.
    ``running``: the daemon runs here.
    """

    old: str
    own: str
    config_of: str
    config_serial: int
    serial: int
    jobs: list[int]
    journals: list[str]
    running: bool


class FailOverOutcome(Struct, frozen=True):
    """The result: a report, or why the fail-over was not done or not completed; and warnings."""

    report: FailOverReport | None = None
    refusal: str | None = None
    warnings: list[str] = []


class FailOver:
    """Makes this node the master. Blocking, except for calls to nodes.

    ``say`` is called with a line before each step that takes long, ``fetch`` reads other
    candidates' files, ``now`` returns seconds since the epoch.
    """

    def __init__(
        self,
        nodes: INodeRPC,
        paths: Paths,
        machine: IMachine,
        wishes: FailOverWishes,
        *,
        fetch: Fetch,
        say: Say,
        now: Callable[[], float],
    ) -> None:
        self._nodes = nodes
        self._paths = paths
        self._files = paths.queue_files
        self._machine = machine
        self._wishes = wishes
        self._fetch = fetch
        self._say = say
        self._now = now
        self._warnings: list[str] = []
        self._stopped: str | None = None

    async def run(self) -> FailOverOutcome:
        """Runs the whole fail-over; a refusal is in the outcome, not raised."""
        try:
            return FailOverOutcome(await self._run(), None, self._warnings)
        except (StartRefused, GenericError, NodeFailed, OSError, sqlite3.Error) as error:
            if self._stopped is not None:
                self._warnings.append(
                    f"The master daemon on {self._stopped} was stopped. If that node is to stay"
                    " the master: daemon-util start-master, there"
                )
            return FailOverOutcome(None, str(error), self._warnings)

    async def _run(self) -> FailOverReport:
        plan = self._check()
        answering = await self._vote(plan)
        await self._stop_old(plan, answering)
        with queue_held(self._paths):
            own = read_own(self._paths)
            newest = await self._newest(plan, own, answering)
            snapshot = promoted(newest.snapshot, plan.own, self._now())
            journals = forget_journal(self._paths, plan.old, self._now())
            adopt(self._paths, own, newest, snapshot)
            await self._tell(plan, snapshot, answering)
        if QueueFolder(self._paths.queue).drained():
            self._warnings.append("The queue is drained, as it was: no new jobs are taken")
        running = await self._start(plan) if self._wishes.start else False
        return FailOverReport(
            old=plan.old,
            own=plan.own,
            config_of=newest.config_of,
            config_serial=snapshot.header.serial_no,
            serial=newest.serial,
            jobs=sorted({*newest.jobs, *newest.archived}),
            journals=journals,
            running=running,
        )

    def _check(self) -> FailOverPlan:
        """Checks what this node's own files say."""
        old, own = named_master(self._paths), self._machine.host_name()
        if own == old:
            raise StartRefused(
                f"{own} is the master already, by its own ssconf. Run this on the node that is to"
                " become the master; to start the daemon here: daemon-util start-master"
            )
        try:
            refuse_others(self._paths, simulated=False)
        except PidFileLockError as error:
            raise StartRefused(
                f"A master daemon runs on this node, which is not the master: {error}. Stop it"
                " first"
            ) from None
        plan = FailOverPlan(old, own, read_config(self._paths))
        plan.node(old)
        check_candidate(plan.snapshot, own)
        return plan

    async def _vote(self, plan: FailOverPlan) -> set[str]:
        """Holds the vote; returns the names of the other nodes that answer."""
        try:
            await asking.answers(self._nodes, Target.anyway(plan.node(plan.own)))
        except NodeFailed as error:
            raise StartRefused(f"This node's own node daemon must run: {error}") from None
        votes = await asking.gather_votes(self._nodes, list(map(Target.anyway, plan.others)))
        reason = voting.refusal(plan.old, plan.own, votes)
        if reason is not None:
            if self._wishes.vote:
                raise StartRefused(
                    f"This node must not become the master: {reason}. If you know that {plan.old}"
                    " is down, and stays down, --no-voting goes on all the same"
                )
            self._warnings.append(f"Without the vote: {reason}")
        silent = [Target.anyway(node) for node in plan.others if votes[node.name] is None]
        # A node that can't name the master may still run the master daemon.
        answering = await asking.reachable(self._nodes, silent)
        return answering | {name for name, vote in votes.items() if vote is not None}

    async def _stop_old(self, plan: FailOverPlan, answering: set[str]) -> None:
        """Stops the old master's daemons and takes its address away, if its node answers."""
        old = plan.node(plan.old)
        if plan.old not in answering:
            self._warnings.append(
                f"{plan.old} does not answer: its daemons are not stopped, and it may still have"
                f" the master's address {plan.snapshot.cluster.master_ip}. "
                + (
                    "If it comes back before it is told who is master now, it loses the vote"
                    if self._wishes.vote
                    else "See to it that it doesn't come back before most nodes are told who is"
                    " master now"
                )
            )
            return
        self._say(f"Stopping the master daemon on {plan.old}")
        try:
            await asking.stop_master(self._nodes, Target.anyway(old))
        except NodeFailed as error:
            raise StartRefused(
                f"{plan.old} answers, but its master daemon is not stopped for certain: {error}."
                " Stop it there, or stop that node's node daemon too"
            ) from None
        self._stopped = plan.old
        try:
            await asking.give_up_address(self._nodes, Target.anyway(old), plan.snapshot)
        except NodeFailed as error:
            self._warnings.append(f"The master's address may still be up on {error}")

    # Which state is newest

    async def _newest(self, plan: FailOverPlan, own: OwnFiles, answering: set[str]) -> Newest:
        """Finds the newest files on this node and the other candidates."""
        copies = []
        for node in plan.others:
            # The master that was just stopped may have the newest files, even if marked offline.
            if node.name != plan.old and (not node.master_candidate or node.offline):
                continue
            if node.name not in answering:
                if node.name != plan.old:
                    self._warnings.append(
                        f"{node.name} does not answer: what only that candidate holds is lost"
                    )
                continue
            copy = await self._copy(plan, own, node)
            if copy is not None:
                copies.append(copy)
        mine = Copy(plan.own, own.config, own.serial, own.jobs)
        newest = choose(mine, copies, (plan.old, plan.own))
        self._warnings += [f"Left out: {text}" for text in newest.ignored]
        return newest

    async def _copy(self, plan: FailOverPlan, own: OwnFiles, node: Node) -> Copy | None:
        """Returns a candidate's files that may be newer; None if they are unknown."""
        try:
            held = await asking.holdings(
                self._nodes,
                Target.anyway(node),
                self._files,
                plan.snapshot.cluster.cluster_name,
                own,
            )
        except NodeFailed as error:
            if not self._wishes.keep_own:
                raise StartRefused(
                    f"Which files {node.name} holds is not known: {error}. {self._ways_out(node)}"
                ) from None
            self._warnings.append(f"Not asked which files it holds: {error}")
            return None
        if held.config is None:
            self._warnings.append(f"{node.name} holds no configuration: its files don't count")
            return None
        missing = lacking(own, held, archived_here(self._paths))
        found = self._read(plan, node, held, missing) if missing else {}
        if found is None:
            # Its job ids still count, as none must be given twice.
            missing, found = Lacking(config=False, jobs=(), archived=()), {}
        files = self._files
        return Copy(
            node.name,
            found.get(files.config, own.config),
            max(serial_of(held.serial, own.serial) or 0, *held.jobs, 0),
            {job_id: found[files.job(job_id)] for job_id in missing.jobs},
            {job_id: found[files.archived_job(job_id)] for job_id in missing.archived},
        )

    def _read(
        self, plan: FailOverPlan, node: Node, held: Held, missing: Lacking
    ) -> dict[str, bytes] | None:
        """Reads a candidate's files; returns None if they can't be read and ``keep_own`` is set."""
        self._say(f"{node.name} differs: reading {missing.text()}")
        try:
            found = dict(self._fetch(plan.snapshot, node, missing.paths(self._files)))
        except FetchFailed as error:
            if self._wishes.keep_own:
                self._warnings.append(f"Not read, and not taken: {missing.text()}: {error}")
                return None
            raise StartRefused(
                f"{node.name} holds other files than this node ({missing.text()}), which can't be"
                f" read: {error}. {self._ways_out(node)}"
            ) from None
        digests = {
            self._files.config: held.config,
            **{self._files.job(job_id): digest for job_id, digest in held.jobs.items()},
            **{self._files.archived_job(n): digest for n, digest in held.archived.items()},
        }
        for path, content in found.items():
            if sha1(content) != digests[path]:
                raise StartRefused(
                    f"{path} on {node.name} changes while it is read: some master daemon is still"
                    " at work. Stop it first"
                )
        return found

    def _ways_out(self, node: Node) -> str:
        return (
            f"Either make ssh to {node.name} work, or run this on {node.name}, or go on with this"
            " node's files, and lose what only the other has, with --keep-own"
        )

    # Telling everybody, and the start

    async def _tell(self, plan: FailOverPlan, snapshot: Snapshot, answering: set[str]) -> None:
        """Sends the new master's name and configuration to the nodes, to this node last."""
        targets = [
            (node, Target.anyway(node))
            for node in snapshot.nodes.values()
            if node.name in answering and not node.offline
        ]
        candidates = [target for node, target in targets if node.master_candidate]
        failed = await asking.send_config(
            self._nodes, candidates, self._files, ConfigImage(snapshot)
        )
        self._warnings += [f"Not given the new configuration: {text}" for text in failed]
        failed = await asking.send_ssconf(self._nodes, [target for _, target in targets], snapshot)
        self._warnings += [f"Not told who is master: {text}" for text in failed]
        own: Sequence[str] = await asking.send_ssconf(
            self._nodes, [Target.anyway(plan.node(plan.own))], snapshot
        )
        if own:
            raise StartRefused(
                f"This node's own ssconf can't be written: {own[0]}. Run this again once it can"
            )

    async def _start(self, plan: FailOverPlan) -> bool:
        """Has the daemon started; returns whether it runs."""
        self._say(f"Starting the master daemon on {plan.own}")
        try:
            await asking.start_master(
                self._nodes, Target.anyway(plan.node(plan.own)), no_voting=not self._wishes.vote
            )
        except NodeFailed as error:
            self._warnings.append(f"The start of the master daemons: {error}")
        try:
            refuse_held([self._paths.pid])
        except PidFileLockError:
            return True
        try:
            refuse_held(self._paths.peers_pids)
        except PidFileLockError:
            self._warnings.append(
                "luxid was started, not gnt-masterd: daemon-util on this node doesn't know"
                " gnt-masterd"
            )
        return False
