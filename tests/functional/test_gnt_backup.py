"""Debian's own gnt-backup exports and imports on simulated nodes; so does move-instance.

``tests/data/gnt_backups.json`` has commands with the exit code and output that Ganeti 3.0.2 gave
for them on a real cluster (recorded once). The daemon says the same, except what
docs/differences.rst names.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.descriptions import description_in
from tests.functional.remoteapi import RapiClient, may_connect, remote_api
from tests.rpc import pki

#: Five nodes in two groups with all kinds of storage, as those of the recording.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data" / "gnt_backups.json").read_text(encoding="utf-8")
)

ADD = "gnt-instance add --no-ip-check --no-name-check --no-nics"

USERS = "tester secret write\n"

#: What our daemon says instead of what was recorded: (in the command, recorded, ours).
DIFFERENT = (
    # An export that isn't there is found out before anything begins.
    (
        "--src-dir nosuch --src-node",
        "Failure: command execution error:\n",
        "Failure: prerequisites not met for this operation:\n"
        "error type: unknown_entity, error details:\n",
    ),
)

#: Lines whose number or place depends on how quick daemons are.
PASSING = re.compile(
    r"(?m)^(.* is (receiving|sending) data on .*| - INFO: .* sent .*| - INFO: (Waiting for instance"
    r"|Instance) .* sync.*)\n"
)


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One cluster for the whole module."""
    require("gnt-backup", "ganeti-3.0")
    module_folder.chmod(0o755)  # the remote API runs as another user
    nodes = described(module_folder)
    with DaemonProcess(module_folder / "node1", *may_connect(), nodes=nodes) as daemon:
        yield daemon


def described(folder: Path) -> str:
    """Returns the description of a cluster that others in this folder can reach."""
    place = f'[cluster]\nmeeting_place = "{folder}/meeting"\n'
    text = CLUSTER.read_text(encoding="utf-8").replace("[cluster]\n", place)
    return description_in(folder, text)


def run(daemon: DaemonProcess, command: str) -> tuple[int, str]:
    """Runs a command of the shell; returns its exit code, and output without times and paths."""
    done = daemon.tool(["sh", "-c", f"({command}) 2>&1"])
    text = re.sub(r"(?m)^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} ", "", done.stdout)
    return done.returncode, steady(text.replace(str(daemon.root), ""))


def steady(text: str) -> str:
    """Returns what doesn't depend on how quick daemons are; ends of both ends are sorted."""
    lines = PASSING.sub("", text).splitlines()
    begin = next((place for place, line in enumerate(lines) if "finished" in line), len(lines))
    moving = ("finished", "Removing snapshot")
    end = begin + sum(any(word in line for word in moving) for line in lines[begin:])
    return "\n".join((*lines[:begin], *sorted(lines[begin:end]), *lines[end:]))


def test_as_recorded(daemon: DaemonProcess) -> None:
    """Exports, lists, imports, removals, and refusals of each."""
    made = run(
        daemon, f"{ADD} -t plain -n node2 -o noop --disk 0:size=4M --disk 1:size=8M instance2"
    )
    assert made[0] == 0, made
    for recorded in RECORDED:
        command, said = recorded["command"], recorded["said"]
        for part, theirs, ours in DIFFERENT:
            if part in command:
                assert theirs in said
                said = said.replace(theirs, ours)
        assert run(daemon, command) == (recorded["code"], steady(said)), command


@contextlib.contextmanager
def api(daemon: DaemonProcess, certificate: Path) -> Iterator[int]:
    """Runs the remote API of a cluster; yields its port."""
    with remote_api(daemon, USERS, f"--ssl-key={certificate}", f"--ssl-cert={certificate}") as port:
        yield port


def test_moved(daemon: DaemonProcess, module_folder: Path) -> None:
    """RAPI exports; move-instance moves an instance from one cluster to another.

    There it gets another name, which has to be one that resolves, and other storage.
    """
    move = require("/usr/lib/ganeti/tools/move-instance", "ganeti-3.0")
    made = run(daemon, f"{ADD} -t plain -n node2 -o noop --disk 0:size=8M --disk 1:size=4M web")
    assert made[0] == 0, made
    certificate = module_folder / "rapi.pem"
    pki.identity("localhost").write(str(certificate))
    certificate.chmod(0o644)
    password = module_folder / "password"
    password.write_text("secret\n", encoding="utf-8")
    there = module_folder / "there" / "node1"
    secret = "var/lib/ganeti/cluster-domain-secret"
    with DaemonProcess(there, *may_connect(), nodes=described(module_folder)) as other:
        (there / secret).write_bytes((daemon.root / secret).read_bytes())
        with api(daemon, certificate) as port, api(other, certificate) as its_port:
            exported, gone = RapiClient(port, "tester", "secret").calls(
                ("ExportInstance", ["web", "local", "node3"], {}),
                ("ExportInstance", ["web", "local", "nosuch"], {}),
            )
            assert exported["opresult"] == [[True, [True, True]]], exported
            assert gone["status"] == "error"
            said = run(
                daemon,
                f"{move} --verbose --src-rapi-port={port} --dest-rapi-port={its_port} "
                f"--src-ca-file={certificate} --src-username=tester "
                f"--src-password-file={password} --opportunistic-tries=0 "
                "--dest-instance-name=localhost --dest-primary-node=node3 "
                "--dest-disk-template=file localhost localhost web",
            )
        assert said[0] == 0, said
        listed = "gnt-instance list --no-headers --separator=: -o"
        fields = "name,pnode,disk_template,disk.sizes,status"
        assert run(other, f"{listed} {fields}") == (0, "localhost:node3:file:8,4:running")
    assert "web" not in run(daemon, f"{listed} name")[1].split()
