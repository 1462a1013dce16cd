"""systemd 252 or later with deploy/gnt-masterd.service, beside a real cluster on virtual nodes.

systemd is process 1 of namespaces of its own, which end with it: the machine's
own systemd, if it has any, sees nothing of it. It shares the network of the
cluster. Its only units are the one of ``deploy/`` as it is, what a test adds to
that, and empty targets. The folders that the unit names are those of node1's
root, and Python and this project are below /opt there. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.functional.realcluster import DAEMON_UTIL, PROJECT, Ran, RealCluster
from tests.functional.waiting import until

UNIT = "gnt-masterd.service"

_DEPLOYED = PROJECT / "deploy" / UNIT
_TARGETS = ("sysinit", "basic", "shutdown", "network-online", "idle")
_NODE = "node1"


class InnerSystemd:
    """systemd as process 1 of namespaces of its own, which end with it; ``folder`` is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    def end(self) -> None:
        """Kills it and all that it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for group in self._groups:
            until(f"{group} is removed", partial(removed_group, group), limit=30)

    def run(self, command: str, limit: float = 90) -> Ran:
        """Runs a command of the shell among the processes that systemd has."""
        raise NotImplementedError

    def _boot(self) -> str:
        """Returns the script that prepares the namespaces and becomes systemd."""
        raise NotImplementedError

    def _launch(self, name: str, *, before: str = "", spaces: str = "", limit: float) -> None:
        """Starts it; returns when it takes commands.

        ``name`` is that of its control groups. ``before`` is a command that runs the rest, and
        ``spaces`` are further namespaces of its own, as options of unshare.
        """
        boot = self.folder / "boot"
        self._groups = list(make_groups(name))
        boot.write_text(self._boot(), encoding="utf-8")
        joined = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in self._groups)
        spaces = f"--mount --propagation private --pid --fork --uts --ipc --cgroup {spaces}"
        with open(self.folder / "output", "wb") as output:
            self._process = subprocess.Popen(
                [
                    "sh",
                    "-e",
                    "-c",
                    f"{joined}exec {before} unshare --kill-child {spaces} sh -e {boot}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until("systemd takes commands", self._takes_commands, limit=limit)

    def _inner(self) -> int:
        """The process that is systemd."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(children[0])

    def _takes_commands(self) -> bool:
        assert self._process is not None
        output = (self.folder / "output").read_text("utf-8", "replace")
        assert self._process.poll() is None, output
        with contextlib.suppress(IndexError, OSError):
            return self.run("systemctl list-units").code == 0
        return False


