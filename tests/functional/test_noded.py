"""The HTTPS client against real node daemons (Debian's ganeti-noded 3.0.2), on loopback."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from noded import NodeDaemon, free_port
from twisted.internet.defer import gatherResults

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.https import HTTPSNodes
from ganeti_masterd.rpc.wire import file_content
from ganeti_masterd.timing import Timers
from tests.config.sample import INSTANCE1, NODE1, sample
from tests.functional.conftest import need_root, require
from tests.rpc import pki

NICS = (Nic(mac="aa:00:00:00:00:01", uuid="a-nic", ip="192.0.2.7"),)

MakeNodes = Callable[..., HTTPSNodes]


@pytest.fixture(scope="module")
def daemons(module_folder: Path) -> Any:
    """Three node daemons that accept the certificate of node1."""
    program = require("ganeti-noded", "ganeti")
    need_root("ganeti-noded runs as root only")
    port = free_port()
    made = []
    try:
        for number in (1, 2, 3):
            root = module_folder / f"node{number}"
            daemon = NodeDaemon(program, root, f"127.0.0.{10 + number}", port)
            daemon.equip(pki.cluster(), pki.client(), pki.client())
            daemon.start()
            made.append(daemon)
        yield made
    finally:
        for daemon in made:
            daemon.kill()


@pytest.fixture
def mended(daemons: list[NodeDaemon]) -> Any:
    """The daemons; whatever a test does to the third one is undone."""
    yield daemons
    third = daemons[2]
    third.kill()
    third.equip(pki.cluster(), pki.client(), pki.client())
    third.start()


@pytest_twisted.async_yield_fixture
async def make_nodes(daemons: list[NodeDaemon]) -> Any:
    """Makes clients that hold the files of node1, or others."""
    from twisted.internet import reactor  # noqa: TID251

    made: list[HTTPSNodes] = []
    timers = Timers(reactor)  # type: ignore[arg-type]

    def make(folder: Path | None = None, **settings: Any) -> HTTPSNodes:
        data = folder or daemons[0].data
        certificates = Certificates(str(data / "server.pem"), str(data / "client.pem"))
        settings = {"root": str(daemons[0].root), "port": daemons[0].port, **settings}
        made.append(HTTPSNodes(reactor, timers, certificates, **settings))
        return made[-1]

    yield make
    for nodes in made:
        await nodes.close()
        assert nodes.pending == 0
    assert len(timers) == 0


async def error_of(nodes: HTTPSNodes, daemon: NodeDaemon, *call: Any, **settings: Any) -> str:
    """The error of a call that must fail."""
    results = await nodes.call([daemon.target], *(call or ("version",)), **settings)
    error = results[daemon.target.key].error
    assert error is not None
    return error


@pytest_twisted.ensureDeferred
async def test_all_answer(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """Every node answers for itself."""
    targets = [daemon.target for daemon in daemons]
    results = await make_nodes().call(targets, "version")
    assert list(results) == [target.key for target in targets]
    assert [result.payload for result in results.values()] == [3000000] * 3


@pytest_twisted.ensureDeferred
async def test_files_arrive(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """Files arrive byte for byte below each node's own root: text, UTF-8, bytes of any kind."""
    nodes = make_nodes()
    targets = [daemon.target for daemon in daemons[1:]]
    for content in (
        b"",
        b"7\n",
        "Größe \U0001f600\n".encode(),
        bytes(range(256)),
        b"x" * 2_000_000,
    ):
        path = daemons[0].data / "queue/job-7"
        results = await nodes.call(targets, "jobqueue_update", [str(path), file_content(content)])
        assert [result.error for result in results.values()] == [None, None]
        for daemon in daemons[1:]:
            assert (daemon.data / "queue/job-7").read_bytes() == content
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_paths_come_back(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """Files that node_verify was asked about have this node's paths in the answer."""
    path = str(daemons[0].data / "server.pem")
    results = await make_nodes().call(
        [daemons[1].target], "node_verify", [{"filelist": [path]}, "cluster", {}]
    )
    (result,) = results.values()
    assert list(result.payload["filelist"]) == [path]


@pytest_twisted.ensureDeferred
async def test_failures_have_words(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """What a node refuses comes as its own text."""
    nodes = make_nodes()
    assert await error_of(nodes, daemons[1], "export_list") == "No exports directory"
    wrong = await error_of(nodes, daemons[1], "write_ssconf_files", [{"nonsense": ["1"]}])
    assert wrong.startswith("Error while executing backend function")
    path = str(daemons[0].data / "server.pem")
    upload = [path, [0, ""], 0o640, "root", "root", None, None]
    assert "not in allowed upload targets" in await error_of(
        nodes, daemons[1], "upload_file_single", upload
    )


@pytest_twisted.ensureDeferred
async def test_bare_body(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """The call with a bare body is understood."""
    results = await make_nodes().call([daemons[1].target], "instance_console_info", [{}])
    assert results[daemons[1].target.key].payload == {}


@pytest_twisted.ensureDeferred
async def test_instance_lives(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """An instance as we describe it starts, is seen, and stops on a real node."""
    nodes, target = make_nodes(), daemons[1].target
    snapshot = sample()
    instance = replace(snapshot.instances[INSTANCE1], nics=NICS)
    described = node_objects.instance(snapshot, instance, NODE1)
    seen: list[Any] = []
    hypervisors = [["fake"], {"fake": described["hvparams"]}]
    for call in (
        ("instance_start", [described, False, []]),
        ("instance_list", hypervisors),
        ("all_instances_info", hypervisors),
        ("instance_shutdown", [described, 1, []]),
        ("instance_list", hypervisors),
    ):
        results = await nodes.call([target], *call)
        assert results[target.key].error is None, (call, results)
        seen.append(results[target.key].payload)
    _, listed, info, _, after = seen
    assert (listed, list(info), after) == ([instance.name], [instance.name], [])
    assert info[instance.name]["memory"] == described["beparams"]["maxmem"]


@pytest_twisted.ensureDeferred
async def test_refused(mended: list[NodeDaemon], make_nodes: MakeNodes, folder: Path) -> None:
    """Whom the node doesn't list is told that it was refused; listing it is enough."""
    stranger = pki.identity("node7", pki.cluster())
    pki.cluster().write(str(folder / "server.pem"))
    nodes = make_nodes(folder)
    for shown in (stranger, pki.identity("node7"), None):
        if shown is None:
            os.unlink(folder / "client.pem")  # server.pem is shown, but there is a list
        else:
            shown.write(str(folder / "client.pem"))
        error = await error_of(nodes, mended[2])
        assert error.startswith("Node node3 refused our certificate ("), error
    mended[2].list()
    results = await nodes.call([mended[2].target], "version")
    assert results[mended[2].target.key].error is None
    stranger.write(str(folder / "client.pem"))
    mended[2].list(pki.client(), stranger)
    results = await nodes.call([mended[2].target], "version")
    assert results[mended[2].target.key].error is None


@pytest_twisted.ensureDeferred
async def test_foreign_and_renewed(
    mended: list[NodeDaemon], make_nodes: MakeNodes, folder: Path
) -> None:
    """A node with another certificate is no node of ours, until ours is renewed too."""
    old, new = pki.cluster(), pki.identity("ganeti.example.com")
    client = pki.identity("node1", new)
    old.write(str(folder / "server.pem"))
    pki.client().write(str(folder / "client.pem"))
    nodes = make_nodes(folder)
    third = mended[2]
    third.kill()
    third.equip(new, client, client)
    third.start()
    assert await error_of(nodes, third) == "Node node3 does not hold the cluster's certificate"
    new.write(str(folder / "server.pem"))
    client.write(str(folder / "client.pem"))
    results = await nodes.call([third.target], "version")
    assert results[third.target.key].error is None


@pytest_twisted.ensureDeferred
async def test_urgent_overtakes(daemons: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """Any number of long calls leaves the node children for urgent ones."""
    nodes = make_nodes()
    done: list[int] = []
    delays = [
        nodes.call([daemons[1].target], "test_delay", [2]).addCallback(lambda _: done.append(1))
        for _ in range(30)
    ]
    results = await nodes.call([daemons[1].target], "version")
    assert results[daemons[1].target.key].error is None
    assert len(done) < 12
    assert nodes.pending == 30 - len(done)
    await nodes.close()
    await gatherResults(delays)


@pytest_twisted.ensureDeferred
async def test_killed_in_a_call(mended: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """A node daemon that dies under a call, and one that isn't there any more, are results."""
    from twisted.internet import reactor, task  # noqa: TID251

    third = mended[2]
    nodes = make_nodes()
    called = nodes.call([third.target, mended[1].target], "test_delay", [1])
    await task.deferLater(reactor, 0.4, third.signal, signal.SIGKILL)  # type: ignore[arg-type]
    results = await called
    assert results[third.target.key].error == ("Node node3 closed the connection without an answer")
    assert results[mended[1].target.key].error is None
    assert await error_of(nodes, third) == (f"Can't connect to {third.address}: connection refused")


@pytest_twisted.ensureDeferred
async def test_hanging_node(mended: list[NodeDaemon], make_nodes: MakeNodes) -> None:
    """A node daemon that is stopped accepts connections and says nothing: no answer."""
    third = mended[2]
    third.signal(signal.SIGSTOP)
    nodes = make_nodes(patience=0.5)
    assert await error_of(nodes, third) == (
        f"Can't connect to {third.address}: no answer within 0.5 seconds"
    )
    assert await error_of(nodes, third, timeout=0.2) == (
        f"Node {third.name} gave no answer within 0.2 seconds"
    )
