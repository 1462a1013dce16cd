"""Debian's own gnt-instance, on simulated nodes, says what it said with Ganeti 3.0.2's daemons.

Hundreds of commands that were recorded once: creations alone and many at once, starts, stops,
reboots, renamings, reinstallations, modifications, disks that grow, vanish and are made anew.
``instance_transcripts.py`` lists what differs, and why.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said
from tests.functional.instance_transcripts import (
    AFTERWARDS,
    GROUPS,
    RecordedOnInstances,
    recorded_on_instances,
)

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

#: Seconds after which a command is given up.
LIMIT = 90.0

#: The least part of the commands that must end, and print, as recorded.
SAME_CODE = 0.98
SAME_OUTPUT = 0.93


class Player:
    """Runs the commands of a group on a new cluster, each when the one before has ended."""

    def __init__(self, group: str, folder: Path) -> None:
        self.group = group
        self._all = recorded_on_instances(group)
        self.commands = [each for each in self._all if not each.left_out]
        self.said: dict[int, Said] = {}
        self._files = folder / "files"
        nodes = FIVE_NODES
        folder.mkdir()
        self._files.mkdir()
        if group == "instance":
            nodes = folder / "nodes.toml"
            nodes.write_text(THREE_NODES, encoding="utf-8")
        self._daemon = DaemonProcess(folder / "node1", nodes=str(nodes))
        self.folders = {str(self._daemon.root): "ROOT", str(self._files): "$FS"}

    def play(self) -> None:
        """Runs them all; what they did is in ``said``."""
        with self._daemon:
            assert self._run(SET_UP).code == 0
            for each in self._all:
                if not each.left_out:
                    self.said[each.number] = self._run(each.command)
                if each.place in AFTERWARDS:
                    self._run(AFTERWARDS[each.place])

    def _run(self, command: str) -> Said:
        environment = {
            **self._daemon.environment,
            "NET": NET.get(self.group, "192.0.2"),
            "FS": str(self._files),
            "BLK": shlex.join((sys.executable, "-m", "ganeti_masterd.simulation")),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        try:
            done = subprocess.run(
                ["bash", "-c", command],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT,
                check=False,
                start_new_session=True,  # the tools would ask on the terminal
            )
        except subprocess.TimeoutExpired:
            return Said(-1, "", f"not ended within {LIMIT:g} s")
        return Said(done.returncode, done.stdout, done.stderr)


Played = dict[str, Player]


@pytest.fixture(scope="module")
def played(module_folder: Path) -> Played:
    """All groups, played at the same time, as most of the time is waiting."""
    require("gnt-instance", "ganeti-3.0")
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")
    players = [Player(group, module_folder / group) for group in GROUPS]
    with ThreadPoolExecutor(len(players)) as threads:
        list(threads.map(Player.play, players))
    return {player.group: player for player in players}


@pytest.mark.parametrize("group", GROUPS)
def test_as_recorded(played: Played, group: str) -> None:
    """Each command ends and prints as recorded, unless it is listed as different."""
    wrong = [
        f"{each.name}\ninstead of {each.code}:\n{each.out}{each.err}\n{said.code}:\n"
        f"{said.out}{said.err}"
        for each, said, _, same_output in results(played[group])
        if said.code != each.expected_code or not (same_output or each.only_code)
    ]
    assert not wrong, "\n\n".join(wrong)


def test_how_much_is_the_same(played: Played) -> None:
    """Few are listed: nearly all exit codes are the same, and nearly all outputs."""
    found = [result for player in played.values() for result in results(player)]
    codes = sum(same_code for _, _, same_code, _ in found)
    outputs = sum(same_output for _, _, _, same_output in found)
    assert len(found) > 380
    assert codes / len(found) > SAME_CODE
    assert outputs / len(found) > SAME_OUTPUT


def results(player: Player) -> list[tuple[RecordedOnInstances, Said, bool, bool]]:
    """Returns each command that was run, what it said, whether code and outputs are the same."""
    found = []
    for each in player.commands:
        said = player.said[each.number]
        same_code = said.code == each.code
        found.append((each, said, same_code, same_code and each.same_output(said, player.folders)))
    return found