class Systemd(InnerSystemd):
    """Runs from :meth:`start` to :meth:`end`. ``settings`` are lines for the unit's [Service]."""

    def __init__(self, cluster: RealCluster, *settings: str) -> None:
        super().__init__(cluster.folder / "systemd")
        self.cluster = cluster
        self._settings = settings

    def start(self) -> None:
        """Starts it; returns when it takes commands."""
        self._write_units()
        network = f"nsenter --net=/run/netns/{self.cluster.namespace}"
        self._launch(f"gnt-{os.getpid()}", before=network, limit=30)

    def run(self, command: str, limit: float = 90) -> Ran:
        """Runs a command of the shell as on node1, among the processes that systemd has."""
        script = (
            f"export GANETI_ROOTDIR={self.cluster.paths.root} GANETI_HOSTNAME={_NODE}; {command}"
        )
        done = subprocess.run(
            ["nsenter", f"--target={self._inner()}", "--all", "bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Ran(command, done.returncode, done.stdout, done.stderr)

    def show(self, *names: str) -> list[str]:
        """Returns properties of the unit, as systemctl shows them."""
        wanted = ",".join(names)
        shown = self.run(f"systemctl show --property={wanted} {UNIT}").checked().out
        found = dict(line.split("=", 1) for line in shown.splitlines())
        return [found[name] for name in names]

    def configure(self, **variables: str) -> None:
        """Writes /etc/default/gnt-masterd, from which the unit takes its environment."""
        lines = {
            "GANETI_ROOTDIR": self.cluster.paths.root,
            "GANETI_HOSTNAME": _NODE,
            **variables,
        }
        text = "".join(f'{name}="{value}"\n' for name, value in lines.items())
        (self.folder / "default/gnt-masterd").write_text(text, encoding="utf-8")

    def daemon_util(self, arguments: str) -> Ran:
        """Runs daemon-util where it finds systemd."""
        return self.run(f"{DAEMON_UTIL} {arguments}")

    def _write_units(self) -> None:
        units = self.folder / "units"
        extra = units / f"{UNIT}.d"
        extra.mkdir(parents=True)
        (self.folder / "default").mkdir()
        self.configure()
        shutil.copy(_DEPLOYED, units)
        (extra / "test.conf").write_text("\n".join(["[Service]", *self._settings, ""]))
        for name in _TARGETS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        python = f"/opt/python/bin/python{sysconfig.get_python_version()}"
        for name in ("twistd", "gnt-luxi"):
            script = self.folder / name
            script.write_text(
                "#!/bin/sh\nexport PYTHONPATH=/opt/project:/opt/packages"
                " LD_LIBRARY_PATH=/opt/python/lib\n"
                f'exec {python} /opt/scripts/{name} "$@"\n',
                encoding="utf-8",
            )
            script.chmod(0o755)

    def _boot(self) -> str:
        """Returns the script that makes the mount namespace and becomes systemd."""
        folder, var = self.folder, Path(self.cluster.paths.root) / "var"
        bound = {
            sys.base_prefix: "/opt/python",
            sysconfig.get_path("purelib"): "/opt/packages",
            str(Path(sys.executable).parent): "/opt/scripts",
            str(PROJECT): "/opt/project",
            f"{var}/lib/ganeti": "/var/lib/ganeti",
            f"{var}/log/ganeti": "/var/log/ganeti",
            f"{folder}/default": "/etc/default",
            f"{folder}/units": "/etc/systemd/system",
            f"/etc/netns/{self.cluster.namespace}/hosts": "/etc/hosts",
        }
        lines = [
            "mount -t proc proc /proc",
            *mounted_groups(self._groups),
            *(f"mount -t tmpfs -o mode=755 tmpfs {each}" for each in ("/run", "/opt")),
            f"mkdir -p /run/ganeti {' '.join(each for each in bound.values() if '/opt' in each)}",
            *(f"mount --bind {shlex.quote(here)} {there}" for here, there in bound.items()),
            "mkdir -p /opt/ganeti-masterd/bin",
            f"cp {folder}/twistd {folder}/gnt-luxi /opt/ganeti-masterd/bin",
            "exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lxc LANG=C.UTF-8"
            " SYSTEMD_UNIT_PATH=/etc/systemd/system /lib/systemd/systemd --unit=idle.target",
        ]
        return "\n".join([*lines, ""])


def can_run() -> str | None:
    """Returns what systemd lacks to run here, None if nothing."""
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed (Debian's package systemd)"
    found = list(_hierarchies())
    if not found:
        return "no hierarchy of control groups is mounted that systemd could use"
    for group, _ in found:
        if not os.access(group, os.W_OK):
            return f"{group} can't be written to"
    return None


def _hierarchies() -> Iterator[tuple[Path, str]]:
    """Yields this process's group in each hierarchy that systemd uses, and how that is mounted."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, kinds, path = line.split(":", 2)
        own[kinds] = path
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2" and "" in own:
            yield Path(point + own[""]), "-t cgroup2 cgroup2"
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            yield Path(point + own["name=systemd"]), "-t cgroup -o none,name=systemd cgroup"


def make_groups(name: str) -> Iterator[Path]:
    """Makes a group below this process's own in each hierarchy that systemd uses."""
    for group, _ in _hierarchies():
        (group / name).mkdir(exist_ok=True)
        yield group / name


def mounted_groups(groups: list[Path]) -> Iterator[str]:
    """Yields the commands that mount the hierarchies where systemd looks for them."""
    how = [kind for _, kind in _hierarchies()]
    if len(groups) == 1:
        yield f"mount {how[0]} /sys/fs/cgroup"
        return
    yield "mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup"
    for kind in how:
        point = "/sys/fs/cgroup/" + ("unified" if "cgroup2" in kind else "systemd")
        yield f"mkdir {point}"
        yield f"mount {kind} {point}"


def removed_group(group: Path) -> bool:
    """Removes a group with all below it; tells whether it is gone."""
    for below, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(below)
    return not group.exists()
