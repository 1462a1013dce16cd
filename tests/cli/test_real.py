"""The command and the demonstration with the real daemon, on simulated nodes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

from ganeti_masterd.cli.daemon import DemoDaemon
from tests.cli.doubles import FolderCase

DEMO = [sys.executable, "-m", "ganeti_masterd.demo"]


def delay(seconds: float, **more: Any) -> dict[str, Any]:
    """Returns an opcode that waits, on no node."""
    return {"OP_ID": "OP_TEST_DELAY", "duration": seconds, "on_master": False, **more}


class RealDaemonTests(FolderCase):
    """The commands with a real daemon."""

    def luxi(self, *args: str, code: int = 0) -> Any:
        result = self.invoke("--root", self.root, "--json", *args)
        self.assertEqual(result.exit_code, code, result.output)
        return json.loads(result.stdout)

    def test_commands(self) -> None:
        """Every command works with a real queue."""
        self.root = self.path("node1")
        os.mkdir(self.root)
        with DemoDaemon(self.root, self.path("log")) as daemon:
            daemon.start()
            self.from_submit_to_archive()
            self.switches()
            self.long_running()
            self.assertIn(daemon.stop(), (0, -signal.SIGTERM))
        self.assertIn("no such socket", self.invoke("--root", self.root, "info").stderr)

    def from_submit_to_archive(self) -> None:
        tags = {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": ["x"]}
        bad = {"OP_ID": "OP_TAGS_DEL", "kind": "cluster", "tags": ["none"]}
        path = self.write("jobs.json", [[delay(0.01, repeat=2), tags], [bad]])
        good, failed = self.luxi("submit", path, "--wait", "--reason", "a test", code=1)
        self.assertEqual((good["status"], failed["status"]), ("success", "error"))
        self.assertEqual(failed["opresult"][0][0], "OpPrereqError")
        whole = self.luxi("job", str(good["id"]))
        self.assertEqual(whole["opstatus"], ["success", "success"])
        self.assertEqual(len(whole["oplog"][0]), 2)
        trail = [entry[:2] for entry in whole["ops"][0]["reason"]]
        self.assertEqual(trail[:2], [["gnt:user", "a test"], ["gnt:client:gnt-luxi", "submit"]])
        self.assertEqual(self.luxi("call", "QueryTags", '["cluster", ""]'), ["x"])
        self.assertEqual(self.luxi("info")["jobs"], {"total": 2, "success": 1, "error": 1})
        self.luxi("archive", str(good["id"]))
        self.assertEqual([row["id"] for row in self.luxi("jobs")], [failed["id"]])
        self.assertEqual(len(self.luxi("jobs", "--archived")), 2)
        self.assertTrue(self.luxi("job", str(good["id"]))["archived"])
        self.assertEqual(self.luxi("wait", str(good["id"]))[0]["status"], "success")
        self.assertEqual(self.luxi("archive", "--age", "all")["archived"], 1)

    def switches(self) -> None:
        path = self.write("job.json", delay(0.01))
        self.luxi("drain", "on")
        result = self.invoke("--root", self.root, "submit", path)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("rained", result.stderr)
        (drained,) = self.luxi("submit", "--drained", "--wait", path)
        self.assertEqual(drained["status"], "success")
        self.assertEqual(self.luxi("drain", "off"), {"drained": False})
        until = self.luxi("pause-watcher", "1h")["watcher_pause"]
        self.assertEqual(self.luxi("info")["watcher_pause"], until)
        self.luxi("pause-watcher", "off")
        self.assertIsNone(self.luxi("pause-watcher")["watcher_pause"])

    def long_running(self) -> None:
        first = delay(0.8, on_nodes=["node2"], no_locks=False)
        path = self.write("job.json", [[first], [first], [delay(0.01), delay(60)]])
        ids = [str(row["id"]) for row in self.luxi("submit", path)]
        self.assertTrue(self.luxi("priority", "-5", ids[1])[0]["done"])
        self.assertTrue(self.luxi("cancel", ids[1])[0]["done"])
        self.assertEqual(self.luxi("wait", ids[1], code=1)[0]["status"], "canceled")
        self.assertFalse(self.luxi("cancel", ids[1], code=1)[0]["done"])
        self.assertTrue(self.luxi("cancel", "--kill", ids[2])[0]["done"])
        self.assertEqual(self.luxi("wait", ids[2], code=1)[0]["status"], "error")
        result = self.invoke("--root", self.root, "watch", *ids)
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(
            len(re.findall("(?m)^job [0-9]+: (success|canceled|error), ", result.stdout)), 3
        )


class DemoTests(FolderCase):
    """``python -m ganeti_masterd.demo``."""

    def start(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*DEMO, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": self.folder},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        for stream in (process.stdout, process.stderr):
            self.addCleanup(stream.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_demo(self) -> None:
        """The demonstration runs its jobs, stops its daemon, and leaves nothing behind."""
        process = self.start()
        output, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (0, ""), output)
        for part in (
            "Nodes:          node1, node2, node3",
            "success, TEST_DELAY(1.0), ",
            "OpPrereqError (unknown_entity): Tag(s) 'no-such-tag' not found",
            "success, INSTANCE_CREATE(web), ",
            "  web       running   node1     node2     drbd      128\n",
            "  database  running   node2               plain     256, 64\n",
            "  cache     running   node3               diskless\n",
            "500 jobs that do nothing",
            "508 job files in ",
            "nothing left in the journal",
        ):
            self.assertIn(part, output)
        self.assertEqual(os.listdir(self.folder), [])

    def test_again(self) -> None:
        """On a cluster that is kept the instances are there from the first time."""
        for titles in ("3 instances, in one call", "They are from an earlier demonstration."):
            process = self.start("--root", self.path("node1"))
            output, errors = process.communicate(timeout=60)
            self.assertEqual((process.returncode, errors), (0, ""), output)
            self.assertIn(titles, output)
            self.assertIn("  web       running   node1     node2     drbd      128\n", output)

    def test_interrupted(self) -> None:
        """Ctrl-C also stops the daemon and removes its folder."""
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = self.start()
            assert process.stdout is not None
            for line in process.stdout:
                found = re.search("process ([0-9]+)", line)
                if found:
                    break
            else:
                self.fail("The demonstration never told its daemon's process")
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            self.assertEqual((process.returncode, errors), (code, ""))
            self.assertRaises(ProcessLookupError, os.kill, int(found[1]), 0)
            self.assertEqual(os.listdir(self.folder), [])

    def test_root_too_long(self) -> None:
        """A root whose path is too long is an error in one line; nothing is started."""
        process = self.start("--root", self.path("long" * 30))
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(errors, "^gnt-luxi: .*is too long")

    def test_root_is_a_file(self) -> None:
        """A root that is a file is an error in one line."""
        process = self.start("--root", self.write("file", "x"))
        _, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, len(errors.splitlines())), (1, 1))
        self.assertIn(self.path("file"), errors)
