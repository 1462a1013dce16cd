"""Debian's own gnt-instance moves instances between simulated nodes that die and fail.

What it says where all goes well, and where it is refused, ``test_gnt_instances.py`` compares with
Ganeti 3.0.2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said

#: Five nodes in two groups with all kinds of storage, as those of the recording.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

ADD = "gnt-instance add --no-ip-check --no-name-check "


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One cluster for the whole module, whose mirrors are in sync at once."""
    require("gnt-instance", "ganeti-3.0")
    with DaemonProcess(module_folder / "node1", nodes=str(CLUSTER)) as daemon:
        assert run(daemon, "$BLK sync 0").code == 0
        yield daemon


def run(daemon: DaemonProcess, command: str) -> Said:
    """Runs commands of the shell; ``$BLK`` throws a switch of the simulated cluster."""
    switches = f'BLK="{sys.executable} -m ganeti_masterd.simulation"\n'
    done = daemon.tool(["sh", "-c", switches + command])
    return Said(done.returncode, done.stdout, done.stderr)


def test_dead_node(daemon: DaemonProcess) -> None:
    """An instance is failed over from a dead node, which then comes back."""
    name = "dead.example.com"
    assert run(daemon, f"{ADD} -t drbd -n node2:node3 -o noop -s 64M --no-nics {name}").code == 0
    assert run(daemon, "$BLK power node2 off").code == 0
    refused = run(daemon, f"gnt-instance failover -f {name}")
    assert refused.code == 1
    assert "is degraded on target node, aborting failover" in refused.err
    assert run(daemon, "gnt-node modify -f -O yes node2").code == 0
    done = run(daemon, f"gnt-instance failover -f {name}")
    assert done.code == 0, done
    assert "please make sure node node2 is down" in done.out
    where = f"gnt-instance list --no-headers --separator=' ' -o pnode,status {name}"
    assert run(daemon, where).out == "node3 running\n"
    assert run(daemon, "$BLK power node2 on").code == 0
    assert run(daemon, "gnt-node modify -f -O no node2").code == 0
    assert run(daemon, f"gnt-instance activate-disks {name}").code == 0
    assert run(daemon, f"gnt-instance migrate -f {name}").code == 0
    assert run(daemon, where).out == "node2 running\n"


def test_fails_half_way(daemon: DaemonProcess) -> None:
    """The log says what was taken back; the same command again succeeds."""
    name = "half.example.com"
    add = f"{ADD} -H kvm -t drbd -n node2:node3 -o noop -s 64M --no-nics {name}"
    enabled = run(daemon, "gnt-cluster modify --enabled-hypervisors=fake,kvm")
    assert enabled.code == 0, enabled
    made = run(daemon, add)
    assert made.code == 0, made
    assert run(daemon, f"$BLK fail-migration {name} 0").code == 0
    failed = run(daemon, f"gnt-instance migrate -f {name}")
    assert failed.code == 1
    assert failed.err == (
        "Failure: command execution error:\n"
        f"Could not migrate instance {name}: hypervisor returned failure\n"
    )
    assert failed.out.splitlines()[-1].endswith("What it had done before was taken back")
    assert run(daemon, f"$BLK fail-migration {name} never").code == 0
    assert run(daemon, f"gnt-instance migrate -f {name}").code == 0
    where = f"gnt-instance list --no-headers --separator=' ' -o pnode,status {name}"
    assert run(daemon, where).out == "node3 running\n"
    cleaned = run(daemon, f"gnt-instance migrate -f --cleanup {name}")
    assert "* instance running on: node3\n" in cleaned.out
    assert cleaned.code == 0
