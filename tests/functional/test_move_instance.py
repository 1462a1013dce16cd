"""Debian's move-instance moves an instance between two real clusters: luxid's, and ours.

Each has real node daemons with TLS, the real remote API, and a network namespace that is joined to
the other's. luxid stays the master of one, gnt-masterd takes the other over.

A node daemon of 3.0.2 names the certificate of an import after its node, and one that exports
demands the name ``ganeti.example.com`` of it (with socat 1.7.3 or later). So only a node of that
name can receive anything, with either master daemon: both clusters have one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from tests.functional.conftest import need_peer, require
from tests.functional.realcluster import Ran, RealCluster, real_cluster

RECEIVER = "ganeti.example.com"

#: The master, the node that receives, and one that isn't a member.
NODES = ("node1", RECEIVER, "node3")

NETS = ("198.51.100", "203.0.113")

NAME = "instance1"

#: Sizes of the instance's disks in MiB.
SIZES = (8, 4)

MOVE = "/usr/lib/ganeti/tools/move-instance"

DATA = "node1/var/lib/ganeti"
SECRET = f"{DATA}/cluster-domain-secret"

#: A pair of clusters: luxid's, and ours.
Pair = tuple[RealCluster, RealCluster]


@pytest.fixture(scope="module")
def clusters() -> Iterator[Pair]:
    """Two clusters that reach one another and have one secret in common."""
    need_peer()
    require("ganeti-rapi", "ganeti-3.0")
    require("socat", "socat")
    require(MOVE, "ganeti-3.0")
    with ExitStack() as stack:
        theirs, ours = (
            stack.enter_context(
                real_cluster(NODES[:2], kind=partial(RealCluster, net=net, nodes=NODES))
            )
            for net in NETS
        )
        theirs.join(ours)
        for cluster in (theirs, ours):
            users = cluster.folder / DATA / "rapi/users"
            users.write_text("tester secret write\n", encoding="utf-8")
            shutil.chown(users, "gnt-rapi")
            (cluster.folder / "password").write_text("secret\n", encoding="utf-8")
            cluster.daemon_util("check-and-start ganeti-rapi").checked()
        (ours.folder / SECRET).write_bytes((theirs.folder / SECRET).read_bytes())
        ours.take_over()
        yield theirs, ours


def move(source: RealCluster, target: RealCluster) -> Ran:
    """Moves the instance; returns what the tool printed."""
    options = [
        "--verbose",
        f"--src-ca-file={source.folder}/{DATA}/rapi.pem",
        f"--dest-ca-file={target.folder}/{DATA}/rapi.pem",
        "--src-username=tester",
        f"--src-password-file={source.folder}/password",
        "--opportunistic-tries=0",
        f"--dest-primary-node={RECEIVER}",
        "--dest-disk-template=file",
    ]
    command = [MOVE, *options, f"{source.net}.10", f"{target.net}.10", NAME]
    return source.run(" ".join(command), limit=240)


def images(cluster: RealCluster) -> list[Path]:
    """Returns the files of all disks in a cluster, in their order in the instance."""
    found = (cluster.folder / "file-storage").glob("*/*")
    return sorted(found, key=lambda path: path.name.rpartition("disk")[2])


def digests(cluster: RealCluster) -> list[str]:
    """Returns a digest of each disk."""
    return [sha256(path.read_bytes()).hexdigest() for path in images(cluster)]


def listed(cluster: RealCluster) -> list[list[str]]:
    """Returns name, primary node, status and sizes of disks (MiB) of each instance."""
    fields = "name,pnode,status,disk.sizes"
    rows = cluster.run(f"gnt-instance list --no-headers --separator=: --units=m -o {fields}")
    return [row.split(":") for row in rows.checked().out.splitlines()]


def fill(cluster: RealCluster) -> list[str]:
    """Makes an instance with something on all of its disks; returns a digest of each."""
    disks = " ".join(f"--disk {index}:size={size}M" for index, size in enumerate(SIZES))
    cluster.run(
        f"gnt-instance add --no-ip-check --no-name-check --no-nics -t file -n node1 -o noop "
        f"{disks} {NAME}"
    ).checked()
    random = Random(18)
    for path in images(cluster):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(random.randbytes(size))
    found = digests(cluster)
    assert [path.stat().st_size for path in images(cluster)] == [size << 20 for size in SIZES]
    return found


def there(cluster: RealCluster, content: list[str]) -> None:
    """Fails unless the instance runs in a cluster with that on its disks."""
    assert listed(cluster) == [[NAME, RECEIVER, "running", ",".join(map(str, SIZES))]]
    assert digests(cluster) == content


def gone(cluster: RealCluster) -> None:
    """Fails unless nothing is left of an instance: no disk, and no daemon of a transfer."""
    assert listed(cluster) == []
    assert images(cluster) == []
    assert kept(cluster, "import-export") == []
    assert "socat" not in cluster.names()


def kept(cluster: RealCluster, what: str) -> list[Path]:
    """Returns what nodes have in a folder of transfers: ``crypto`` or ``import-export``."""
    found = (cluster.folder / node / "var/run/ganeti" / what for node in NODES[:2])
    return [path for folder in found for path in folder.glob("*")]


def test_to_ours_and_back(clusters: Pair) -> None:
    """What luxid sends arrives here, what we send arrives there: all bytes, and nothing is left."""
    theirs, ours = clusters
    content = fill(theirs)
    for source, target in ((theirs, ours), (ours, theirs)):
        said = move(source, target).checked()
        assert f"{NAME}: Success" in said.err, said
        there(target, content)
        gone(source)
    # luxid 3.0.2 never removes the key of an export.
    assert kept(ours, "crypto") == []
    theirs.run(f"gnt-instance remove -f {NAME}").checked()


@pytest.mark.soak
@pytest.mark.parametrize("receiver", ["ours", "theirs"])
def test_other_secret(clusters: Pair, receiver: str) -> None:
    """A cluster with another secret is refused, and the instance stays as it was."""
    source, target = clusters if receiver == "ours" else clusters[::-1]
    content = fill(source)
    kept_before = kept(target, "crypto")
    secret = target.folder / SECRET
    shared = secret.read_bytes()
    secret.write_text(f"{'0' * 40}\n", encoding="ascii")
    try:
        said = move(source, target)
    finally:
        secret.write_bytes(shared)
    assert said.code == 1, said
    assert re.search(f"{NAME}: Failed .*clusters don't share the same domain secret", said.err)
    assert [row[:3] for row in listed(source)] == [[NAME, "node1", "running"]]
    assert digests(source) == content
    gone(target)
    assert kept(target, "crypto") == kept_before
    source.run(f"gnt-instance remove -f {NAME}").checked()
