"""The same calls to a real node daemon and to a simulated node have the same results.

The real one is Debian's ganeti-noded with the fake hypervisor, without SSL, in a temporary root.
Its answers must agree with the simulated ones in success, shape of the payload, and error message.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

from twisted.trial.unittest import SkipTest

from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.testing.shapes import differences
from tests.simulation.nodes import SimulationCase, file_disk, instance

NODED = "/usr/sbin/ganeti-noded"
VIRTUAL = "/###-VIRTUAL-PATH-###,"
DATA = VIRTUAL + "/var/lib/ganeti"
QUEUE = DATA + "/queue"

#: Options of a transfer's daemon.
OPTIONS = {"magic": "m", "compress": "none", "connect_timeout": 60}


class RealNode:
    """A real node daemon in a temporary root."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="noded-")
        os.chmod(self.folder, 0o755)
        self.root = os.path.join(self.folder, "node1")
        self.storage = os.path.join(self.folder, "file-storage")
        for path in (
            "lib/ganeti/queue/archive",
            "log/ganeti",
            "run/ganeti/instance-disks",
            "run/ganeti/instance-reason",
            "lock",
        ):
            os.makedirs(os.path.join(self.root, "var", path))
        os.makedirs(os.path.join(self.root, "etc/ganeti/hooks/test-pre.d"))
        os.makedirs(self.storage)
        with open(os.path.join(self.root, "etc/ganeti/file-storage-paths"), "w") as file:
            file.write(self.storage + "\n")
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        environment = {**os.environ, "GANETI_ROOTDIR": self.root, "GANETI_HOSTNAME": "node1"}
        command = [NODED, "-f", "--no-ssl", "--no-mlock", "-b", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise SkipTest("the real node daemon does not start here")
                time.sleep(0.05)

    def call(self, name: str, arguments: list[Any]) -> tuple[bool, Any]:
        """Sends a call and returns what the daemon answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = arguments[0] if CALLS[name].bare else arguments
        connection.request("POST", f"/{name}", json.dumps(body))
        try:
            good, payload = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return good, payload

    def stop(self) -> None:
        """Stops the daemon and all of its children, and removes its root."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def sequence(storage: str) -> list[tuple[str, list[Any]]]:
    """Returns the calls; each depends on those before it."""
    web = instance("web", primary_node="u1")
    folder = f"{storage}/web"
    disk = file_disk(f"{folder}/disk0")
    absent = file_disk(f"{folder}/absent")
    shared = {**file_disk(f"{storage}/shared/disk0"), "dev_type": "sharedfile"}
    external = {
        **file_disk("x"),
        "dev_type": "ext",
        "logical_id": ["nosuch", "volume"],
        "params": {"provider": "nosuch", "access": "kernelspace"},
    }
    with_disk = {**web, "disks_info": [disk]}
    without = {**web, "disks_info": [absent], "name": "mail"}
    checks: dict[str, Any] = {
        "version": None,
        "hypervisor": ["fake"],
        "hvparms": [["cluster", "fake", {"migration_mode": "live"}]],
        "instancelist": ["fake"],
        "hvinfo": "fake",
        "time": None,
        "filelist": [DATA + "/config.data", DATA + "/ssconf_node_list", DATA + "/none"],
        "nodelist": [["node2"], {}, []],
        "node-net-test": [[["node1", "127.0.0.1", "127.0.0.1"]], []],
        "master-ip": ["node1", "127.0.0.2", []],
        "bridges": [],
        "user-scripts": [],
        "oob-paths": [],
        "allowed-file-storage-paths": "other",
        "oslist": None,
    }
    config = [DATA + "/config.data", [0, "{}"], 33184, "gnt-masterd", "gnt-confd", None, None]
    return [
        ("version", []),
        ("master_node_name", []),
        (
            "write_ssconf_files",
            [{"master_node": ["node2"], "node_list": ["node1", "node2"], "ssh_ports": []}],
        ),
        ("write_ssconf_files", [{"no_such_key": []}]),
        ("write_ssconf_files", [{"networks": "x" * 131073}]),
        ("master_node_name", []),
        ("node_info", [None, None]),
        ("node_info", [[], []]),
        ("node_info", [[["file", storage, []]], [["fake", {"migration_mode": "live"}]]]),
        ("node_info", [[["ext", "x", []]], None]),
        ("node_info", [None, [["vax", {}]]]),
        ("instance_list", [["fake"], {"fake": {}}]),
        ("instance_list", [["vax"], {"vax": {}}]),
        ("all_instances_info", [["fake"], {}]),
        ("instance_info", ["web", "fake", {}]),
        ("instance_migratable", [web]),
        ("instance_reboot", [web, "hard", 5, []]),
        ("instance_shutdown", [web, 5, []]),
        ("instance_start", [web, False, []]),
        ("instance_start", [web, False, []]),
        ("instance_start", [without, False, []]),
        ("instance_start", [{**web, "hypervisor": "vax"}, False, []]),
        ("instance_info", ["web", "fake", {}]),
        ("all_instances_info", [["fake"], {"fake": {}}]),
        ("instance_list", [["fake"], {"fake": {}}]),
        ("instance_migratable", [web]),
        ("migration_info", [web]),
        ("accept_instance", [web, "", "127.0.0.1"]),
        ("instance_migrate", ["cluster", web, "127.0.0.1", True]),
        ("instance_get_migration_status", [web]),
        ("instance_reboot", [web, "soft", 5, []]),
        ("instance_reboot", [web, "hard", 5, []]),
        ("instance_reboot", [web, "full", 5, []]),
        ("instance_balloon_memory", [web, 300]),
        ("hotplug_supported", [web]),
        ("hypervisor_validate_params", ["fake", {"migration_mode": "live"}]),
        ("hypervisor_validate_params", ["vax", {}]),
        (
            "instance_console_info",
            [{"web": {"instance": web, "node": {}, "group": {}, "hvParams": {}, "beParams": {}}}],
        ),
        ("instance_finalize_migration_src", [web, True, True]),
        ("instance_info", ["web", "fake", {}]),
        ("instance_finalize_migration_dst", [web, "", True]),
        ("node_verify", [checks, "cluster", {"fake": {}}]),
        ("instance_finalize_migration_dst", [web, "", False]),
        ("blockdev_create", [disk, 16, "web", True, "info", False]),
        ("file_storage_dir_create", [folder]),
        ("file_storage_dir_create", [folder]),
        ("blockdev_create", [disk, 16, "web", True, "info", False]),
        ("blockdev_create", [disk, 16, "web", True, "info", False]),
        ("blockdev_find", [disk]),
        ("blockdev_find", [absent]),
        ("blockdev_getmirrorstatus", [[]]),
        ("blockdev_getmirrorstatus", [[disk]]),
        ("blockdev_getmirrorstatus", [[absent]]),
        ("blockdev_getmirrorstatus_multi", [[disk, absent]]),
        ("blockdev_getdimensions", [[disk, absent]]),
        ("blockdev_assemble", [disk, web, False, 0]),
        ("blockdev_assemble", [disk, web, True, 0]),
        ("blockdev_open", ["web", [disk], True]),
        ("blockdev_open", ["web", [absent], True]),
        ("instance_start", [with_disk, False, []]),
        ("instance_shutdown", [with_disk, 5, []]),
        ("blockdev_grow", [disk, 8, True, True, False]),
        ("blockdev_grow", [disk, 8, False, True, False]),
        ("blockdev_grow", [disk, 8, False, False, False]),
        ("blockdev_grow", [absent, 8, False, True, False]),
        ("blockdev_grow", [disk, -8, False, True, False]),
        ("blockdev_getdimensions", [[disk]]),
        ("blockdev_wipe", [disk, -1, 1]),
        ("blockdev_wipe", [disk, 25, 0]),
        ("blockdev_wipe", [absent, 0, 1]),
        ("blockdev_snapshot", [disk, "snap", 16]),
        ("blockdev_close", ["web", [disk]]),
        ("blockdev_close", ["web", [absent]]),
        ("blockdev_shutdown", [disk]),
        ("blockdev_shutdown", [absent]),
        ("blockdev_rename", [[[absent, ["loop", f"{folder}/other"]]]]),
        ("get_file_info", [f"{folder}/disk0"]),
        ("file_storage_dir_remove", [folder]),
        ("file_storage_dir_create", [f"{folder}/disk0"]),
        ("file_storage_dir_rename", [folder, f"{storage}/moved"]),
        ("file_storage_dir_rename", [f"{storage}/none", f"{storage}/new"]),
        ("file_storage_dir_create", [folder]),
        ("file_storage_dir_rename", [folder, f"{storage}/moved"]),
        ("blockdev_find", [file_disk(f"{storage}/moved/disk0")]),
        ("blockdev_image", [absent, "/no/such/image", 1]),
        ("blockdev_convert", [absent, disk]),
        ("blockdev_pause_resume_sync", [[absent], True]),
        ("blockdev_setinfo", [absent, "info"]),
        ("blockdev_addchildren", [absent, []]),
        ("blockdev_removechildren", [absent, []]),
        ("drbd_disconnect_net", [[absent]]),
        ("drbd_attach_net", [[absent], False]),
        ("drbd_wait_sync", [[absent]]),
        ("drbd_needs_activation", [[absent]]),
        ("blockdev_remove", [file_disk(f"{storage}/moved/disk0")]),
        ("blockdev_remove", [file_disk(f"{storage}/moved/disk0")]),
        ("file_storage_dir_create", [f"{storage}/shared"]),
        ("blockdev_create", [shared, 16, "web", True, "info", False]),
        ("blockdev_create", [shared, 16, "web", True, "info", False]),
        ("blockdev_find", [shared]),
        ("blockdev_assemble", [shared, web, False, 0]),
        ("blockdev_assemble", [shared, web, True, 0]),
        ("blockdev_rename", [[[shared, ["loop", f"{storage}/shared/new"]]]]),
        ("blockdev_find", [shared]),
        ("blockdev_snapshot", [shared, None, None]),
        ("blockdev_remove", [{**shared, "logical_id": ["loop", f"{storage}/shared/new"]}]),
        ("file_storage_dir_remove", [f"{storage}/moved"]),
        ("file_storage_dir_remove", [f"{storage}/moved"]),
        ("storage_list", ["file", [[storage]], None, ["name", "size", "used", "free"]]),
        ("storage_list", ["file", [[storage]], None, ["no_such_field"]]),
        ("storage_list", ["file", [[storage]], "", ["name", "size"]]),
        ("storage_execute", ["file", [[storage]], storage, "fix-consistency"]),
        ("upload_file_single", config),
        ("upload_file", [config]),
        ("upload_file_single", [DATA + "/server.pem", *config[1:]]),
        ("upload_file_single", [config[0], [0, "{}"], 33184, 0, 0, None, None]),
        ("upload_file_single", [config[0], [1, "eJyrrgUAAXUA+Q=="], *config[2:]]),
        ("get_file_info", ["/no/such/file"]),
        ("jobqueue_update", [QUEUE + "/job-1", [0, "{}"]]),
        ("jobqueue_update", [DATA + "/job-1", [0, "{}"]]),
        ("jobqueue_rename", [[[QUEUE + "/job-1", QUEUE + "/archive/0/job-1"]]]),
        ("jobqueue_rename", [[[QUEUE + "/job-1", QUEUE + "/archive/0/job-1"]]]),
        ("jobqueue_set_drain_flag", [True]),
        ("jobqueue_set_drain_flag", [False]),
        ("node_demote_from_mc", []),
        ("set_watcher_pause", ["soon"]),
        ("set_watcher_pause", [4000000000.5]),
        ("get_watcher_pause", []),
        ("set_watcher_pause", [None]),
        ("get_watcher_pause", []),
        ("os_diagnose", []),
        ("os_validate", [True, "noop", ["parameters"], {}, False]),
        ("os_validate", [True, "noop+x", ["parameters"], {}, False]),
        ("os_validate", [True, "none", [], {}, False]),
        ("os_validate", [False, "none", [], {}, False]),
        ("os_validate", [True, "noop", ["x"], {}, False]),
        ("instance_os_add", [{**web, "os": "none"}, False, 0]),
        ("instance_run_rename", [{**web, "os": "none"}, "old", 0]),
        ("extstorage_diagnose", []),
        ("blockdev_create", [external, 16, "web", True, "info", False]),
        ("blockdev_assemble", [external, web, True, 0]),
        ("blockdev_find", [external]),
        ("blockdev_getmirrorstatus", [[external]]),
        ("blockdev_getmirrorstatus_multi", [[external]]),
        ("blockdev_getdimensions", [[external]]),
        ("blockdev_open", ["web", [external], True]),
        ("blockdev_remove", [external]),
        ("blockdev_shutdown", [external]),
        ("blockdev_grow", [external, 8, False, True, False]),
        ("blockdev_snapshot", [external, None, None]),
        ("export_list", []),
        ("export_info", ["/var/lib/ganeti/export/web"]),
        ("import_start", [OPTIONS, web, "disk0", ["tape", []]]),
        ("import_start", [OPTIONS, web, "disk0", ["file", ["relative"]]]),
        ("import_start", [{**OPTIONS, "key_name": "k"}, web, "disk0", ["raw", [absent]]]),
        ("import_start", [OPTIONS, web, "disk0", ["raw", [absent]]]),
        ("import_start", [OPTIONS, {**web, "os": "none"}, "disk0", ["script", [absent, 0]]]),
        ("export_start", [OPTIONS, None, None, web, "disk0", ["raw", [absent]]]),
        ("export_start", [OPTIONS, "127.0.0.1", 1, web, "disk0", ["raw", [absent]]]),
        ("impexp_status", [["no-such-daemon"]]),
        ("impexp_abort", ["no-such-daemon"]),
        ("impexp_cleanup", ["no-such-daemon"]),
        ("x509_cert_remove", ["no-such-key"]),
        ("node_ensure_daemon", ["no-such-daemon", True]),
        ("node_crypto_tokens", [[["x", "get", {}]]]),
        ("node_crypto_tokens", [[["ssl", "x", {}]]]),
        ("bridges_exist", [[]]),
        ("iallocator_runner", ["no-such-allocator", "{}", {}]),
        ("hooks_runner", ["none", "pre", {}]),
        ("hooks_runner", ["test", "mid", {}]),
        ("hooks_runner", ["test", "pre", {}]),
        ("test_delay", [0]),
        ("test_delay", [-1]),
    ]


class ContractTests(SimulationCase):
    def test_alike(self) -> None:
        """Success, shapes and messages agree over a long sequence of calls."""
        if not os.path.exists(NODED):
            raise SkipTest("no real node daemon is installed here")
        if os.geteuid() != 0:
            raise SkipTest("the real node daemon needs root")
        real = RealNode()
        self.addCleanup(real.stop)
        self.nodes = self.make(root=real.root)
        self.ask("node1", "file_storage_dir_create", real.storage)
        self.maxDiff = None
        faults: list[str] = []
        for place, (name, arguments) in enumerate(sequence(real.storage)):
            good, payload = real.call(name, arguments)
            result = self.result("node1", name, *arguments)
            where = f"{place} {name}"
            if good == result.failed:
                faults.append(f"{where}: {result.error or result.payload!r}, really {payload!r}")
            elif good:
                faults += [f"{where}: {text}" for text in differences(payload, result.payload)]
            elif self.plain(real, result.error) != self.plain(real, payload):
                faults.append(f"{where}: {result.error!r}, really {payload!r}")
        self.assertEqual(faults, [])

    def plain(self, real: RealNode, text: str | None) -> str:
        """Returns an error message without the parts that depend on the real root."""
        return (text or "").replace(real.root, "")
