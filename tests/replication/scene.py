"""Other nodes that store what they are sent, and replication to them, with a clock."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from ganeti_masterd.config.document import parse
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.journal.rows import Row
from ganeti_masterd.replication.acknowledgement import Ack
from ganeti_masterd.replication.comparison import sha1
from ganeti_masterd.replication.journal import ReplicatedJournal
from ganeti_masterd.replication.replication import Replication
from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.config.sample import document, dump
from tests.replication.model import FILES, Bytes, Model

DRAIN = FILES.queue + "/drain"

#: Seconds after which a call can't take effect any more: noded waits 10 for its queue's lock.
LOCK_PATIENCE = 13.0

#: How a node behaves: acts and answers at once; does both, or only answers, when released; never
#: answers; can't be reached.
UP, HELD, LATE, HUNG, DOWN = "up", "held", "late", "hung", "down"


class Node:
    """One node's files and how it behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ssconf: dict[str, list[str]] = {}
        self.pause: list[int | None] = []
        self.mode = UP
        self.asked: list[str] = []
        self.held: list[Callable[[], None]] = []

    def release(self) -> None:
        """Handles all held calls, in order."""
        held, self.held = self.held, []
        for work in held:
            work()

    def do(self, procedure: str, arguments: Sequence[Any]) -> Any:
        """Does what noded would; raises ``OSError`` where noded would fail."""
        match procedure:
            case "jobqueue_update" | "upload_file_single":
                self.files[arguments[0]] = _content(arguments[1])
            case "jobqueue_rename":
                for old, new in arguments[0]:
                    if old not in self.files:
                        raise FileNotFoundError(old)
                    self.files[new] = self.files.pop(old)
            case "jobqueue_set_drain_flag" if arguments[0]:
                self.files[DRAIN] = b""
            case "jobqueue_set_drain_flag":
                self.files.pop(DRAIN, None)
            case "write_ssconf_files":
                self.ssconf.update(arguments[0])
            case "set_watcher_pause":
                self.pause.append(arguments[0])
            case "node_verify":
                paths = [path for path in arguments[0]["filelist"] if path in self.files]
                return {"filelist": {path: sha1(self.files[path]) for path in paths}}
            case _:
                raise AssertionError(procedure)
        return None


def _content(travelling: Sequence[Any]) -> bytes:
    form, text = travelling
    return text.encode() if form == 0 else zlib.decompress(base64.b64decode(text))


@implementer(INodeRPC)
class Nodes:
    """An :class:`INodeRPC` to nodes by name, which are created when they are called."""

    def __init__(self, timers: Timers) -> None:
        self.pending = 0
        self.timers = timers
        self.by_name: dict[str, Node] = {}

    def __getitem__(self, name: str) -> Node:
        return self.by_name.setdefault(name, Node())

    def call(
        self,
        targets: Sequence[Target],
        procedure: str,
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[Mapping[str, NodeResult]]:
        (target,) = targets
        given = list(arguments(target) if callable(arguments) else arguments)
        CALLS[procedure].check(given)
        node = self[target.name]
        node.asked.append(procedure)
        done: Deferred[Mapping[str, NodeResult]] = Deferred()

        def answer(result: NodeResult, late: bool = False) -> None:
            if late:
                node.held.append(lambda: answer(result))
            elif not done.called:
                timer.cancel()
                done.callback({target.key: result})

        asked = self.timers.seconds()

        def work(late: bool = False) -> None:
            if self.timers.seconds() - asked > LOCK_PATIENCE:
                return
            try:
                answer(NodeResult(target.name, procedure, node.do(procedure, given)), late)
            except OSError as error:
                answer(NodeResult(target.name, procedure, None, f"no such file: {error}"))

        assert timeout is not None
        timer = self.timers.later(
            timeout, lambda: answer(results.timed_out(target, procedure, timeout))
        )
        if node.mode in (UP, LATE):
            work(node.mode == LATE)
        elif node.mode == HELD:
            node.held.append(work)
        elif node.mode == DOWN:
            answer(results.unreachable(target, procedure, "Connection refused"))
        return done

    def close(self) -> Deferred[None]:
        return succeed(None)


class ModelState:
    """A ``replication.interfaces.Published`` that reads a model."""

    def __init__(self, model: Model, snapshot: Snapshot) -> None:
        self.model = model
        self.config = snapshot

    def serial(self) -> int:
        return self.model.reserved

    def drained(self) -> bool:
        return self.model.drained

    def job_ids(self) -> Iterable[int]:
        return self.model.jobs.keys()

    def body(self, job_id: int) -> bytes:
        return self.model.jobs[job_id]

    def archived(self, job_ids: Iterable[int]) -> Deferred[Mapping[int, bytes]]:
        archive = self.model.archive
        return succeed({job_id: archive[job_id] for job_id in job_ids if job_id in archive})

    def snapshot(self) -> Snapshot:
        return self.config

    def image(self) -> Bytes:
        return Bytes(self.model.config())


def configuration(
    certificates: dict[str, str] | None = None, touches: int = 0, **nodes: dict[str, Any]
) -> Snapshot:
    """Returns the sample configuration of three nodes, node1 the master, with changed values.

    ``touches`` is how often the cluster was changed without a difference.
    """
    plain = document()
    plain["cluster"]["serial_no"] += touches
    if certificates is not None:
        plain["cluster"]["candidate_certs"] = certificates
    for uuid, node in list(plain["nodes"].items()):
        node.update({"master_candidate": True, "offline": False, "drained": False})
        node.update(nodes.get(node["name"]) or {})
        if node["name"] in nodes and not nodes[node["name"]]:
            del plain["nodes"][uuid]
    return parse(dump(plain))


class Scene:
    """Replication from a model to nodes, which are all candidates at first."""

    def __init__(
        self, ack: Ack = Ack.CANDIDATES, *, held: bool = False, preparing: float = 0.0
    ) -> None:
        """``preparing`` is the seconds until config.data is ready to be sent."""
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.nodes = Nodes(self.timers)
        self.model = Model()
        self.state = ModelState(self.model, configuration())
        self.replication = Replication(
            self.nodes,
            FILES,
            self.timers,
            self.state,
            ack,
            partial(deferLater, self.clock, preparing) if preparing else maybeDeferred,
        )
        self.local = MemoryJournal(held=held)
        self.journal = ReplicatedJournal(self.local)
        self.journal.replicate_with(self.replication)

    def commit(self, rows: Sequence[Row]) -> Deferred[None]:
        return self.journal.commit(rows)

    def configure(self, touches: int = 0, **nodes: dict[str, Any]) -> Deferred[None]:
        """Commits another configuration (see :func:`configuration`)."""
        before, after = self.state.config, configuration(touches=touches, **nodes)

        def publish() -> None:
            self.state.config = after
            self.replication.configured(before, after)

        return self.journal.commit(self.model.change(0), publish)

    def wait(self, seconds: float) -> None:
        """Lets time pass, step by step."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(0.5)

    def held_by(self, name: str) -> dict[str, bytes]:
        """Returns a node's files without archive and drain flag, comparable to the model's."""
        files = self.nodes[name].files.items()
        return {path: c for path, c in files if "/archive/" not in path and path != DRAIN}
