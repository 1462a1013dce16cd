"""Replication to real node daemons (Debian's ganeti-noded 3.0.2), and of the daemon as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from noded import NodeDaemon, free_port
from twisted.internet.defer import Deferred

from ganeti_masterd.config.document import ConfigImage, encode, parse
from ganeti_masterd.config.pages import Pages
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.replication import candidate
from ganeti_masterd.replication.journal import ReplicatedJournal
from ganeti_masterd.replication.replication import Replication
from ganeti_masterd.replication.standing import CandidateStanding
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.https import HTTPSNodes
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.config.sample import big, uuid
from tests.functional.conftest import need_root, require
from tests.functional.waiting import until_in_reactor
from tests.replication.model import FILES, Model
from tests.replication.scene import ModelState, configuration
from tests.rpc import pki


@pytest.fixture
def daemons(module_folder: Path, request: pytest.FixtureRequest) -> Any:
    """Three node daemons that accept the certificate of node1, the master."""
    program = require("ganeti-noded", "ganeti")
    need_root("ganeti-noded runs as root only")
    port = free_port()
    made = []
    try:
        for number in (1, 2, 3):
            root = module_folder / request.node.name / f"node{number}"
            daemon = NodeDaemon(program, root, f"127.0.0.{20 + number}", port)
            daemon.equip(pki.cluster(), pki.client(), pki.client())
            # As a node has it that was set up: moves fail without it.
            (daemon.data / "queue/archive").mkdir()
            made.append(daemon)
            daemon.start()
        yield made
    finally:
        for daemon in made:
            daemon.kill()


class Cluster:
    """Replication from a model in node1's place to the two other daemons."""

    def __init__(self, reactor: Any, daemons: list[NodeDaemon]) -> None:
        self.daemons = daemons
        data = daemons[0].data
        self.timers = Timers(reactor)
        self.nodes = HTTPSNodes(
            reactor,
            self.timers,
            Certificates(str(data / "server.pem"), str(data / "client.pem")),
            port=daemons[0].port,
            root=str(daemons[0].root),
        )
        self.model = Model()
        addresses = {each.name: {"primary_ip": each.address} for each in daemons}
        # It goes to the nodes, which then accept only whom it names.
        certificates = {"uuid-of-node1": pki.client().digest}
        self.state = ModelState(self.model, configuration(certificates, **addresses))
        files = QueueFiles(queue=str(data / "queue"), config=str(data / "config.data"))
        self.replication = Replication(self.nodes, files, self.timers, self.state)
        self.journal = ReplicatedJournal(MemoryJournal())
        self.journal.replicate_with(self.replication)

    async def pause(self, seconds: float) -> None:
        done: Deferred[None] = Deferred()
        self.timers.later(seconds, done.callback, None)
        await done

    def standings(self) -> dict[str, CandidateStanding]:
        return {each.node: each.standing for each in self.replication.replicas}

    async def current(self) -> None:
        """Waits until both candidates are up to date."""
        await until_in_reactor(
            "both candidates are up to date",
            self.standings,
            lambda seen: set(seen.values()) == {CandidateStanding.CURRENT},
            self.pause,
        )

    def assert_same(self) -> None:
        """Fails unless both candidates hold the model's files, and nothing else."""
        wanted = {Path(path).name: content for path, content in self.model.files().items()}
        for daemon in self.daemons[1:]:
            queue = daemon.data / "queue"
            held = {path.name: path.read_bytes() for path in queue.glob("job-*")}
            held["serial"] = (queue / "serial").read_bytes()
            held["config.data"] = (daemon.data / "config.data").read_bytes()
            assert held == wanted, daemon.name

    async def job(self) -> None:
        """One job from its submission to its end, with a change of the configuration."""
        model = self.model
        await self.journal.commit(model.submit())
        job_id = max(model.jobs)
        await self.journal.commit(model.run(job_id))
        await self.journal.commit(model.change(job_id))
        await self.journal.commit(model.end(job_id))

    async def close(self) -> None:
        await self.replication.close()
        await self.nodes.close()
        assert len(self.timers) == 0


@pytest_twisted.async_yield_fixture
async def cluster(daemons: list[NodeDaemon], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster whose replication has begun."""
    from twisted.internet import reactor  # noqa: TID251

    monkeypatch.setattr(candidate, "RETRY", 1.0)
    monkeypatch.setattr(candidate, "RETRY_AT_MOST", 1.0)
    made = Cluster(reactor, daemons)
    made.replication.start()
    yield made
    await made.close()


@pytest_twisted.ensureDeferred
async def test_large_configuration(cluster: Cluster, daemons: list[NodeDaemon]) -> None:
    """Node daemons take a configuration of 3,000 instances made of pages, as it is changed."""
    snapshot, pages = parse(big(3000)), Pages()
    for number in range(3):
        instance = snapshot.instances[uuid(number)]
        snapshot = snapshot.with_object("instances", instance.with_tags([f"t{number}"]))
        image = ConfigImage(snapshot, pages)
        cluster.state.image = lambda image=image: image
        await cluster.journal.commit(cluster.model.change(0))
        for daemon in daemons[1:]:
            assert (daemon.data / "config.data").read_bytes() == encode(snapshot)


@pytest_twisted.ensureDeferred
async def test_everything_arrives(cluster: Cluster, daemons: list[NodeDaemon]) -> None:
    """Jobs, serial, configuration, moves, flags: each is there when it is acknowledged."""
    for _ in range(3):
        await cluster.job()
        cluster.assert_same()
    await cluster.journal.commit(cluster.model.put_away(2))
    cluster.assert_same()
    await cluster.replication.set_drained(True)
    await cluster.replication.set_watcher_pause(2_000_000_000)
    for daemon in daemons[1:]:
        archived = daemon.data / "queue" / FILES.archived_job(2).removeprefix(FILES.queue + "/")
        assert archived.read_bytes() == cluster.model.archive[2]
        assert (daemon.data / "queue/drain").exists()
        assert (daemon.data / "watcher.pause").read_text().strip() == "2000000000"
        assert (daemon.data / "config.data").stat().st_mode & 0o777 == 0o640
    for daemon in daemons:
        assert (daemon.data / "ssconf_master_node").read_text() == "node1\n"
    await cluster.replication.set_drained(False)
    assert not (daemons[1].data / "queue/drain").exists()


@pytest_twisted.ensureDeferred
async def test_killed_and_back(cluster: Cluster, daemons: list[NodeDaemon]) -> None:
    """A candidate that is killed holds nobody up, and has everything when it is back."""
    for _ in range(3):
        await cluster.job()
    daemons[2].kill()
    await cluster.job()
    assert cluster.standings()["node3"] is CandidateStanding.STALE
    await cluster.journal.commit(cluster.model.put_away(1))
    await cluster.journal.commit(cluster.model.put_away(4))
    await cluster.job()
    (daemons[2].data / "queue/job-77").write_bytes(b"{}")
    daemons[2].start()
    await cluster.current()
    cluster.assert_same()
    await cluster.job()
    cluster.assert_same()


@pytest_twisted.ensureDeferred
async def test_burst(cluster: Cluster) -> None:
    """Of many jobs at once each state that counts arrives, in fewer calls than there are states."""
    model = cluster.model
    await cluster.current()
    done = [cluster.journal.commit(model.submit()) for _ in range(40)]
    done += [cluster.journal.commit(model.run(job_id)) for job_id in range(1, 41)]
    for each in done:
        await each
    done = [cluster.journal.commit(model.end(job_id)) for job_id in range(1, 41)]
    for each in done:
        await each
    cluster.assert_same()
