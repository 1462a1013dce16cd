"""Files on simulated nodes: uploads, simple configuration, queue, and the master's own disk."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import zlib

import msgspec

from ganeti_masterd.rpc.interfaces import FixedArguments
from ganeti_masterd.simulation.files import CHECKED
from ganeti_masterd.simulation.state import NodeState
from tests.simulation.nodes import SimulationCase, target

VIRTUAL = "/###-VIRTUAL-PATH-###,"
CONFIG = "/var/lib/ganeti/config.data"
QUEUE = "/var/lib/ganeti/queue"


def packed(text: str) -> list[object]:
    """Returns compressed content as it is sent."""
    return [1, base64.b64encode(zlib.compress(text.encode())).decode()]


class FileCase(SimulationCase):
    def digest(self, path: str, node: str = "b") -> str | None:
        found = self.ask(node, "node_verify", {"filelist": [path]}, "cluster", {})
        digest = found["filelist"].get(path)
        return None if digest is None else str(digest)


class UploadTests(FileCase):
    def upload(
        self, path: str = CONFIG, content: object = (0, "{}"), owner: object = "root"
    ) -> str:
        return str(
            self.result(
                "b", "upload_file_single", path, content, 33184, owner, "root", 1.0, 2.0
            ).error
        )

    def test_both_forms(self) -> None:
        """Plain and compressed content give the same file."""
        sha = hashlib.sha1(b"text").hexdigest()
        for content in ([0, "text"], packed("text")):
            self.assertEqual(self.upload(content=content), "None")
            self.assertEqual(self.digest(CONFIG), sha)
        self.assertEqual(self.ask("b", "get_file_info", CONFIG), [True, {"size": 4}])
        held = self.nodes.node("b").state.files[CONFIG]
        self.assertEqual((held.mode, held.owner, held.mtime), (0o640, "root", 2.0))

    def test_as_list(self) -> None:
        """The other call has everything in one list; the mode may be None."""
        self.ask("b", "upload_file", [CONFIG, [0, "x"], None, "a", "b", None, None])
        self.assertEqual(self.nodes.node("b").state.files[CONFIG].mode, 0o600)

    def test_bad_content(self) -> None:
        """Content that can't be decoded is refused, and the old file stays."""
        self.upload(content=[0, "good"])
        before = self.digest(CONFIG)
        for content in ([2, "x"], [1, "no base64!"], [1, "eHh4"], [0], [0, 5], None):
            self.assertIn("Error while executing backend function", self.upload(content=content))
        self.assertEqual(self.digest(CONFIG), before)

    def test_targets(self) -> None:
        """Only allowed files are accepted; the messages are noded's."""
        for path in ("/etc/passwd", "/var/lib/ganeti/server.pem", QUEUE + "/job-1"):
            self.assertEqual(
                self.upload(path),
                f"Filename passed to UploadFile not in allowed upload targets: '{path}'",
            )
        self.assertEqual(
            self.upload("config.data"),
            "Filename passed to UploadFile is not absolute: 'config.data'",
        )
        self.assertEqual(self.upload(owner=0), "Invalid username/groupname type")
        self.assertIn("not in allowed", self.upload("/var/lib/ganeti/x/../../../../etc/passwd"))

    def test_virtual(self) -> None:
        """Virtual paths, plain ones and those below the root are the same file."""
        root = self.mktemp()
        self.nodes = self.make(root=root)
        self.upload(VIRTUAL + CONFIG, [0, "one"])
        self.assertEqual(self.digest(root + CONFIG), hashlib.sha1(b"one").hexdigest())
        self.assertEqual(self.digest(VIRTUAL + CONFIG), self.digest(CONFIG))


