"""Private and secret OS parameters: where their values are once the jobs have ended."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.descriptions import description_in
from tests.functional.waiting import equal_to, jobs_end, until

#: An operating system whose create script refuses one value of a public parameter.
CLUSTER = """
[cluster]
disk_templates = ["plain", "drbd", "diskless", "file"]

[[node]]
name = "node1"

[[node]]
name = "node2"

[[node]]
name = "node3"

[[os]]
name = "demo"
variants = ["plain"]

[os.parameters]
fs = "public"
pw = "private"
token = "secret"

[[os.fails]]
script = "create"
parameter = "fs"
values = ["boom"]
output = "told to fail"
"""

#: Hooks that write down all that they are told.
HOOK = """#!/bin/sh
env >> "{seen}"
"""
HOOKED = ("add", "reinstall", "modify", "rename", "remove")

NAME = "web.example.com"


class Values:
    """Makes values of private and secret parameters, each of which is used once."""

    def __init__(self) -> None:
        self.private: list[str] = []
        self.secret: list[str] = []

    def given(self, **public: str) -> dict[str, Any]:
        """Returns OS parameters of an opcode, with new private and secret values."""
        self.private.append(f"hush-{len(self.private)}-private")
        self.secret.append(f"hush-{len(self.secret)}-secret")
        return {
            "osparams": public,
            "osparams_private": {"pw": self.private[-1]},
            "osparams_secret": {"token": self.secret[-1]},
        }


def install_hooks(daemon: DaemonProcess, seen: Path) -> None:
    """Installs hooks on the master, before and after each opcode."""
    for opcode in HOOKED:
        for phase in ("pre", "post"):
            folder = daemon.root / "etc/ganeti/hooks" / f"instance-{opcode}-{phase}.d"
            folder.mkdir(parents=True, exist_ok=True)
            script = folder / "tell"
            script.write_text(HOOK.format(seen=seen), encoding="ascii")
            script.chmod(0o755)


def run(daemon: DaemonProcess, op: dict[str, Any]) -> Any:
    """Runs an opcode as a job; returns the job's end: status, results, log, opcodes."""
    fields = ["status", "opresult", "oplog", "ops", "summary", "opstatus"]
    with daemon.client() as client:
        job = client.submit_job([op])
        news: Any = None
        while news is None or news[0] not in ("success", "error"):
            answer = client.wait_for_job_change(job, fields, news, None)
            news = answer[0] if answer is not None else news
        return news


def written(root: Path) -> Iterator[Path]:
    """Returns each file below a folder."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                yield path


def places(folder: Path, value: str) -> list[str]:
    """Returns the files below a folder in which a value is found, in clear."""
    wanted = value.encode("ascii")
    return sorted(
        str(path.relative_to(folder)) for path in written(folder) if wanted in path.read_bytes()
    )


def check_files(daemon: DaemonProcess, folder: Path, values: Values) -> None:
    """Expects no secret value in any file, and private ones where the configuration is.

    That is config.data and the journal, whose rows make it durable, and the disks of the
    simulated nodes, of which two have copies of it.
    """
    for value in values.secret:
        assert places(folder, value) == []
    root = daemon.root.relative_to(folder)
    kept = (f"{root}/var/lib/ganeti/config.data", f"{root}/var/lib/ganeti/masterd/journal.db")
    kept = (*kept, f"{root}/simulation/nodes.sqlite")
    for value in values.private:
        until(
            f"{value} is nowhere but in the configuration",
            lambda value=value: [  # type: ignore[misc]
                place for place in places(folder, value) if not place.startswith(kept)
            ],
            equal_to([]),
        )


def check_journal(daemon: DaemonProcess) -> None:
    """Expects no private value in the rows of jobs in the journal of a daemon that has stopped."""
    path = daemon.root / "var/lib/ganeti/masterd/journal.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        bodies = [bytes(body) for (body,) in journal.execute("SELECT body FROM jobs")]
    assert [body for body in bodies if b"hush" in body] == []


def stored(daemon: DaemonProcess, name: str) -> str | None:
    """Returns the private value of an instance in config.data."""
    document = json.loads((daemon.root / "var/lib/ganeti/config.data").read_text("utf-8"))
    for instance in document["instances"].values():
        if instance["name"] == name:
            value: str = instance["osparams_private"]["pw"]
            return value
    return None


@pytest.fixture
def daemon(make_daemon: Callable[..., DaemonProcess], folder: Path) -> DaemonProcess:
    """A daemon on three simulated nodes, with hooks on its own."""
    made = make_daemon("--simulate-log=synced", nodes=description_in(folder, CLUSTER))
    install_hooks(made, folder / "hooks.seen")
    made.start()
    return made


def test_values_are_nowhere(daemon: DaemonProcess, folder: Path) -> None:
    """Secret values are in no file, log or answer; private ones in the configuration only."""
    values = Values()
    create = {
        "OP_ID": "OP_INSTANCE_CREATE",
        "instance_name": NAME,
        "mode": "create",
        "disk_template": "plain",
        "disks": [{"size": 64}],
        "nics": [],
        "os_type": "demo+plain",
        "pnode": "node1",
        "name_check": False,
        "ip_check": False,
        "start": False,
    }
    again = {"OP_ID": "OP_INSTANCE_REINSTALL", "instance_name": NAME}
    ends = [
        ("success", create | values.given(fs="ext4")),
        ("error", create | values.given(fs="ext4")),
        ("error", create | {"instance_name": "x.example.com"} | values.given(fs="boom")),
        ("error", create | {"instance_name": "y.example.com"} | values.given(nosuch="x")),
        ("error", again | values.given(nosuch="x")),
        ("error", again | values.given(fs="boom")),
        ("success", again | values.given(fs="xfs")),
    ]
    inner = create | {"instance_name": "z.example.com"}
    many = {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": [inner | values.given(fs="xfs")]}
    ends.append(("success", many))
    values.private.append(values.private.pop(-2))
    modify = {"OP_ID": "OP_INSTANCE_SET_PARAMS", "instance_name": NAME}
    for status, public in (("error", {"nosuch": "x"}), ("success", {"fs": "ext4"})):
        given = values.given(**public)
        # What isn't stored can't be modified.
        values.secret.pop()
        del given["osparams_secret"]
        ends.append((status, modify | given))
    said = []
    for status, op in ends:
        end = run(daemon, op)
        assert end[0] == status, end
        said.append(json.dumps(end))
    with daemon.client() as client:
        jobs_end(client)
    until(
        "config.data has the last private value",
        lambda: stored(daemon, NAME),
        equal_to(values.private[-1]),
    )
    seen = (folder / "hooks.seen").read_text("utf-8")
    assert "GANETI_INSTANCE_OS_TYPE=demo+plain" in seen
    for value in (*values.private, *values.secret):
        assert not [text for text in said if value in text]
    check_files(daemon, folder, values)
    daemon.stop()
    check_files(daemon, folder, values)
    check_journal(daemon)
