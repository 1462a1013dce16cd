"""Real virtual machines under gnt-masterd and, in the long form, under luxid on the same cluster.

A walk is a list of steps with Debian's tools, and each step says what it saw. The short form
(``-k short``) is a walk of a few steps under gnt-masterd; in the long form luxid and then
gnt-masterd walk through all of them, and what they saw is compared.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.functional.conftest import do_without, need_root, require
from tests.functional.realcluster import Ran, real_cluster
from tests.functional.waiting import containing, equal_to, process_ends, until
from tests.kvm.cluster import MEMORY, NODES, PROGRAMS_AND_PACKAGES, KvmCluster
from tests.kvm.guests import Guest, build

#: What a step saw, to be compared with what it saw under the other master daemon.
Seen = dict[str, object]

#: Commands that wait for a machine which is emulated.
SLOW = 600.0

ADD = "gnt-instance add --no-name-check --no-ip-check -t sharedfile -o noop -B minmem=64,maxmem=96"

#: Where the two differ: what luxid's texts have, and what gnt-masterd's have in its place
#: (docs/differences.rst says why).
DIFFERENT = (
    (r"(-oHostKeyAlias=\S+)", r"\1 -oPort=22"),
    (r"(?m)^ - INFO: (Waiting for instance .* to sync disks|Instance .* are in sync)\n", ""),
    (r"(?m)(Could not close instance disks .* anyway)$", r"\1: Node is marked offline"),
)

#: Progress of a copy, of which more or less is told.
_PROGRESS = r"(?m)^disk/\d+ .*\n"


@contextmanager
def kvm_cluster(nodes: Sequence[str] = NODES) -> Iterator[KvmCluster]:
    """A cluster of these nodes with real virtual machines, luxid its master daemon."""
    for program, package in PROGRAMS_AND_PACKAGES.items():
        require(program, package)
    # The node daemon wants this of Debian's own Python.
    if subprocess.run(["/usr/bin/python3", "-c", "import bitarray"], check=False).returncode:
        do_without("bitarray is not installed (Debian's package python3-bitarray)")
    need_root("a real cluster needs root")
    with real_cluster(nodes, kind=KvmCluster) as made:
        build(made.folder / "guest")
        yield made


class Walk:
    """One instance's life under one master daemon."""

    def __init__(self, cluster: KvmCluster, number: int, *, luxid: bool) -> None:
        self.cluster = cluster
        self.guest = Guest(cluster, number)
        self.name = self.guest.name
        self.luxid = luxid

    def run(self, command: str, code: int = 0) -> Ran:
        """Runs a command, which ends with this code."""
        ran = self.cluster.run(command, limit=SLOW)
        assert ran.code == code, f"{command}: {ran.code}\n{ran.out}{ran.err}"
        return ran

    def told(self, command: str) -> str:
        """Runs a command; returns what its job told, line by line, without the times."""
        ran = self.run(command)
        lines = re.findall(r"(?m)^... ... .{16} (.*\n)", ran.out + ran.err)
        return re.sub(_PROGRESS, "", "".join(lines))

    def listed(self, fields: str) -> str:
        """Returns what gnt-instance list says of it, fields parted by slashes."""
        command = f"gnt-instance list --no-headers --separator=/ -o {fields} {self.name}"
        return self.run(command).out.strip()

    def seen(self, **more: object) -> Seen:
        """Returns what is compared after each step."""
        return {"nodes": self.guest.nodes(), "listed": self.listed("status,pnode"), **more}

    # The steps

    def add(self) -> Seen:
        """It is made and started; it counts."""
        self.run(f"{ADD} -n node1 --disk 0:size=64m --net 0:mac={self.guest.mac()} {self.name}")
        self.guest.comes_up()
        assert str(MEMORY) in self.guest.monitor("node1", "info memory_size_summary")
        return self.seen(live=self.listed("oper_ram,oper_vcpus"))

    def console(self) -> Seen:
        """What it prints on its console is seen, what it writes to its disk is in the image."""
        printed = self.guest.type("node1", "echo MARK-$((6*7)) > /dev/vda; head -c 7 /dev/vda")
        assert "MARK-42" in printed
        image = self.cluster.image(self.name)
        until("the mark is in the image", lambda: image.read_bytes()[:7], equal_to(b"MARK-42"))
        command = self.run(f"gnt-instance console --show-cmd {self.name}").out
        return self.seen(console=command)

    def hotplug(self) -> Seen:
        """A disk and a NIC come and go while it runs, and it sees them."""
        modify = "gnt-instance modify --hotplug"
        said = [self.run(f"{modify} --disk add:size=32m {self.name}").out]
        said.append(self.run(f"{modify} --net add:mac={self.guest.mac(1)} {self.name}").out)
        self.guest.comes_up(1)
        disks = self.guest.type("node1", "ls /sys/block")
        assert "vdb" in disks, disks
        said.append(self.run(f"{modify} --net 1:remove {self.name}").out)
        said.append(self.run(f"{modify} --disk 1:remove {self.name}").out)
        until(
            "the disk is gone",
            lambda: self.guest.type("node1", "ls /sys/block"),
            lambda text: "vdb" not in text,
        )
        return self.seen(said=[re.findall("hotplug:.*", each) for each in said])

    def memory(self) -> Seen:
        """Its memory shrinks and grows while it runs."""
        for size in (72, 96):
            self.run(f"gnt-instance modify -m {size} {self.name}")
            until(
                f"the balloon is at {size}",
                lambda: self.guest.monitor("node1", "info balloon"),
                containing(f"actual={size}"),
            )
        return self.seen()

    def processors(self) -> Seen:
        """It has two processors after the next start, and one again after that."""
        found = []
        for number in (2, 1):
            self.run(f"gnt-instance modify -B vcpus={number} {self.name}")
            self.run(f"gnt-instance reboot --type=full {self.name}")
            self.guest.comes_up()
            found.append(self.guest.type("node1", "nproc").split()[0])
            assert found[-1] == str(number)
        return self.seen(found=found)

    def migrate(self) -> Seen:
        """It goes to another node and back, and goes on counting."""
        places = []
        for node in ("node2", "node1"):
            before = self.guest.comes_up()
            self.run(f"gnt-instance migrate -f -n {node} {self.name}")
            self.guest.goes_on(before)
            places.append(self.guest.nodes())
        return self.seen(places=places)

    def failover(self) -> Seen:
        """It goes down, and comes up anew on another node; then back."""
        places, told = [], []
        for node in ("node2", "node1"):
            until("it has counted for a while", self.guest.comes_up, lambda count: count > 3)
            command = f"gnt-instance failover -f --shutdown-timeout=20 -n {node} {self.name}"
            told.append(self.told(command))
            places.append(self.guest.nodes())
            self.guest.comes_up()
        return self.seen(places=places, told=told)

    def reboot(self) -> Seen:
        """Each way of rebooting gives another qemu."""
        others = []
        for kind in ("soft", "hard", "full"):
            before = self.guest.pid("node1")
            self.run(f"gnt-instance reboot --type={kind} {self.name}")
            others.append(self.guest.pid("node1") != before)
            self.guest.comes_up()
        return self.seen(others=others)

    def shutdown(self) -> Seen:
        """It goes down when asked, and comes up again."""
        return self.goes_down("")

    def deaf(self) -> Seen:
        """It goes down by force when it doesn't listen."""
        self.guest.type("node1", "touch /tmp/deaf")
        return self.goes_down("--timeout=5")

    def goes_down(self, options: str) -> Seen:
        """Shuts it down with these options, and starts it again."""
        self.run(f"gnt-instance shutdown {options} {self.name}")
        down = self.seen()
        self.run(f"gnt-instance start {self.name}")
        self.guest.comes_up()
        return self.seen(down=down)

    def crash(self) -> Seen:
        """The watcher starts it again after its qemu has died."""
        self.guest.crash("node1")
        dead = self.seen()
        self.watch()
        self.guest.comes_up()
        return self.seen(dead=dead)

    def powers_off(self) -> Seen:
        """It ends itself; the watcher starts what should run.

        That a user did it is not known here: ganeti-kvmd looks outside of the virtual root.
        """
        pid = self.guest.pid("node1")
        assert pid is not None
        with pytest.raises((AssertionError, OSError)):
            self.guest.type("node1", "poweroff -f")
        process_ends(pid)
        down = self.seen()
        self.watch()
        self.guest.comes_up()
        return self.seen(down=down)

    def watch(self) -> None:
        """Runs the watcher once."""
        self.run("ganeti-watcher --no-wait-children")

    def interrupted_migration(self) -> Seen:
        """The master daemon is killed while memory is transferred; --cleanup puts it right."""
        self.run("gnt-cluster modify -H kvm:migration_bandwidth=1")
        self.guest.type("node1", "touch /tmp/busy")
        before = self.guest.comes_up()
        said = self.run(f"gnt-instance migrate -f -n node2 --submit {self.name}")
        self.guest.transfers("node1")
        self.kill_master(int(re.findall(r"JobID: (\d+)", said.out + said.err)[0]))
        self.run(f"gnt-instance migrate -f --cleanup -n node2 {self.name}")
        self.guest.goes_on(before)
        self.guest.type("node1", "rm /tmp/busy")
        self.run("gnt-cluster modify -H kvm:migration_bandwidth=32")
        return self.seen()

    def kill_master(self, job: int) -> None:
        """Kills what runs the job: the job's process, or gnt-masterd, which is started again."""
        if not self.luxid:
            pid = self.cluster.pid()
            os.kill(pid, signal.SIGKILL)
            process_ends(pid)
            self.cluster.daemon_util("start ganeti-luxid").checked()
            self.cluster.answers("gnt-cluster queue info")
            return
        for pid in self.cluster.processes():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
            if words[-1] == str(job) and any("exec.py" in word for word in words):
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError(f"Job {job} has no process")

    def dead_node(self) -> Seen:
        """Its node dies while it runs; it comes up anew on another one, and the node returns."""
        self.run(f"gnt-instance migrate -f -n node3 {self.name}")
        self.guest.goes_on(self.guest.comes_up())
        for pid in self.cluster.processes("node3"):
            os.kill(pid, signal.SIGKILL)
            process_ends(pid)
        refused = self.cluster.run(f"gnt-instance failover -f -n node1 {self.name}", limit=SLOW)
        self.run("gnt-node modify --offline=yes node3")
        told = self.told(f"gnt-instance failover -f -n node1 {self.name}")
        self.guest.comes_up()
        found = self.seen(refused=refused.code, told=told)
        self.cluster.daemon_util("start ganeti-noded", "node3").checked()
        self.run("gnt-node add --readd --no-ssh-key-check node3")
        return {**found, "after": self.seen()}

    def backup(self) -> Seen:
        """It is exported, and comes up as another one that has its disk as it was."""
        other = Guest(self.cluster, self.guest.number + 1)
        self.guest.type("node1", "echo KEPT-$((6*7)) > /dev/vda; sync")
        # Files have no snapshots: it stays down while its disk is copied. And the path of an export
        # is not translated between virtual nodes, so that only the master node can keep one.
        export = "gnt-backup export --long-sleep --shutdown-timeout=20 -n node1"
        told = self.told(f"{export} {self.name}")
        self.guest.comes_up()
        exports = self.run("gnt-backup list --no-headers --separator=/").out
        self.guest.type("node1", "echo LOST-$((6*7)) > /dev/vda; sync")
        told += self.told(
            "gnt-backup import --no-name-check --no-ip-check -t sharedfile -n node2 "
            f"--src-node=node1 --src-dir={self.name} --net 0:mac={other.mac()} {other.name}"
        )
        self.run(f"gnt-instance start {other.name}")
        other.comes_up()
        kept = other.type("node2", "head -c 7 /dev/vda")
        assert "KEPT-42" in kept, kept
        found = self.seen(exports=exports, told=told, places=other.nodes())
        self.run(f"gnt-instance remove -f --shutdown-timeout=20 {other.name}")
        self.run(f"gnt-backup remove {self.name}")
        return found

    def verify(self) -> Seen:
        """Nothing is wrong in the end, except what no virtual node has."""
        said = self.cluster.run("gnt-cluster verify", limit=SLOW)
        lines = re.findall(r".*(?:ERROR|WARNING).*", said.out + said.err)
        return {"lines": sorted(line for line in lines if "/proc/sysrq-trigger" not in line)}

    def remove(self) -> Seen:
        """Nothing is left of it."""
        self.run(f"gnt-instance remove -f --shutdown-timeout=20 {self.name}")
        folder = self.cluster.folder / "shared" / self.name
        left = list(folder.iterdir()) if folder.exists() else []
        return {"nodes": self.guest.nodes(), "left": left}


