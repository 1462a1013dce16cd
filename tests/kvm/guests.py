"""Tiny guests for qemu: what they are made of, and how a test talks to one.

A guest is Debian's kernel for clouds with a busybox. It counts seconds since it came up and
serves the number at ``http://ADDRESS/n``; a guest that goes on counting was not started anew.
It runs what is typed on its serial console, and goes down when the power button is pressed,
unless there is a file ``/tmp/deaf``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.functional.waiting import PATIENCE, containing, process_ends, until
from tests.kvm.cluster import NODES, KvmCluster

#: The kernel that Debian makes for clouds is small, and needs few modules.
KERNEL = "linux-image-cloud-amd64"

#: The modules that make qemu's devices work, in the order in which they are loaded.
MODULES = (
    *("failover", "net_failover", "virtio_ring", "virtio", "virtio_pci_modern_dev"),
    *("virtio_pci_legacy_dev", "virtio_pci", "virtio_blk", "virtio_net", "virtio_balloon"),
    *("button", "evdev"),
)

_FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode())"

_INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /www /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
for name in $(cat /modules/order); do insmod /modules/$name.ko; done
console=/dev/ttyS0
stty -F $console -echo
ip link set lo up
echo 0 > /www/n
httpd -p 80 -h /www

# Each interface gets 10.9 and the last two bytes of its MAC address.
interfaces() {
    for path in /sys/class/net/eth*; do
        [ -e $path/address ] || continue
        name=${path##*/}
        ip addr show dev $name | grep -q 10.9. && continue
        set -- $(tr : ' ' < $path/address)
        ip addr add 10.9.$((0x$5)).$((0x$6))/16 dev $name
        ip link set $name up
    done
}

for path in /sys/class/input/event*; do
    [ "$(cat $path/device/name)" = "Power Button" ] || continue
    # A press is two events of 24 bytes, a release two more.
    (while dd if=/dev/input/${path##*/} bs=24 count=4 of=/dev/null 2>/dev/null; do
        [ -e /tmp/deaf ] || { sync; poweroff -f; }
    done) &
done
(while read -r line; do
    eval "$line" > $console 2>&1
    echo "ended with $?" > $console
done < $console) &
# As long as there is a file /tmp/busy, memory is written faster than a slow link can carry it.
(while :; do
    if [ -e /tmp/busy ]; then dd if=/dev/urandom of=/tmp/noise bs=64k count=100 2>/dev/null
    else sleep 1; fi
done) &
number=0
while :; do
    number=$((number + 1))
    echo $number > /www/new && mv /www/new /www/n
    interfaces
    sleep 1
done
"""


def _kernel_package() -> str:
    """Returns the name of the package with the kernel itself, which has its version in it."""
    command = ["apt-cache", "depends", KERNEL]
    for _ in range(2):
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        found = re.findall(r"Depends: (\S+)", ran.stdout)
        if found:
            return str(found[0])
        subprocess.run(["apt-get", "update", "--quiet", "--quiet"], check=True)
    raise AssertionError(f"Debian's package {KERNEL} is not to be had")


def build(folder: Path) -> None:
    """Makes ``folder``, with ``vmlinuz`` and ``initrd``; the kernel comes as a Debian package."""
    folder.mkdir()
    package = _kernel_package()
    fetched = folder / "fetched"
    fetched.mkdir(mode=0o755)
    subprocess.run(
        ["apt-get", "download", "--quiet", "--quiet", "-o", "APT::Sandbox::User=root", package],
        check=True,
        cwd=fetched,
    )
    (archive,) = fetched.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(archive), "tree"], check=True, cwd=fetched)
    (kernel,) = fetched.glob("tree/boot/vmlinuz-*")
    kernel.rename(folder / "vmlinuz")
    files = folder / "files"
    for name in ("bin", "dev", "modules"):
        (files / name).mkdir(parents=True)
    for name in MODULES:
        (module,) = fetched.glob(f"tree/lib/modules/**/{name}.ko")
        module.rename(files / "modules" / module.name)
    (files / "modules/order").write_text("\n".join(MODULES), encoding="ascii")
    shutil.copy("/bin/busybox", files / "bin/busybox")
    (files / "bin/sh").symlink_to("busybox")
    (files / "init").write_text(_INIT, encoding="ascii")
    (files / "init").chmod(0o755)
    os.mknod(files / "dev/console", 0o600 | 0o020000, os.makedev(5, 1))
    names = subprocess.run(["find", "."], check=True, capture_output=True, cwd=files).stdout
    with open(folder / "initrd", "wb") as out:
        command = ["/bin/busybox", "cpio", "-o", "-H", "newc"]
        subprocess.run(
            command, check=True, input=names, stdout=out, stderr=subprocess.DEVNULL, cwd=files
        )
    shutil.rmtree(fetched)
    shutil.rmtree(files)


