"""Debian's own gnt-instance modify against the daemon on simulated nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.test_gnt_instance_life import gnt, prepare

#: What the tool says after every change.
REMINDER = (
    "Please don't forget that most parameters take effect only at the next (re)start of the "
    "instance initiated by ganeti; restarting from within the instance will not be enough.\n"
)


@pytest.fixture(scope="module")
def modified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A cluster of three nodes with four instances, for all tests of this module."""
    require("gnt-instance", "ganeti-3.0")
    root: Path = tmp_path_factory.mktemp("modify") / "node1"
    prepare(root)
    with DaemonProcess(root) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("-B memory=256 instance1", ["be/memory -> 256"]),
        (
            "-B maxmem=512,minmem=128,vcpus=2 instance2",
            ["be/maxmem -> 512", "be/minmem -> 128", "be/vcpus -> 2"],
        ),
        (
            "--net 0:modify,ip=192.0.2.77,mode=routed,link=100,name=x instance1",
            [
                "nic.ip/0 -> 192.0.2.77",
                "nic.name/0 -> x",
                "nic.link/0 -> 100",
                "nic.mode/0 -> routed",
                "nic.vlan/0 ->",
            ],
        ),
        ("--net x:remove instance1", ["NIC/0 -> remove"]),
        ("--disk add:size=16M,name=log instance3", ["disk/1 -> add:size=16,mode=rw"]),
        ("--disk log:modify,mode=ro instance3", ["disk.mode/1 -> ro"]),
        ("--disk log:detach instance3", ["disk/1 -> detach"]),
        ("--disk attach:name=log instance3", ["disk/1 -> attach:size=16,mode=ro"]),
        ("--disk 1:remove instance3", ["disk/1 -> remove"]),
        ("--offline instance4", ["admin_state -> offline"]),
        ("--online instance4", ["admin_state -> down"]),
        ("-t drbd -n node3 instance2", ["disk_template -> drbd"]),
        ("-t file instance2", ["disk_template -> file"]),
        ("-t plain instance2", ["disk_template -> plain"]),
        ("--new-primary node2 instance1", ["pnode -> node2"]),
    ],
)
def test_modified(modified: DaemonProcess, command: str, lines: list[str]) -> None:
    """The tool lists what changed; the cluster's verification finds nothing amiss."""
    said = gnt(modified, f"gnt-instance modify {command}")
    assert said.code == 0, said
    instance = command.rsplit(" ", 1)[1]
    listed = "".join(f" - {line}\n" for line in lines)
    assert said.out.endswith(f"Modified instance {instance}\n{listed}{REMINDER}"), said


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("instance1", "Please give at least one of the parameters."),
        (
            "--disk 9:remove instance3",
            "There is no disk with the index 9: the instance has 1 of them",
        ),
        ("--net 9:remove instance3", "There is no NIC with the index 9"),
        ("-t plain instance4", "Conversion from the 'diskless' disk template is not supported"),
        ("--runtime-memory=20 instance1", "Instance instance1 is not running"),
        ("-B maxmem=256,minmem=512 instance1", "minmem (512) must not be larger"),
    ],
)
def test_refused(modified: DaemonProcess, command: str, error: str) -> None:
    """The tool says why nothing changed."""
    said = gnt(modified, f"gnt-instance modify {command}")
    assert said.code == 1, said
    assert error in said.out + said.err


def test_verified(modified: DaemonProcess) -> None:
    """After all that disks and configuration fit together."""
    said = gnt(modified, "gnt-cluster verify-disks")
    assert said.code == 0, said
    said = gnt(modified, "gnt-cluster verify")
    assert "ERROR" not in said.out, said.out
