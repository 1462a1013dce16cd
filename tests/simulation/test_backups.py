"""Exports on simulated nodes, and the daemons that copy disks from one to another."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.description import DescribedNode, Description
from ganeti_masterd.simulation.node import Failing, OSDefinition
from ganeti_masterd.simulation.state import Hardware, StoredFile
from ganeti_masterd.simulation.switches import throw
from tests.simulation.nodes import SimulationCase, instance, volume

EXPORTS = "/var/lib/ganeti/export"

#: The config.ini that a real node daemon wrote for such an instance.
CONFIG = """[export]
version = 0
timestamp = {time}
source = uuid-a
os = demo
compression = none

[instance]
name = web
maxmem = 512
minmem = 256
memory = 512
vcpus = 2
disk_template = plain
hypervisor = fake
tags = keep
nic0_mac = aa:00:00:00:00:51
nic0_ip = 192.0.2.201
nic0_network = None
nic0_name = None
nic0_link = 100
nic0_mode = routed
nic0_vlan = {nothing}
nic_count = 1
disk0_ivname = disk/0
disk0_dump = dump0
disk0_size = 64
disk0_name = None
disk_count = 1

[hypervisor]

[backend]
maxmem = 512
minmem = 256
vcpus = 2

[os]
fs = ext4

[os_private]

"""


class TransferCase(SimulationCase):
    speed: float | None = None

    def setUp(self) -> None:
        super().setUp()
        demo = OSDefinition("demo", fails=(Failing("export", "fs", values=("bad",)),))
        self.nodes = self.make(
            description=Description(
                default=DescribedNode(Hardware(exports=True)),
                systems=(demo,),
                transfer_speed=self.speed,
            )
        )
        for node in ("a", "b"):
            self.ask(node, "blockdev_create", volume("disk", 64), 64, "web", True, "i", False)
            self.nodes.node(node).state.files["/image"] = StoredFile(0, node)
        self.ask("a", "blockdev_image", volume("disk", 64), "/image", 64)
        self.raw = ["raw", [volume("disk", 64)]]
        self.web = instance(os="demo")

    def options(self, magic: str = "m") -> dict[str, Any]:
        return {"magic": magic, "connect_timeout": 60, "compress": "none"}

    def take(self, node: str = "b", dest: Any = None) -> tuple[str, int]:
        """Starts an import; returns its name and its port when it listens."""
        name = self.ask(node, "import_start", self.options(), self.web, "disk0", dest or self.raw)
        self.assertEqual(self.ask(node, "impexp_status", [name]), [None])
        self.clock.advance(0.5)
        return name, self.status(node, name)["listen_port"]

    def send(self, port: int, *, magic: str = "m", source: Any = None) -> str:
        arguments = (self.options(magic), "192.0.2.2", port, self.web, "disk0")
        name: str = self.ask("a", "export_start", *arguments, source or self.raw)
        self.clock.advance(0.5)
        return name

    def status(self, node: str, name: str) -> Any:
        return self.ask(node, "impexp_status", [name])[0]

    def content(self, node: str) -> Any:
        return self.nodes.node(node).state.devices["/dev/xenvg/disk"].content


class TransferTests(TransferCase):
    def test_copied(self) -> None:
        """A disk's content is copied to the other node; both daemons succeed."""
        taking, port = self.take()
        self.assertNotIn("connected", self.status("b", taking))
        sending = self.send(port)
        self.assertEqual(self.status("a", sending)["exit_status"], 0)
        self.assertEqual(self.status("b", taking)["exit_status"], 0)
        self.assertEqual(self.status("b", taking)["progress_mbytes"], 64)
        self.assertEqual(self.content("b"), ("image /image",))
        for node, name in (("a", sending), ("b", taking)):
            self.ask(node, "impexp_cleanup", name)
            self.ask(node, "impexp_cleanup", name)
            self.assertIsNone(self.status(node, name))

    def test_magic(self) -> None:
        """Daemons whose magic differs both fail, and nothing is copied."""
        taking, port = self.take()
        sending = self.send(port, magic="other")
        for node, name in (("a", sending), ("b", taking)):
            status = self.status(node, name)
            self.assertEqual(
                (status["exit_status"], status["error_message"]), (1, "Exited with status 1")
            )
        self.assertEqual(self.content("b"), ())

    def test_nobody_comes(self) -> None:
        """An import without a connection fails at its time-out, an export sooner."""
        taking, port = self.take()
        lonely = self.send(port + 1)
        self.clock.advance(10)
        self.assertEqual(self.status("a", lonely)["exit_status"], 1)
        self.assertNotIn("exit_status", self.status("b", taking))
        self.clock.advance(50)
        self.assertEqual(self.status("b", taking)["exit_status"], 1)

    def test_abort(self) -> None:
        """An aborted daemon's status has the signal; aborting an unknown one does nothing."""
        taking, _ = self.take()
        self.ask("b", "impexp_abort", taking)
        self.assertEqual(self.status("b", taking)["error_message"], "Exited due to signal 15")
        self.ask("b", "impexp_abort", "no-such-daemon")
        self.assertIsNone(self.status("a", taking))

    def test_refused(self) -> None:
        """Disks that are missing, paths elsewhere, half a certificate are refused."""
        gone = ["raw", [volume("gone")]]
        for fault, options, dest in (
            ("Block device '<LogicalVolume(/dev/xenvg/gone", {}, gone),
            ("is not under exports directory", {}, ["file", ["/etc/passwd"]]),
            ("is not normalized or absolute", {}, ["file", ["x"]]),
            ("Invalid import I/O mode 'tape'", {}, ["tape", []]),
            ("can only be used for both key and CA", {"key_name": "k"}, self.raw),
            ("does not exist", {"key_name": "k", "ca_pem": "c"}, self.raw),
        ):
            error = self.fault("b", "import_start", options, self.web, "disk0", dest)
            self.assertIn(fault, error)
        self.assertEqual(
            self.fault("a", "export_start", {}, None, 1, self.web, "disk0", self.raw),
            "Host and port must be specified for an export",
        )


