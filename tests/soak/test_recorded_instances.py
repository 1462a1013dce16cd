"""The recorded commands on instances, after a real cluster with LVM and DRBD was taken over.

GANETI_MASTERD_REFERENCE names a folder with the programs that make such a cluster; without it
nothing is played. With DISKS=1, VC_NS, VC_ROOT and VC_NET in their environment

- ``up.sh`` makes five real node daemons of Ganeti 3.0.2 below the folder VC_ROOT, in the network
  namespace VC_NS, where luxid and wconfd run: the cluster that
  ``simulation/clusters/recorded.toml`` describes;
- ``down.sh`` takes all of it away;
- ``blockdev/ctl.py`` breaks its disks, with the words of the simulation's switches; ``wipe``
  removes them all.

About twenty minutes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import need_peer
from tests.functional.instance_plays import agreement, play, shell
from tests.functional.instance_transcripts import FLOORS, GROUPS
from tests.functional.realcluster import NET, RealCluster

REFERENCE = os.environ.get("GANETI_MASTERD_REFERENCE", "")

#: Those of the cluster with disks.
ON_DISKS = tuple(group for group in GROUPS if group != "instance")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """The cluster, gnt-masterd its master daemon."""
    if not REFERENCE:
        pytest.skip("GANETI_MASTERD_REFERENCE names no folder")
    need_peer()
    root = Path(tempfile.mkdtemp(prefix="gnt-"))
    made = RealCluster(root)
    environment = {
        **os.environ,
        "DISKS": "1",
        "VC_NS": made.namespace,
        "VC_ROOT": str(root),
        "VC_NET": NET,
    }
    try:
        subprocess.run([f"{REFERENCE}/up.sh"], env=environment, check=True)
        made.take_over()
        yield made
    finally:
        subprocess.run([f"{REFERENCE}/down.sh"], env=environment, check=False)


@pytest.mark.parametrize("group", ON_DISKS)
def test_as_recorded(cluster: RealCluster, group: str) -> None:
    """As many commands as on simulated nodes end and print as recorded."""
    switch = f"{REFERENCE}/blockdev/ctl.py"
    root = str(cluster.folder)
    environment = {
        **os.environ,
        "GANETI_ROOTDIR": f"{root}/node1",
        "GANETI_HOSTNAME": "node1",
        "VC_ROOT": root,
        "NET": NET,
        "FS": f"{root}/files",
        "BLK": switch,
    }
    run = shell(environment, ("ip", "netns", "exec", cluster.namespace))
    assert run(f"mkdir -p {root}/files; {switch} wipe").code == 0
    results = play(group, run, {f"{root}/node1": "ROOT", f"{root}/files": "$FS"})
    found = agreement(results)
    wrong = [result.wrong for result in results if result.wrong is not None]
    codes, outputs = FLOORS[group]
    assert found.codes >= codes, (found, wrong)
    assert found.outputs >= outputs, (found, wrong)
