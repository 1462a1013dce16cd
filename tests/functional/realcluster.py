"""A whole real cluster on this machine: Debian's Ganeti 3.0 on virtual nodes.

Three nodes below one folder, with addresses of a network namespace of their
own, real node daemons with TLS, and the fake hypervisor. luxid and wconfd run
on it until gnt-masterd takes their place, and again when it has handed back. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from ganeti_masterd.startup.paths import Paths
from tests.functional.readable import wrapper
from tests.functional.waiting import until

PROJECT = Path(__file__).resolve().parents[2]

DAEMON_UTIL = "/usr/lib/ganeti/daemon-util"
ENSURE_DIRS = "/usr/lib/ganeti/ensure-dirs"
VCLUSTER_SETUP = "/usr/lib/ganeti/tools/vcluster-setup"

#: What a real cluster needs on this machine, and the Debian packages that have it.
PROGRAMS = {
    "ganeti-noded": "ganeti",
    "ganeti-luxid": "ganeti-haskell-3.0",
    "ip": "iproute2",
    "sshd": "openssh-server",
    "start-stop-daemon": "dpkg",
    "unshare": "util-linux",
}

#: The first three parts of all addresses; a namespace has no other network unless joined.
NET = "192.0.2"
NODES = ("node1", "node2", "node3")

#: The addresses of the link that joins two namespaces.
JOIN = ("169.254.0.1", "169.254.0.2")

#: Seconds in which a command ends, also on a machine that is busy.
PATIENCE = 90.0

#: Instances so small and so large as a test likes.
BOUNDS = (
    "min:disk-size=0,cpu-count=1,disk-count=0,memory-size=1,nic-count=0,spindle-use=0/"
    "max:disk-size=1048576,cpu-count=8,disk-count=16,memory-size=32768,nic-count=8,spindle-use=12"
)


class Ran(Struct, frozen=True):
    """What a command did: its exit code and what it printed."""

    command: str
    code: int
    out: str
    err: str

    def checked(self) -> Ran:
        """Returns itself; raises ``AssertionError`` if the command failed."""
        assert self.code == 0, f"{self.command}: {self.code}\n{self.out}{self.err}"
        return self


class RealCluster:
    """One cluster below ``folder``, whose path must be short, from :meth:`up` to :meth:`close`.

    Several may live at once, as each has a namespace named after its folder. ``net`` is the
    first three parts of its addresses, ``nodes`` are the names of its three nodes.
    """

    def __init__(self, folder: Path, net: str = NET, nodes: Sequence[str] = NODES) -> None:
        self.folder = folder
        self.net = net
        self.nodes = tuple(nodes)
        self.namespace = f"masterd-{folder.name}"
        self.deployed = False
        self.paths = Paths(str(folder / "node1"))
        self._storage = folder / "file-storage"
        self._etc = Path("/etc/netns") / self.namespace

    def up(self, nodes: Sequence[str] = NODES) -> None:
        """Brings the cluster up, with luxid and wconfd as its master daemons.

        ``nodes``, the master first, are its members; the others can be added later.
        """
        self.folder.chmod(0o755)
        self.make_namespace()
        setup = [VCLUSTER_SETUP, "-E", "-N", "-c", str(len(NODES)), "-i", "10", "-p", self.net]
        self._inside([*setup, "-I", "/bin/true", str(self.folder)], {}).checked()
        self._storage.mkdir()
        for made, node in zip(NODES, self.nodes, strict=True):
            self._rename_root(made, node)
        for node in self.nodes:
            allowed = self.folder / node / "etc/ganeti/file-storage-paths"
            allowed.write_text(f"{self._storage}\n", encoding="utf-8")
        self.init()
        for node in nodes[1:]:
            self.run(f"gnt-node add --no-ssh-key-check {node}").checked()

    def _rename_root(self, made: str, node: str) -> None:
        """Gives the root of a node another name, which is that of the node."""
        if made == node:
            return
        (self.folder / made).rename(self.folder / node)
        text = self._defaults(node).read_text(encoding="utf-8")
        self._defaults(node).write_text(text.replace(made, node), encoding="utf-8")

    def init(self) -> None:
        """Makes a cluster of node1, whose roots are there."""
        options = f"--file-storage-dir={self._storage} --ipolicy-bounds-specs={BOUNDS}"
        self.run(
            "gnt-cluster init --no-etc-hosts --no-ssh-init --master-netdev=lo "
            "--enabled-disk-templates=diskless,file --enabled-hypervisors=fake "
            f"--nic-parameters mode=routed,link=100 {options} cluster"
        ).checked()

    def close(self) -> None:
        """Ends every process in the namespace, and takes it away."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                until("no process is left", self.processes, lambda left: not left, 3)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)
        shutil.rmtree(self._etc, ignore_errors=True)

    # Commands

    def run(self, command: str, node: str = "node1", limit: float = PATIENCE) -> Ran:
        """Runs a command of the shell as on that node."""
        variables = {"GANETI_ROOTDIR": str(self.folder / node), "GANETI_HOSTNAME": node}
        done = self._inside(["bash", "-c", command], variables, limit)
        return Ran(command, done.code, done.out, done.err)

    def daemon_util(self, arguments: str, node: str = "node1") -> Ran:
        """Runs daemon-util, whose daemons keep what it prints to: a file, not a pipe."""
        log = self.folder / "daemon-util.log"
        log.touch()
        begin = log.stat().st_size
        done = self.run(f"{DAEMON_UTIL} {arguments} >>{log} 2>&1 </dev/null", node)
        text = log.read_bytes()[begin:].decode("utf-8", "replace")
        return Ran(f"daemon-util {arguments}", done.code, text, "")

    def _inside(
        self, command: list[str], variables: dict[str, str], limit: float = PATIENCE
    ) -> Ran:
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            env={**_own_environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            cwd="/",
        )
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise AssertionError(f"{command} has not ended within {limit:g} s") from None
        return Ran(" ".join(command), process.returncode, out, err)

    # Who is master

    def start_luxid(self) -> None:
        """Starts wconfd and luxid, and returns when luxid answers."""
        self.daemon_util("start ganeti-wconfd").checked()
        self.daemon_util("start ganeti-luxid").checked()
        self.answers("gnt-cluster queue info")

    def answers(self, command: str) -> None:
        """Waits until a command succeeds, as the master daemon answers."""
        until(f"{command} succeeds", lambda: self.run(command), lambda ran: ran.code == 0, PATIENCE)

    def stop_luxid(self) -> None:
        """Stops luxid and wconfd; jobs that run go on."""
        self.daemon_util("stop ganeti-luxid").checked()
        self.daemon_util("stop ganeti-wconfd").checked()

    def make_programs(self) -> Path:
        """Makes programs of gnt-masterd that every user can run; returns their folder."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        for name in ("twistd", "gnt-luxi"):
            script = programs / name
            script.write_text(wrapper(Path(sys.executable).with_name(name)), encoding="utf-8")
            script.chmod(0o755)
        return programs

    def deploy(self) -> None:
        """Has daemon-util of all nodes know gnt-masterd, as the documentation says."""
        programs = self.make_programs()
        for node in self.nodes:
            with open(self._defaults(node), "a", encoding="utf-8") as file:
                file.write(f"GNT_MASTERD_BIN={programs}\n. {PROJECT}/deploy/daemon-util.sh\n")
        self.deployed = True

    def take_over(self) -> None:
        """Lets gnt-masterd take luxid's place, and returns when it runs."""
        self.stop_luxid()
        self.deploy()
        self.daemon_util("start ganeti-luxid").checked()

    def undeploy(self) -> None:
        """Takes back what :meth:`deploy` did."""
        for node in self.nodes:
            lines = self._defaults(node).read_text(encoding="utf-8").splitlines(keepends=True)
            self._defaults(node).write_text("".join(lines[:-2]), encoding="utf-8")
        self.deployed = False

    def _defaults(self, node: str) -> Path:
        return self.folder / node / "etc/default/ganeti"

    def pid(self) -> int:
        """Returns the process id of gnt-masterd."""
        return int(Path(self.paths.pid).read_text(encoding="ascii"))

    def log(self) -> str:
        """Returns what gnt-masterd has logged."""
        return Path(self.paths.log).read_text(encoding="utf-8")

    def names(self) -> list[str]:
        """Returns the names of all processes of the cluster."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip())
        return found

    # The namespace

    def make_namespace(self) -> None:
        ip = ["ip", "-n", self.namespace]
        commands = [["ip", "netns", "add", self.namespace], [*ip, "link", "set", "lo", "up"]]
        for number, _ in enumerate(self.nodes, 10):
            commands.append([*ip, "addr", "add", f"{self.net}.{number}/32", "dev", "lo"])
        for command in commands:
            subprocess.run(command, check=True)
        ssh = self._etc / "ssh"  # `ip netns exec` shows it as /etc/ssh
        ssh.mkdir(parents=True)
        hosts = ["127.0.0.1 localhost", f"{self.net}.1 cluster"]
        hosts += [f"{self.net}.{number} {node}" for number, node in enumerate(self.nodes, 10)]
        hosts += [f"{self.net}.{number} instance{number - 99}" for number in range(100, 110)]
        _write(self._etc / "hosts", hosts)
        for name in ("ssh_host_rsa_key", "own_key"):
            generate = ["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(ssh / name)]
            subprocess.run(generate, check=True)
        shutil.copy(ssh / "own_key.pub", ssh / "own_authorized")
        _write(ssh / "ssh_config", ["IdentityFile /etc/ssh/own_key", "StrictHostKeyChecking no"])
        _write(
            ssh / "sshd_config",
            [
                "HostKey /etc/ssh/ssh_host_rsa_key",
                "AuthorizedKeysFile /etc/ssh/own_authorized",
                "PasswordAuthentication no",
                "UsePAM no",
                "StrictModes no",
                "Subsystem sftp internal-sftp",  # scp needs it
                f"PidFile {self.folder}/sshd.pid",
            ],
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._inside(["/usr/sbin/sshd"], {}).checked()

    def join(self, other: RealCluster) -> None:
        """Lets the nodes of two clusters reach one another; it ends with their namespaces."""
        ends = (self.namespace, "there", JOIN[0]), (other.namespace, "here", JOIN[1])
        (own, link, address), (its, its_link, its_address) = ends
        pair = ["link", "add", link, "type", "veth", "peer", "name", its_link, "netns", its]
        commands = [["ip", "-n", own, *pair]]
        for namespace, name, end in ends:
            commands.append(["ip", "-n", namespace, "addr", "add", f"{end}/30", "dev", name])
            commands.append(["ip", "-n", namespace, "link", "set", name, "up"])
        commands.append(["ip", "-n", own, "route", "add", f"{other.net}.0/24", "via", its_address])
        commands.append(["ip", "-n", its, "route", "add", f"{self.net}.0/24", "via", address])
        for command in commands:
            subprocess.run(command, check=True)

    def processes(self, node: str | None = None) -> list[int]:
        """Returns the ids of all processes of the cluster, or of those that run as on a node."""
        command = ["ip", "netns", "pids", self.namespace]
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        pids = [int(line) for line in found.stdout.split()]
        if node is None:
            return pids
        return [pid for pid in pids if _environment(pid).get("GANETI_HOSTNAME") == node]


ClusterT = TypeVar("ClusterT", bound=RealCluster)


@contextlib.contextmanager
def real_cluster(
    nodes: Sequence[str] = NODES,
    parent: Path | None = None,
    kind: Callable[[Path], ClusterT] = RealCluster,  # type: ignore[assignment]
) -> Iterator[ClusterT]:
    """A cluster that is up, in a folder of its own below ``parent``; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gnt-", dir=parent))
    cluster = kind(folder)
    try:
        cluster.up(nodes)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder)


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _environment(pid: int) -> dict[str, str]:
    """Returns the environment that a process was started with, none if it has ended."""
    try:
        found = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in found.split("\0") if "=" in line)


def _own_environment() -> dict[str, str]:
    # With those of a virtual cluster around, its set-up would refuse to work.
    return {name: value for name, value in os.environ.items() if not name.startswith("GANETI_")}
