"""A machine of its own on this one: its root is an overlay, its process 1 is systemd.

What is installed, changed or run on it is gone when it ends, and this machine sees nothing of it.
It has Debian's Ganeti where this one has it, with the system's own paths, and a network of its own
without a way out. Its only units are those that packages install while it runs. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.functional.realcluster import PATIENCE, Ran
from tests.functional.systemd import make_groups, mounted_groups, removed_group
from tests.functional.waiting import until

#: Addresses of the machine, and of the cluster that may be made on it.
NET = "192.0.2"
NAME = "node1"
HOSTS = ("127.0.0.1 localhost", f"{NET}.10 {NAME}", f"{NET}.1 cluster")

_TARGETS = ("sysinit", "basic", "shutdown", "network-online", "idle", "multi-user")


class OverlayMachine:
    """Runs from :meth:`start` to :meth:`end`; ``folder`` is an empty folder for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    def start(self) -> None:
        """Starts it; returns when systemd takes commands."""
        self._groups = list(make_groups(f"{self.folder.name}-{os.getpid()}"))
        joined = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in self._groups)
        spaces = (
            "--mount --propagation private --pid --fork --kill-child --uts --ipc --cgroup --net"
        )
        boot = self.folder / "boot"
        boot.write_text(self._boot(), encoding="utf-8")
        with open(self.folder / "output", "wb") as output:
            self._process = subprocess.Popen(
                ["sh", "-e", "-c", f"{joined}exec unshare {spaces} sh -e {boot}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until("systemd takes commands", self._takes_commands, limit=60)

    def end(self) -> None:
        """Kills it and all that it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for group in self._groups:
            until(f"{group} is removed", partial(removed_group, group), limit=30)

    def run(self, command: str, limit: float = PATIENCE) -> Ran:
        """Runs a command of the shell as root on the machine."""
        # Daemons that it starts keep its output open: a file, not a pipe.
        output = self.folder / "printed"
        enter = ["nsenter", f"--target={self._inner()}", "--all"]
        with open(output, "wb") as file:
            done = subprocess.run(
                [*enter, "env", "-i", *_ENVIRONMENT, "bash", "-c", command],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=limit,
                check=False,
            )
        return Ran(command, done.returncode, output.read_text("utf-8", "replace"), "")

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

    def _boot(self) -> str:
        """Returns the script that makes the machine and becomes its systemd."""
        disk, root = self.folder / "disk", self.folder / "root"
        lines = [
            f"mkdir {disk} {root}",
            f"mount -t tmpfs -o mode=755 tmpfs {disk}",
            f"mkdir {disk}/upper {disk}/work",
            "mount -t overlay -o "
            f"lowerdir=/,upperdir={disk}/upper,workdir={disk}/work overlay {root}",
            f"mount --rbind /dev {root}/dev",
            f"mount -t proc proc {root}/proc",
            f"mount --bind /sys {root}/sys",
            # Only what is installed on it while it runs.
            *(
                f"mount -t tmpfs -o mode=755 tmpfs {root}{each}"
                for each in ("/run", "/lib/systemd/system", "/etc/systemd/system", "/home", "/root")
            ),
            f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
            f"mkdir {root}/run/old",
            *(line.replace(" /sys/", f" {root}/sys/") for line in mounted_groups(self._groups)),
            f"cd {root}/etc/systemd/system",
            *(f"printf '[Unit]\\nDefaultDependencies=no\\n' >{each}.target" for each in _TARGETS),
            f"printf '%s\\n' {' '.join(map(repr, HOSTS))} >{root}/etc/hosts",
            f"echo {NAME} >{root}/etc/hostname",
            f"hostname {NAME}",
            "ip link set lo up",
            f"ip addr add {NET}.10/32 dev lo",
            f"cp {self.folder}/*.deb {root}/tmp",
            f"cd {root}",
            "pivot_root . run/old",
            "umount -l /run/old",
            "exec env -i " + " ".join(_ENVIRONMENT) + " container=lxc"
            " SYSTEMD_UNIT_PATH=/etc/systemd/system:/lib/systemd/system"
            " /lib/systemd/systemd --unit=idle.target",
        ]
        return "\n".join([*lines, ""])


_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root")


@contextlib.contextmanager
def overlay_machine(folder: Path) -> Iterator[OverlayMachine]:
    """A machine that runs, with the folder's packages in its /tmp; it is gone afterwards."""
    machine = OverlayMachine(folder)
    try:
        machine.start()
        yield machine
    finally:
        machine.end()
