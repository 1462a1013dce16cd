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
from pathlib import Path

from tests.functional.realcluster import PATIENCE, Ran
from tests.functional.systemd import InnerSystemd, mounted_groups

#: Addresses of the machine, and of the cluster that may be made on it.
NET = "192.0.2"
NAME = "node1"
HOSTS = ("127.0.0.1 localhost", f"{NET}.10 {NAME}", f"{NET}.1 cluster")

_TARGETS = ("sysinit", "basic", "shutdown", "network-online", "idle", "multi-user")


class OverlayMachine(InnerSystemd):
    """Runs from :meth:`start` to :meth:`end`; ``folder`` is an empty folder for it."""

    def start(self) -> None:
        """Starts it; returns when systemd takes commands."""
        self._launch(f"{self.folder.name}-{os.getpid()}", spaces="--net", limit=60)

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
