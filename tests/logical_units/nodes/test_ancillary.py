"""Copying the cluster's files to the nodes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

from ganeti_masterd.logical_units.nodes.ancillary import distribute, read_file
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene


class AncillaryTests(NodeScene):
    """:func:`distribute`."""

    def setUp(self) -> None:
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.ctx = SynchronousContext(self.ctx.snapshot(), self.nodes, root=str(self.root))
        self.write("/var/lib/ganeti/hmac.key", "key\n")
        self.write("/etc/ganeti/kvm-vif-bridge", "#!/bin/sh\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def uploads(self) -> list[tuple[str, str]]:
        """Returns node and path of each upload."""
        return [
            (asked.node, asked.arguments[0][0].removeprefix(str(self.root)))
            for asked in self.nodes.asked
            if asked.procedure == "upload_file"
        ]

    def test_for_all(self) -> None:
        """Files for all are copied to every online node except the master; missing ones aren't."""
        self.alter("node4", offline=True)
        distribute(self.ctx)
        key = "/var/lib/ganeti/hmac.key"
        self.assertEqual(sorted(self.uploads()), [("node2", key), ("node3", key)])
        self.assertEqual(self.ctx.lines, [])

    def test_for_hosts(self) -> None:
        """Files of a hypervisor go to nodes that can run instances."""
        self.alter_cluster(enabled_hypervisors=("kvm",))
        self.alter("node3", vm_capable=False)
        distribute(self.ctx)
        script = "/etc/ganeti/kvm-vif-bridge"
        nodes = sorted(node for node, path in self.uploads() if path == script)
        self.assertEqual(nodes, ["node2", "node4"])

    def test_more(self) -> None:
        """A node that comes back gets them although it is still offline."""
        self.alter("node4", offline=True)
        distribute(self.ctx, [self.node("node4")])
        self.assertIn(("node4", "/var/lib/ganeti/hmac.key"), self.uploads())

    def test_file(self) -> None:
        """A file is sent with its path, content, mode, owners and times."""
        path = str(self.root / "var/lib/ganeti/hmac.key")
        os.chmod(path, 0o440)
        os.utime(path, (1000.5, 2000.5))
        found = read_file(path)
        self.assertEqual(found[:2], [path, [0, "key\n"]])
        self.assertEqual(stat.S_IMODE(found[2]), 0o440)
        self.assertTrue(all(isinstance(owner, str) for owner in found[3:5]))
        self.assertEqual(found[5:], [1000.5, 2000.5])

    def test_failures(self) -> None:
        """A node that fails is a warning, and so is a file that can't be read."""
        self.nodes.answers["node3", "upload_file"] = Failed("disk full")
        (self.root / "var/lib/ganeti/rapi.pem").mkdir()
        distribute(self.ctx)
        self.assertEqual(len(self.ctx.lines), 2)
        self.assertIn("rapi.pem can't be read", self.ctx.lines[0])
        self.assertIn("hmac.key to node node3 failed: disk full", self.ctx.lines[1])

    def test_one_node(self) -> None:
        """In a cluster of one node nothing is sent."""
        for name in ("node2", "node3", "node4"):
            self.alter(name, master_candidate=False, offline=True)
        distribute(self.ctx)
        self.assertEqual(self.nodes.asked, [])