Step = Callable[[Walk], Seen]

SHORT: list[Step] = [
    Walk.add,
    Walk.console,
    Walk.migrate,
    Walk.shutdown,
    Walk.crash,
    Walk.verify,
    Walk.remove,
]

WHOLE: list[Step] = [
    Walk.add,
    Walk.console,
    Walk.hotplug,
    Walk.memory,
    Walk.processors,
    Walk.migrate,
    Walk.failover,
    Walk.reboot,
    Walk.shutdown,
    Walk.deaf,
    Walk.crash,
    Walk.powers_off,
    Walk.interrupted_migration,
    Walk.backup,
    Walk.dead_node,
    Walk.verify,
    Walk.remove,
]


def walked(walk: Walk, steps: list[Step]) -> dict[str, Seen]:
    """Goes through the steps, and says how long each took; returns what each saw."""
    found: dict[str, Seen] = {}
    for step in steps:
        begun = time.monotonic()
        found[step.__name__] = step(walk)
        took = time.monotonic() - begun
        seen = json.dumps(found[step.__name__], default=str)
        print(f"{'luxid' if walk.luxid else 'gnt-masterd'} {step.__name__} {took:.1f} s: {seen}")
    return found


def expected(seen: object) -> object:
    """Returns what gnt-masterd is to see where luxid saw this: the same, except DIFFERENT."""
    if isinstance(seen, dict):
        return {key: expected(value) for key, value in seen.items()}
    if isinstance(seen, list):
        return [expected(value) for value in seen]
    if isinstance(seen, str):
        for pattern, ours in DIFFERENT:
            seen = re.sub(pattern, ours, seen)
    return seen


def test_short() -> None:
    """A guest lives under gnt-masterd: it runs, moves without a break, stops, and is restarted."""
    with kvm_cluster(NODES[:2]) as cluster:
        cluster.take_over()
        found = walked(Walk(cluster, 1, luxid=False), SHORT)
    assert found["verify"]["lines"] == []
    assert found["remove"] == {"nodes": [], "left": []}


def test_whole() -> None:
    """A guest lives under gnt-masterd as it does under luxid."""
    with kvm_cluster() as cluster:
        luxids = walked(Walk(cluster, 1, luxid=True), WHOLE)
        cluster.take_over()
        ours = walked(Walk(cluster, 1, luxid=False), WHOLE)
    assert ours == expected(luxids)
    assert ours["verify"]["lines"] == []
    assert ours["remove"] == {"nodes": [], "left": []}