class QueueTests(FileCase):
    def test_update_and_archive(self) -> None:
        """Job files are written, replaced and moved."""
        job = QUEUE + "/job-1"
        self.ask("b", "jobqueue_update", job, [0, "one"])
        self.ask("b", "jobqueue_update", VIRTUAL + job, packed("two"))
        self.assertEqual(self.nodes.node("b").read(job), b"two")
        self.assertEqual(
            self.ask("b", "jobqueue_rename", [[job, QUEUE + "/archive/0/job-1"]]), [None]
        )
        self.assertIsNone(self.nodes.node("b").read(job))

    def test_outside(self) -> None:
        """Files outside of the queue are refused."""
        for path in ("/etc/passwd", QUEUE, QUEUE + "/../config.data", QUEUE + "er/job-1"):
            self.assertIn(
                "does not belong to the queue directory",
                self.fault("b", "jobqueue_update", path, [0, ""]),
            )
            self.fault("b", "jobqueue_rename", [[path, QUEUE + "/job-1"]])
            self.fault("b", "jobqueue_rename", [[QUEUE + "/job-1", path]])

    def test_missing(self) -> None:
        """A missing file fails the call after those before it were moved."""
        self.ask("b", "jobqueue_update", QUEUE + "/job-1", [0, ""])
        pairs = [[f"{QUEUE}/job-{n}", f"{QUEUE}/archive/0/job-{n}"] for n in (1, 2)]
        self.assertEqual(
            self.fault("b", "jobqueue_rename", pairs),
            "Error while executing backend function: [Errno 2] No such file or directory:"
            f" '{QUEUE}/job-2' -> '{QUEUE}/archive/0/job-2'",
        )
        self.assertNotIn(QUEUE + "/job-1", self.nodes.node("b").state.files)

    def test_drain(self) -> None:
        """The drain flag can be set and removed, each even twice."""
        for flag in (True, True, False, False):
            self.ask("b", "jobqueue_set_drain_flag", flag)
            held = QUEUE + "/drain" in self.nodes.node("b").state.files
            self.assertEqual(held, flag)

    def test_purge(self) -> None:
        """Purging empties the queue and nothing else."""
        self.ask("b", "jobqueue_update", QUEUE + "/job-1", [0, ""])
        self.ask("b", "write_ssconf_files", {"cluster_name": "c"})
        self.ask("b", "jobqueue_purge")
        self.assertEqual(
            list(self.nodes.node("b").state.files), ["/var/lib/ganeti/ssconf_cluster_name"]
        )


class LargeUploadTests(FileCase):
    def test_large(self) -> None:
        """A large file is stored unchanged; one that begins with rubbish is refused."""
        text = "".join(map(str, range(100000)))
        owner = ("gnt-masterd", "root", None, None)
        self.ask("b", "upload_file_single", CONFIG, packed(text), 33184, *owner)
        self.assertEqual(self.nodes.node("b").read(CONFIG), text.encode())
        form, data = packed(text)
        assert isinstance(data, str)
        self.assertGreater(len(data), CHECKED)
        for bad in (data[:7] + "!" + data[8:], "AAAA" + data[4:]):
            self.fault("b", "upload_file_single", CONFIG, [form, bad], 33184, *owner)
        self.assertEqual(self.nodes.node("b").read(CONFIG), text.encode())


class SsconfTests(FileCase):
    def test_values(self) -> None:
        """Lists become lines; strings get a final newline; empty ones stay empty."""
        values = {"node_list": ["a", "b"], "cluster_name": "c", "cluster_tags": []}
        self.ask("b", "write_ssconf_files", values)
        node = self.nodes.node("b")
        self.assertEqual(node.read("/var/lib/ganeti/ssconf_node_list"), b"a\nb\n")
        self.assertEqual(node.read("/var/lib/ganeti/ssconf_cluster_tags"), b"")
        self.assertEqual(node.ssconf("cluster_name"), "c")

    def test_wrong(self) -> None:
        """Unknown keys and long values are refused, and nothing is written."""
        error = self.fault("b", "write_ssconf_files", {"node_list": ["a"], "zz": [], "aa": []})
        self.assertIn("Invalid key requested from SSConf: 'zz'", error)
        self.fault("b", "write_ssconf_files", {"node_list": ["a"], "networks": "x" * 131073})
        self.assertEqual(len(self.nodes.node("b").state.files), 0)

    def test_unchanged(self) -> None:
        """Writing the same values again changes nothing."""
        self.ask("b", "write_ssconf_files", {"node_list": ["a"]})
        self.nodes.node("b").state.take_changes()
        self.ask("b", "write_ssconf_files", {"node_list": ["a"]})
        self.assertEqual(self.nodes.node("b").state.take_changes(), [])

    def test_changed_elsewhere(self) -> None:
        """A node gets what it lacks, whatever another node was sent in between."""
        one, two = {"cluster_name": "c", "node_list": ["a"]}, {"node_list": ["b"]}
        for name, values in (("b", one), ("c", two), ("b", two), ("c", one)):
            self.ask(name, "write_ssconf_files", values)
        for name, nodes in (("b", "b"), ("c", "a")):
            node = self.nodes.node(name)
            self.assertEqual((node.ssconf("cluster_name"), node.ssconf("node_list")), ("c", nodes))

    def test_fixed(self) -> None:
        """Arguments that don't change any more are converted once for all nodes."""
        values = {"instance_list": ["web"], "node_list": ["b", "c"]}
        given = FixedArguments([values])
        for name in ("b", "c"):
            done = self.nodes.call([target(name)], "write_ssconf_files", given)
            self.assertFalse(self.successResultOf(done)[f"uuid-{name}"].failed)
        held = [self.nodes.node(name).state.files for name in ("b", "c")]
        self.assertEqual(*(dict(files.items()) for files in held))
        for path in held[0]:
            self.assertIs(held[0][path], held[1][path])
        self.ask("b", "write_ssconf_files", {"node_list": ["c"]})
        self.assertEqual(self.nodes.node("b").ssconf("node_list"), "c")
        self.assertEqual(self.nodes.node("c").ssconf("node_list"), "b\nc")

    def test_long_value_is_held_once(self) -> None:
        """A long file that many nodes have is in memory only once, even after a restart."""
        names = [f"instance{number}" for number in range(1000)]
        held = []
        for name in ("b", "c"):
            self.ask(name, "write_ssconf_files", {"instance_list": list(names)})
            state = self.nodes.node(name).state
            file = state.files["/var/lib/ganeti/ssconf_instance_list"]
            again = NodeState()
            again.restore("file", "f", msgspec.json.encode(file))
            held += [file.data, again.files["f"].data]
        self.assertEqual(len({id(data) for data in held}), 1)

    def test_master(self) -> None:
        """The master's name is known once ssconf was written."""
        self.assertIn("Cluster configuration incomplete", self.fault("b", "master_node_name"))
        self.ask("b", "write_ssconf_files", {"master_node": ["a"]})
        self.assertEqual(self.ask("b", "master_node_name"), "a")