class SlowTransferTests(TransferCase):
    speed = 8.0

    def test_progress(self) -> None:
        """A copy takes time; the exporting end reports how much is left."""
        taking, port = self.take()
        sending = self.send(port)
        self.clock.advance(2)
        status = self.status("a", sending)
        self.assertEqual(
            (status["progress_mbytes"], status["progress_percent"], status["progress_eta"]),
            (16, 25, 6.0),
        )
        self.assertEqual(self.status("b", taking)["progress_mbytes"], 16)
        self.assertEqual(self.content("b"), ())
        self.clock.advance(6)
        self.assertEqual(self.status("a", sending)["exit_status"], 0)

    def test_one_end_dies(self) -> None:
        """If one end is aborted, restarts or can't be reached, the other fails."""
        for kill in ("abort", "reboot b", "net a b down"):
            taking, port = self.take()
            sending = self.send(port)
            self.clock.advance(2)
            self.assertTrue(self.status("a", sending)["connected"])
            if kill == "abort":
                self.ask("b", "impexp_abort", taking)
            else:
                throw(self.nodes, kill.split())
            self.assertEqual(self.status("a", sending)["exit_status"], 1, kill)
            self.assertEqual(self.content("b"), ())


class ExportTests(TransferCase):
    def export(self) -> None:
        """Exports the disk of a to b."""
        dest = ["file", [f"{EXPORTS}/web.new/dump0"]]
        _, port = self.take(dest=dest)
        self.send(port, source=["script", [volume("disk", 64), 0]])

    def test_life(self) -> None:
        """An export is made, finalized, listed, shown, read back and removed."""
        self.assertEqual(self.ask("b", "export_list"), [])
        self.export()
        self.assertEqual(
            self.fault("b", "export_info", f"{EXPORTS}/web"),
            "Export info file doesn't have the required fields",
        )
        nic = {
            "mac": "aa:00:00:00:00:51",
            "ip": "192.0.2.201",
            "nicparams": {"link": "100", "mode": "routed", "vlan": ""},
        }
        self.web.update(
            nics=[nic],
            primary_node="uuid-a",
            tags=["keep"],
            osparams={"fs": "ext4"},
            hvparams={"migration_mode": "live"},
        )
        disk = {**volume("disk", 64), "uuid": "dump0"}
        config = CONFIG.format(time=int(self.clock.seconds()), nothing="")
        self.ask("b", "finalize_export", self.web, [disk])
        self.assertEqual(self.ask("b", "export_list"), ["web"])
        self.assertEqual(self.ask("b", "export_info", f"{EXPORTS}/web"), config)
        self.assertEqual(throw(self.nodes, ["export-ini", "b", "web"]), config.rstrip("\n"))
        self.ask("a", "blockdev_wipe", volume("disk", 64), 0, 64)
        _, port = self.take(node="a")
        arguments = (self.options(), "192.0.2.1", port, self.web, "disk0")
        self.ask("b", "export_start", *arguments, ["file", [f"{EXPORTS}/web/dump0"]])
        self.clock.advance(1)
        self.ask("b", "version")
        self.assertEqual(self.content("a"), ("image /image",))
        self.ask("b", "export_remove", "web")
        self.assertIn("Error while removing the export", self.fault("b", "export_remove", "web"))

    def test_bare(self) -> None:
        """Exports without content are listed, and can be removed."""
        self.nodes.node("b").state.facts["exports"] = ["mail", "web"]
        self.assertEqual(self.ask("b", "export_list"), ["mail", "web"])
        self.ask("b", "export_remove", "mail")
        self.assertEqual(self.ask("b", "export_list"), ["web"])

    def test_nothing_to_finalize(self) -> None:
        """An export that was never begun can't be finalized."""
        error = self.fault("b", "finalize_export", self.web, [])
        self.assertIn("[Errno 2] No such file or directory:", error)

    def test_no_directory(self) -> None:
        """A node has no directory of exports until its first export."""
        self.nodes = self.make()
        self.assertEqual(self.fault("a", "export_list"), "No exports directory")
        dest = ["file", [f"{EXPORTS}/web.new/dump0"]]
        self.ask("a", "import_start", {}, instance(), "disk0", dest)
        self.assertEqual(self.ask("a", "export_list"), ["web.new"])

    def test_script_fails(self) -> None:
        """If an operating system's export script fails, the status says so."""
        self.web["osparams"] = {"fs": "bad"}
        source = ["script", [volume("disk", 64), 0]]
        arguments = (self.options(), "192.0.2.2", 1, self.web, "disk0", source)
        self.assertIn("export script failed", self.fault("a", "export_start", *arguments))

    def test_certificates(self) -> None:
        """A certificate is made, used for a daemon, and removed once."""
        name, text = self.ask("b", "x509_cert_create", 60)
        self.assertTrue(text.startswith("-----BEGIN CERTIFICATE-----"))
        options = {**self.options(), "key_name": name, "ca_pem": text}
        self.ask("b", "import_start", options, self.web, "disk0", self.raw)
        self.ask("b", "x509_cert_remove", name)
        self.assertIn("Cannot remove", self.fault("b", "x509_cert_remove", name))

    def test_os_package(self) -> None:
        """An operating system is packed with its environment."""
        path = self.ask("a", "os_export", self.web, {"EXTRA": "1"})
        self.assertIn("EXTRA=1\n", self.nodes.node("a").state.files[path].data)
        self.assertIn("not found", self.fault("a", "os_export", {**self.web, "os": "no"}, {}))