class Guest:
    """One instance of the cluster, seen from below: its qemu, its console, its counter.

    ``number`` gives its name (instance1 for 1) and the addresses of its interfaces.
    """

    def __init__(self, cluster: KvmCluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"instance{number}"

    def mac(self, nic: int = 0) -> str:
        """Returns the MAC address for a NIC, from which the guest takes its address."""
        return f"aa:00:00:01:{self.number:02x}:{nic + 1:02x}"

    def count(self, nic: int = 0) -> int | None:
        """Returns what the guest's counter says on that NIC now, None if nothing answers."""
        url = f"http://10.9.{self.number}.{nic + 1}/n"
        ran = self.cluster.run(f"{sys.executable} -c '{_FETCH}' {url}")
        return int(ran.out) if ran.code == 0 and ran.out.strip() else None

    def comes_up(self, nic: int = 0) -> int:
        """Waits until the guest's counter answers; returns the number."""
        found = self._answers(nic, lambda seen: seen is not None)
        assert found is not None
        return found

    def goes_on(self, before: int) -> None:
        """Waits until the counter is past a number; a guest that began anew fails."""
        seen = self._answers(0, lambda seen: seen not in (None, before))
        assert seen is not None
        assert seen > before, f"{self.name} counts {seen} after {before}: it began anew"

    def _answers(self, nic: int, holds: Callable[[int | None], bool]) -> int | None:
        try:
            return until(f"{self.name} answers", lambda: self.count(nic), holds, 180)
        except AssertionError as error:
            asked = ("info status", "info network", "info cpus")
            known = [
                f"{node}: {self.monitor(node, question)}"
                for node in self.nodes()
                for question in asked
            ]
            raise AssertionError("\n".join([str(error), *known])) from None

    def pid(self, node: str) -> int | None:
        """Returns the process id of its qemu on a node, None if there is none."""
        path = self.cluster.folder / node / "var/run/ganeti/kvm-hypervisor/pid" / self.name
        try:
            found = int(path.read_text(encoding="ascii"))
            # One that has ended, and that nobody has asked for yet, has no command line.
            running = Path(f"/proc/{found}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return found if running else None

    def nodes(self) -> list[str]:
        """Returns the nodes that have a qemu of it."""
        return [node for node in NODES if self.pid(node) is not None]

    def crash(self, node: str) -> None:
        """Kills its qemu on a node."""
        pid = self.pid(node)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        process_ends(pid)

    def type(self, node: str, command: str) -> str:
        """Has the guest run a command; returns what it printed."""
        with self._connected(node, "serial") as console:
            console.sendall(f"{command}\n".encode("ascii"))
            text = _read(console, "ended with ")
        return text.partition("ended with ")[0]

    def monitor(self, node: str, command: str) -> str:
        """Returns what qemu's monitor says to a command."""
        with self._connected(node, "monitor") as monitor:
            _read(monitor, "(qemu) ")
            monitor.sendall(f"{command}\n".encode("ascii"))
            return _read(monitor, "\n(qemu) ")

    @contextmanager
    def _connected(self, node: str, kind: str) -> Iterator[socket.socket]:
        path = self.cluster.folder / node / "var/run/ganeti/kvm-hypervisor/ctrl"
        with socket.socket(socket.AF_UNIX) as opened:
            opened.connect(str(path / f"{self.name}.{kind}"))
            yield opened

    def transfers(self, source: str) -> None:
        """Waits until the guest's memory is on its way to another node."""
        until(
            f"{self.name} is on its way",
            lambda: self.monitor(source, "info migrate"),
            containing("status: active"),
        )


def _read(opened: socket.socket, wanted: str) -> str:
    """Reads until there is ``wanted``; returns all that came, without carriage returns."""
    end, data = time.monotonic() + PATIENCE, b""
    while wanted not in (text := data.decode("utf-8", "replace").replace("\r", "")):
        opened.settimeout(max(0.01, end - time.monotonic()))
        try:
            found = opened.recv(4096)
        except TimeoutError:
            found = b""
        assert found, f"Waited in vain for {wanted!r}; what came: {text!r}"
        data += found
    return text
