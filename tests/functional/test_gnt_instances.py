"""Debian's own gnt-instance, on simulated nodes, says what it said with Ganeti 3.0.2's daemons.

Hundreds of commands that were recorded once: creations alone and many at once, starts, stops,
reboots, renamings, reinstallations, modifications, disks that grow, vanish, are replaced and made
anew, migrations, failovers, moves and evacuations. ``instance_transcripts.py`` lists what differs,
and why. ``tests/soak`` plays them on real node daemons.
"""

from __future__ import annotations

import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.instance_plays import Result, agreement, play, shell
from tests.functional.instance_transcripts import FLOORS, GROUPS

FIVE_NODES = Path(ganeti_masterd.simulation.__file__).parent / "clusters" / "recorded.toml"

#: The cluster of the group ``instance``.
THREE_NODES = """
[cluster]
name = "cluster"
disk_templates = ["diskless", "file"]
file_storage_dir = "/srv/file-storage"
[every_node]
memory = 32768
[[node]]
name = "node1"
[[node]]
name = "node2"
[[node]]
name = "node3"
"""

#: What both clusters were set to before the recording began.
SET_UP = (
    "gnt-cluster modify --nic-parameters mode=routed,link=100 --ipolicy-bounds-specs="
    "min:disk-size=0,cpu-count=1,disk-count=0,memory-size=1,nic-count=0,spindle-use=0/max:"
    "disk-size=1048576,cpu-count=8,disk-count=16,memory-size=32768,nic-count=8,spindle-use=12"
)

#: The first three parts of the addresses of instances.
NET = {"instance": "198.51.100"}

#: The least part of all commands that must end, and print, as recorded.
SAME_CODE = 0.98
SAME_OUTPUT = 0.93

Played = dict[str, list[Result]]


def play_on_simulated_nodes(group: str, folder: Path) -> list[Result]:
    """Plays a group on a cluster of its own below a folder that doesn't exist."""
    files = folder / "files"
    files.mkdir(parents=True)
    nodes = FIVE_NODES
    if group == "instance":
        nodes = folder / "nodes.toml"
        nodes.write_text(THREE_NODES, encoding="utf-8")
    with DaemonProcess(folder / "node1", nodes=str(nodes)) as daemon:
        run = shell(
            {
                **daemon.environment,
                "NET": NET.get(group, "192.0.2"),
                "FS": str(files),
                "BLK": shlex.join((sys.executable, "-m", "ganeti_masterd.simulation")),
            }
        )
        assert run(SET_UP).code == 0
        return play(group, run, {str(daemon.root): "ROOT", str(files): "$FS"})


@pytest.fixture(scope="module")
def played(module_folder: Path) -> Played:
    """All groups, played at the same time, as most of the time is waiting."""
    require("gnt-instance", "ganeti-3.0")
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")

    def one(group: str) -> list[Result]:
        return play_on_simulated_nodes(group, module_folder / group)

    with ThreadPoolExecutor(len(GROUPS)) as threads:
        return dict(zip(GROUPS, threads.map(one, GROUPS), strict=True))


@pytest.mark.parametrize("group", GROUPS)
def test_as_recorded(played: Played, group: str) -> None:
    """Each command ends and prints as recorded, unless it is listed as different."""
    wrong = [result.wrong for result in played[group] if result.wrong is not None]
    assert not wrong, "\n\n".join(wrong)


def test_how_much_is_the_same(played: Played) -> None:
    """Few are listed: nearly all exit codes are the same, and nearly all outputs."""
    found = {group: agreement(played[group]) for group in GROUPS}
    for group, (codes, outputs) in FLOORS.items():
        assert found[group].codes >= codes, found
        assert found[group].outputs >= outputs, found
    counted = sum(each.counted for each in found.values())
    assert counted > 520, found
    assert sum(each.codes for each in found.values()) / counted > SAME_CODE, found
    assert sum(each.outputs for each in found.values()) / counted > SAME_OUTPUT, found