class MasterTests(FileCase):
    """The master's own files are real ones, below the root."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.mktemp()
        self.nodes = self.make(root=self.root, master="a")

    def real(self, path: str) -> bytes:
        with open(self.root + path, "rb") as file:
            return file.read()

    def write(self, path: str, content: bytes) -> None:
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        with open(self.root + path, "wb") as file:
            file.write(content)

    def test_written(self) -> None:
        """Files sent to the master are on its disk when it answers."""
        self.disk.held = True
        values = {"master_node": ["a"], "node_list": ["a", "b"]}
        done = self.nodes.call([target("a")], "write_ssconf_files", [values])
        self.assertNoResult(done)
        self.assertEqual(len(self.disk.jobs), 1)
        self.disk.release()
        self.assertFalse(self.successResultOf(done)["uuid-a"].failed)
        self.assertEqual(self.real("/var/lib/ganeti/ssconf_node_list"), b"a\nb\n")
        self.assertEqual(self.ask("a", "master_node_name"), "a")
        self.disk.held = False
        self.ask("a", "set_watcher_pause", 1_800_000_000)
        self.assertEqual(self.real("/var/lib/ganeti/watcher.pause"), b"1800000000\n")
        self.ask("a", "set_watcher_pause", None)
        self.assertFalse(os.path.exists(self.root + "/var/lib/ganeti/watcher.pause"))

    def test_left_alone(self) -> None:
        """A file that is as wanted stays; another content, mode or kind of file is replaced."""
        path = self.root + "/var/lib/ganeti/ssconf_node_list"
        values = {"node_list": ["a", "b"]}

        def written() -> int:
            self.ask("a", "write_ssconf_files", values)
            self.assertEqual(self.real("/var/lib/ganeti/ssconf_node_list"), b"a\nb\n")
            found = os.lstat(path)
            self.assertEqual(found.st_mode, stat.S_IFREG | 0o444)
            return found.st_ino

        first = written()
        self.assertEqual(written(), first)
        os.chmod(path, 0o644)
        self.assertNotEqual(second := written(), first)
        os.unlink(path)
        self.write("/var/lib/ganeti/ssconf_node_list", b"b\na\n")
        os.chmod(path, 0o444)
        written()
        os.rename(path, path + ".aside")
        os.symlink(path + ".aside", path)
        self.assertNotEqual(written(), second)

    def test_disk_fails(self) -> None:
        """A disk error is a failure that noded doesn't expect."""
        self.write("/var/lib/ganeti/ssconf_master_node/in_the_way", b"")
        self.assertIn(
            "Error while executing backend function: ",
            self.fault("a", "write_ssconf_files", {"master_node": ["a"]}),
        )

    def test_queue(self) -> None:
        """Files of the master's queue are moved for real."""
        self.write(QUEUE + "/job-1", b"{}")
        pair = [QUEUE + "/job-1", QUEUE + "/archive/0/job-1"]
        self.assertEqual(self.ask("a", "jobqueue_rename", [pair]), [None])
        self.assertEqual(self.real(pair[1]), b"{}")
        self.fault("a", "jobqueue_rename", [pair])

    def test_set_up_from_master(self) -> None:
        """Other nodes have the master's files except configuration and queue."""
        self.write("/var/lib/ganeti/server.pem", b"key")
        self.write(CONFIG, b"{}")
        self.write(QUEUE + "/serial", b"1\n")
        for path in ("/var/lib/ganeti/server.pem", CONFIG, QUEUE + "/serial"):
            self.assertIsNotNone(self.digest(path, "a"))
        self.assertEqual(
            self.digest("/var/lib/ganeti/server.pem"), hashlib.sha1(b"key").hexdigest()
        )
        self.assertIsNone(self.digest(CONFIG))
        self.assertIsNone(self.digest(QUEUE + "/serial"))
