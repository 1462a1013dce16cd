"""``--check-only``: says what a start would say, and leaves everything as it is."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from ganeti_masterd.journal.schema import SCHEMA_VERSION
from ganeti_masterd.startup.locks import LockedFile
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.test_startup import DETACHED, FOREGROUND, Site, delay

Tree = dict[str, tuple[object, ...]]


def tree(root: str) -> Tree:
    """Every file and folder: kind and mode, owner, times, content."""
    found: Tree = {}
    for folder, names, files in os.walk(root):
        for path in (folder, *(f"{folder}/{name}" for name in names + files)):
            state = os.lstat(path)
            content = Path(path).read_bytes() if stat.S_ISREG(state.st_mode) else None
            found[path] = (
                *(state.st_ino, state.st_mode, state.st_uid, state.st_gid, state.st_nlink),
                *(state.st_mtime_ns, state.st_ctime_ns, content),
            )
    return found


def checked(site: Site, *options: str, code: int = 0, simulate: bool = True) -> str:
    """Checks, whether it would detach or not; returns what was said. All is as before."""
    before = tree(str(site.folder))
    said = ""
    for how in (FOREGROUND, DETACHED):
        done = site.start("--check-only", *options, how=how, simulate=simulate)
        said = done.stdout + done.stderr
        assert done.returncode == code, done
        assert "Traceback" not in said, said
        assert ("All checks passed" in said) is (code == 0), said
        assert tree(str(site.folder)) == before
    return said


@pytest.fixture
def site(folder: Path) -> Site:
    """A cluster of three simulated nodes."""
    made = Site(folder)
    made.prepare()
    return made


@pytest.fixture
def killed(folder: Path) -> Site:
    """The same after a daemon that was killed at work."""
    made = Site(folder)
    with DaemonProcess(made.paths.root) as daemon:
        for _ in range(5):
            daemon.client().submit_job([delay(600)])
        daemon.kill()
    assert os.path.getsize(made.paths.journal + "-wal")
    return made


def test_no_cluster(folder: Path) -> None:
    """A root that isn't there: a simulation would make it, anything else is refused."""
    site = Site(folder)
    assert "one of 3 nodes would be made" in checked(site)
    assert "Cluster configuration incomplete" in checked(site, simulate=False, code=12)


def test_fresh_root(site: Site) -> None:
    """It would start; the nodes were asked."""
    assert "This node is the master: 2 of 2 other nodes agree" in checked(site)


def test_left_by_a_kill(killed: Site) -> None:
    """A journal with rows that fit is no obstacle, and is not replayed."""
    checked(killed)
    with killed.detached("--stop-timeout=0"):
        pass


def test_daemons_at_work(site: Site) -> None:
    """What luxid, wconfd or another daemon hold is named, and is no failure."""
    site.environment["GANETI_HOSTNAME"] = "localhost"
    master = Path(site.paths.ssconf("master_node"))
    master.chmod(0o644)
    master.write_text("localhost\n")
    held = [*site.paths.peers_pids, site.paths.queue_lock]
    locks = []
    for path in held:
        locks.append(LockedFile(path))
        locks[-1].write("4711\n")
    said = checked(site, *("--user=root", "--group=root", "--no-voting"), simulate=False)
    for path in site.paths.peers_pids:
        assert f"To be stopped before the start: {path} is locked" in said
    for lock in locks:
        lock.release()


def test_own_daemon_at_work(site: Site) -> None:
    """A daemon that runs is named; it is not disturbed."""
    with site.detached():
        done = site.start("--check-only")
        assert done.returncode == 0, done
        assert "This daemon runs already" in done.stderr
        assert "All checks passed" in done.stderr


def test_refusals(site: Site) -> None:
    """Exit code and message are those of a start."""
    site.environment["GANETI_HOSTNAME"] = "node2"
    assert "Not master" in checked(site, code=11)
    del site.environment["GANETI_HOSTNAME"]
    assert "nobody-at-all" in checked(site, "--user=nobody-at-all", code=1)
    assert "is no endpoint" in checked(site, "--monitoring=tcp:x", code=1)
    users = Path(site.folder) / "users"
    users.write_text("anna:secret\n")
    users.chmod(0o600)
    asked = ("--monitoring=tcp:1", f"--monitoring-users={users}")
    assert f"{users}: line 1: the password of anna" in checked(site, *asked, code=1)
    site.disturb(kind="garbage", call="master_node_name", payload="node2")
    assert "node2 is the master by 2 of 2 votes" in checked(site, code=1)
    assert "nodes were not asked" in checked(site, "--no-voting")
    config = Path(site.paths.config)
    config.write_text(json.dumps({**json.loads(config.read_bytes()), "version": 2160000}))
    assert "version 2.16.0" in checked(site, code=1)


def test_journals_that_do_not_fit(killed: Site) -> None:
    """Foreign, newer, damaged, set aside: refused by name, and left where they are."""
    journal = killed.paths.journal
    config = Path(killed.paths.config)
    kept = config.read_bytes()
    config.write_bytes(kept.replace(b'"serial_no":1', b'"serial_no":2', 1) + b"\n")
    said = checked(killed, code=1)
    assert f"A start would set the journal {journal} aside: {config} was changed" in said
    assert "the journal is set aside" in killed.start().stderr
    assert "the journal is set aside" in checked(killed, code=1)
    (aside,) = Path(journal).parent.glob("journal.set-aside-*Z")
    shutil.move(aside, journal)
    with sqlite3.connect(journal) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    assert f"{journal}: the journal has schema version 9" in checked(killed, code=1)
    assert f"this daemon knows versions up to {SCHEMA_VERSION}" in killed.start().stderr
    Path(journal).write_bytes(b"no journal at all" * 500)
    assert f"set the journal {journal} aside: it is damaged" in checked(killed, code=1)
