"""The Debian package: built, installed, switched to, used, upgraded, switched back, purged.

On a machine of its own (an overlay of this one, with systemd), with a real cluster of one node.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import REQUIRE_PEER, do_without, need_peer, require
from tests.functional.machine import OverlayMachine, overlay_machine
from tests.functional.realcluster import BOUNDS
from tests.functional.systemd import can_run
from tests.functional.waiting import until
from tools.debian_package import build

#: Seconds in which the package is built, or the longest command ends, on a busy machine.
LIMIT = 400.0

INIT = (
    "gnt-cluster init --no-etc-hosts --no-ssh-init --master-netdev=lo "
    "--enabled-disk-templates=diskless --enabled-hypervisors=fake "
    f"--nic-parameters mode=routed,link=100 --ipolicy-bounds-specs={BOUNDS} cluster"
)
ADD = (
    "gnt-instance add -t diskless -n node1 -o noop --no-ip-check --no-name-check --no-nics "
    "--no-start inst1"
)
INSTALL = "dpkg -i --no-triggers /tmp/*.deb"
ACTIVE = "systemctl is-active gnt-masterd"


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """The package, in a folder of its own: a new one, or that of GANETI_MASTERD_PACKAGE."""
    require("dpkg-shlibdeps", "dpkg-dev")
    require("man", "man-db")
    folder = Path(tempfile.mkdtemp(prefix="gnt-"))
    try:
        built = os.environ.get("GANETI_MASTERD_PACKAGE")
        yield build(folder) if built is None else Path(shutil.copy(built, folder))
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[OverlayMachine]:
    """A machine on which the package is installed, and luxid serves a cluster."""
    need_peer()
    require("nsenter", "util-linux")
    if REQUIRE_PEER:
        require("systemctl", "systemd")
    if (missing := can_run()) is not None:
        do_without(missing)
    with overlay_machine(package.parent) as made:
        made.run(INSTALL, LIMIT).checked()
        made.run(INIT, LIMIT).checked()
        made.run("gnt-cluster add-tags before", LIMIT).checked()
        made.run("cp -a /etc/default/ganeti /root/before").checked()
        yield made


def out(machine: OverlayMachine, command: str) -> str:
    """Returns what a command prints that must succeed."""
    return machine.run(command, LIMIT).checked().out


def changed(machine: OverlayMachine) -> list[str]:
    """Returns the packages' files that aren't as they were installed, but Ganeti's settings.

    Of ganeti-masterd too, while it is installed.
    """
    found = machine.run("dpkg --verify ganeti ganeti-3.0 ganeti-haskell-3.0", LIMIT).out
    if machine.run("dpkg --status ganeti-masterd").code == 0:
        found += machine.run("dpkg --verify ganeti-masterd", LIMIT).out
    return [line for line in found.splitlines() if not line.endswith("/etc/default/ganeti")]


def test_installation_changes_nothing(machine: OverlayMachine) -> None:
    """The cluster is luxid's as before; programs, unit, manual pages are there."""
    assert out(machine, "gnt-cluster list-tags") == "before\n"
    assert machine.run(ACTIVE).out == "inactive\n"
    assert out(machine, "systemctl show --property=LoadState gnt-masterd") == "LoadState=loaded\n"
    assert changed(machine) == []
    assert out(machine, "gnt-luxi --version").startswith("gnt-luxi ")
    assert "gnt-masterd" in out(machine, "gnt-masterd --help")
    for page in ("gnt-luxi", "gnt-masterd"):
        text = out(machine, f"man --local-file /usr/share/man/man8/{page}.8.gz | cat")
        assert page in text
    # The interpreter must find all modules in the package, none elsewhere.
    code = "import ganeti_masterd.tap, OpenSSL, re2, rich; print(rich.__file__)"
    path = out(machine, f"cd /; /opt/ganeti-masterd/bin/python -c '{code}'")
    assert path.startswith("/opt/ganeti-masterd/lib/python3.")


def test_completion(machine: OverlayMachine) -> None:
    """Bash completes commands of gnt-luxi and options of gnt-masterd."""
    folder = "/usr/share/bash-completion/completions"
    ask = f". {folder}/gnt-luxi; COMP_WORDS=(gnt-luxi sw); COMP_CWORD=1; _gnt_luxi_completion"
    assert out(machine, f"{ask} gnt-luxi; echo ${{COMPREPLY[@]}}") == "switch\n"
    ask = f". {folder}/gnt-masterd; _gnt_masterd gnt-masterd --check gnt-masterd"
    assert out(machine, f"{ask}; echo ${{COMPREPLY[@]}}") == "--check-only\n"
    ask = f". {folder}/gnt-masterd; _gnt_masterd gnt-masterd /op --root"
    assert out(machine, f"{ask}; echo ${{COMPREPLY[@]}}") == "/opt\n"


def test_life(machine: OverlayMachine) -> None:
    """Switched over, used, not removed while it serves, upgraded, switched back, purged."""
    out(machine, "gnt-luxi switch to")
    assert out(machine, ACTIVE) == "active\n"
    (pid,) = out(machine, "systemctl show --property=MainPID --value gnt-masterd").split()
    assert out(machine, f"ps -o user:20= -p {pid}").split() == ["gnt-masterd"]
    out(machine, ADD)
    assert out(machine, "gnt-instance list --no-headers -o name") == "inst1\n"
    out(machine, "gnt-cluster add-tags meanwhile")
    assert changed(machine) == []

    # What Ganeti's own logrotate.d/ganeti does with all of /var/log/ganeti/*.log.
    log = "/var/log/ganeti/master-daemon.log"
    out(machine, f"mv {log} {log}.1 && /usr/lib/ganeti/daemon-util rotate-all-logs")
    until("a new log is begun", lambda: machine.run(f"test -s {log}").code, lambda code: code == 0)

    refused = machine.run("dpkg --remove ganeti-masterd", LIMIT)
    assert refused.code != 0
    assert "Run this first: gnt-luxi switch back" in refused.out
    assert out(machine, ACTIVE) == "active\n"

    # An upgrade has it start again.
    out(machine, INSTALL)
    until("it serves", lambda: machine.run(ACTIVE).out, lambda text: text == "active\n")
    assert out(machine, "systemctl show --property=MainPID --value gnt-masterd").split() != [pid]
    assert out(machine, "gnt-cluster list-tags") == "before\nmeanwhile\n"

    out(machine, "gnt-luxi switch back")
    assert machine.run(ACTIVE).out == "inactive\n"
    out(machine, "cmp /root/before /etc/default/ganeti")
    assert out(machine, "gnt-cluster list-tags") == "before\nmeanwhile\n"
    assert out(machine, "ls -A /var/lib/ganeti/masterd") != ""

    out(machine, "dpkg --purge ganeti-masterd")
    for path in ("/opt/ganeti-masterd", "/var/lib/ganeti/masterd", "/usr/bin/gnt-luxi"):
        assert machine.run(f"test -e {path}").code == 1, path
    folders = "/etc /usr/bin /usr/sbin /usr/lib/systemd/system /usr/share/man /usr/share/doc"
    assert out(machine, f"find {folders} -name '*gnt-masterd*' -o -name '*gnt-luxi*'") == ""
    assert machine.run("dpkg --status ganeti-masterd").code != 0
    assert changed(machine) == []
    assert out(machine, "gnt-cluster list-tags") == "before\nmeanwhile\n"
    assert out(machine, "gnt-instance list --no-headers -o name") == "inst1\n"
    out(machine, "gnt-cluster remove-tags meanwhile")
