"""Reading another node's files with the command that ssh would run there."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ganeti_masterd.failover.fetching import FetchFailed, OverSSH, run
from ganeti_masterd.startup.paths import Paths
from tests.failover.scene import SceneTestCase, queued


class FetchTests(SceneTestCase):
    """The command, and how its result is read."""

    def setUp(self) -> None:
        super().setUp()
        self.fetch = OverSSH(self.own.paths, self.here)
        node = self.own.snapshot.nodes.named("node3")
        assert node is not None
        self.node = node

    def here(self, command: Sequence[str], given: bytes) -> tuple[int, bytes, bytes]:
        """Runs the command for the other node on this machine."""
        done = subprocess.run(
            ["sh", "-c", command[-1]], input=given, capture_output=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def read(self, *paths: str) -> dict[str, bytes]:
        return self.fetch(self.own.snapshot, self.node, paths)

    def test_files(self) -> None:
        """Files are named as on this node, wherever the other's root is."""
        other = self.roots["node3"]
        other.put(queued(1))
        other.tag("there")
        job = self.own.paths.queue + "/job-1"
        found = self.read(self.own.paths.config, job)
        self.assertEqual(
            found,
            {
                self.own.paths.config: Path(other.paths.config).read_bytes(),
                job: Path(other.paths.queue, "job-1").read_bytes(),
            },
        )

    def test_missing(self) -> None:
        """A missing file is an error that names it."""
        error = self.assertRaises(FetchFailed, self.read, self.own.paths.queue + "/job-9")
        self.assertIn("ssh to node3 failed", str(error))
        self.assertIn("job-9", str(error))

    def test_failures(self) -> None:
        """The error has ssh's message; a bad archive and missing files are errors, too."""
        for done, words in (
            ((255, b"", b"Host key verification failed.\n"), "Host key verification failed."),
            ((255, b"", b""), "no reason given"),
            ((0, b"welcome" * 100, b""), "gave no files"),
            ((0, b"\0" * 10240, b""), "did not give"),
        ):
            self.fetch = OverSSH(self.own.paths, lambda *_, done=done: done)
            error = self.assertRaises(FetchFailed, self.read, self.own.paths.config)
            self.assertIn(words, str(error))

    def test_command(self) -> None:
        """The command uses the cluster's host keys, never prompts, and quotes the folder."""
        command = OverSSH(Paths()).command(self.own.snapshot, self.node)
        self.assertEqual(command[0], "ssh")
        for option in (
            "-oBatchMode=yes",
            "-oStrictHostKeyChecking=yes",
            "-oHostKeyAlias=cluster",
            "-oGlobalKnownHostsFile=/var/lib/ganeti/known_hosts",
            "-oPort=22",
        ):
            self.assertIn(option, command)
        self.assertEqual(
            command[-2:],
            [f"root@{self.node.primary_ip}", "tar -C /var/lib/ganeti -cf - -T -"],
        )
        virtual = OverSSH(Paths("/srv/a b/node2")).command(self.own.snapshot, self.node)
        self.assertIn("tar -C '/srv/a b/node3/var/lib/ganeti' ", virtual[-1])

    def test_run(self) -> None:
        """A program gets its input; a missing program is an error."""
        self.assertEqual(run(["cat"], b"text"), (0, b"text", b""))
        self.assertRaises(FetchFailed, run, ["/nowhere/ssh"], b"")
