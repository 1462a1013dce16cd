"""A real cluster whose instances are real virtual machines, emulated by Debian's qemu."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.functional.realcluster import BOUNDS, NODES, PROGRAMS, RealCluster

__all__ = ["MEMORY", "NODES", "PROGRAMS_AND_PACKAGES", "KvmCluster"]

#: What must be there, and the Debian packages that have it.
PROGRAMS_AND_PACKAGES = {
    **PROGRAMS,
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "busybox": "busybox-static",
}

# An instance keeps the paths of the node that started it (PID file, sockets, log) in its runtime
# file, and is started from that file where it is moved to. Nodes that share a machine have these
# files below roots of their own, so this puts the root of the node that runs it into the paths.
_WRAPPER = """#!/bin/bash
base={base}
[ $# -gt 2 ] || exec qemu-system-x86_64 "$@"
given=()
for each in "$@"; do
    for node in {nodes}; do each=${{each//"$base/$node/"/"$GANETI_ROOTDIR/"}}; done
    given+=("$each")
done
exec nice -n 10 qemu-system-x86_64 -accel tcg,tb-size=32 "${{given[@]}}"
"""

#: Bytes of memory that a guest has: 96 MiB and 16 pages. Before its version 9.0, an emulating qemu
#: loses what a guest writes while it migrates: where the memory is a multiple of 64 pages, it marks
#: so many as clean at once and does not tell the emulated processor, which then writes to them
#: unnoticed. The target gets old pages, and the guest's kernel panics. Page by page qemu does tell.
MEMORY = 98368 << 10

# Ganeti's own parameter is in MiB. qemu takes the option that comes last, with two dashes as with
# one; the node daemon, which reads qemu's arguments, knows it with one dash, and wants MiB there.
_MEMORY_OPTION = f"--m {MEMORY >> 10}k"


class KvmCluster(RealCluster):
    """Three nodes with the hypervisor kvm, files as disks, and one bridge for the guests.

    The kernel and the initial RAM disk of the guests are in ``guest`` below ``folder``.
    """

    def init(self) -> None:
        """Makes a cluster of node1."""
        program = self.folder / "kvm"
        text = _WRAPPER.format(base=self.folder, nodes=" ".join(NODES))
        program.write_text(text, encoding="ascii")
        program.chmod(0o755)
        shared, guest = self.folder / "shared", self.folder / "guest"
        shared.mkdir()
        for node in NODES:
            allowed = self.folder / node / "etc/ganeti/file-storage-paths"
            with open(allowed, "a", encoding="utf-8") as file:
                file.write(f"{shared}\n")
        hypervisor = (
            f"kvm_path={program},kernel_path={guest}/vmlinuz,initrd_path={guest}/initrd,"
            f"kernel_args=quiet,root_path=/dev/ram0,serial_speed=115200,kvm_extra={_MEMORY_OPTION}"
        )
        self.run(
            "gnt-cluster init --no-etc-hosts --no-ssh-init --master-netdev=lo "
            "--enabled-disk-templates=sharedfile,file,diskless --enabled-hypervisors=kvm "
            f"--file-storage-dir={self.folder}/file-storage --shared-file-storage-dir={shared} "
            f"-H 'kvm:{hypervisor}' -B minmem=96,maxmem=96,vcpus=1 "
            f"--ipolicy-bounds-specs={BOUNDS} "
            "--ipolicy-disk-templates=sharedfile,file,diskless "
            "--nic-parameters mode=bridged,link=br0 cluster"
        ).checked()

    def make_namespace(self) -> None:
        """Makes the network namespace, with the bridge."""
        super().make_namespace()
        ip = ["ip", "-n", self.namespace]
        for command in (
            [*ip, "link", "add", "br0", "type", "bridge"],
            [*ip, "addr", "add", "10.9.255.254/16", "dev", "br0"],
            [*ip, "link", "set", "br0", "up"],
        ):
            subprocess.run(command, check=True)

    def image(self, name: str) -> Path:
        """Returns where an instance's only disk is."""
        (found,) = (self.folder / "shared" / name).iterdir()
        return found
