"""OP_BACKUP_EXPORT with zero_free_space: a helper VM runs before the disks are copied."""

from __future__ import annotations

from typing import Any
from urllib.error import URLError

from msgspec.structs import replace

from ganeti_masterd.errors import DaemonStopping
from ganeti_masterd.jobs.devices import Fate
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.instances import images
from ganeti_masterd.logical_units.instances.helper_vm import boots_from_disk
from ganeti_masterd.simulation import guests
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.node import BootImage
from ganeti_masterd.simulation.switches import throw
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.backups.scene import EXPORT, BackupScene
from tests.logical_units.instances.scene import NAME

IMAGE = "/srv/zero.img"
FILLED = ("data of 0", guests.ZEROED)
DOING = "Zeroing free disk space"


class ZeroingScene(BackupScene):
    """Base: the cluster has a zeroing image, from which a guest boots for a minute."""

    sizes = (64,)

    def prepare(
        self, template: str = "plain", *, up: bool = True, speed: float = 16.0, **about: Any
    ) -> None:
        """Makes the cluster anew; ``image`` changes the image."""
        settings: dict[str, Any] = {"size": 100, "seconds": 60.0, "zeroes": True}
        settings.update(about.pop("image", {}))
        place = about.pop("place", IMAGE)
        image = BootImage(place, **settings)
        self.renew(description=Description(transfer_speed=speed, images=(image,)))
        nodes = ("node2", "node4") if template == "drbd" else ("node2",)
        self.make(template, nodes, sizes=self.sizes, up=up, **about)
        self.fill()
        self.modify(self.world.now.cluster.uuid, lambda now: replace(now, zeroing_image=place))

    def arguments_of(self) -> dict[str, Any]:
        """See ``BackupScene.arguments_of``."""
        return {**super().arguments_of(), "zero_free_space": True}

    @property
    def job(self) -> SynchronousContext:
        """The last job."""
        assert self.world.last is not None
        return self.world.last

    def volumes(self) -> list[str]:
        """Returns the volumes of node2 that no disk of the instance is."""
        known = set(self.paths().values())
        devices = self.world.nodes.node("node2").state.devices
        return [path for path in devices if path not in known and "meta" not in path]

    def assertAsBefore(self, *, up: bool) -> None:
        """Expects the instance as it was, and nothing of the helper VM."""
        runs = ["node2"] if up else []
        self.assertEqual(self.state(), ("up" if up else "down", "admin", up, runs))
        if up:
            running = self.world.nodes.node("node2").state.instances[NAME]
            self.assertEqual((running.image, len(running.disks)), ("", len(self.sizes)))
        self.assertEqual(self.volumes(), [])
        self.assertNothingLeft()


class SuccessTests(ZeroingScene):
    """The guest does its work in time."""

    def test_running(self) -> None:
        """The instance is stopped, zeroed, and started again while a snapshot is copied."""
        self.prepare()
        before = self.now()
        self.assertEqual(self.export(), (True, [True]))
        self.assertEqual(self.contents(), [FILLED])
        self.assertAsBefore(up=True)
        self.assertEqual(self.now(), before)
        told = " - INFO: Zeroing free disk space: Helper VM runs for 10s, at most 5m 3s"
        self.assertIn(told, self.world.progressed)
        lines = [line.removeprefix(f"{DOING}: ") for line in self.world.lines if DOING in line]
        self.assertEqual(
            lines,
            [
                "Attempting to create temporary disk",
                "Temporary disk created",
                "Activating helper VM's temporary disks",
                f"Imaging temporary disks with image {IMAGE}",
                "Starting helper VM",
                "Helper VM is up",
                "Waiting for helper VM to finish",
                "Regular cleanup of temporary disk",
                "Shutting down instance",
                "Temporary disk removed",
                "Helper VM execution completed",
            ],
        )

    def test_calls(self) -> None:
        """Of one that is down: the calls in order; the guest has the temporary disk first."""
        self.prepare(up=False)
        self.export()
        unasked = ("impexp_status", "export_list", "instance_info")
        made = [name for node, name in self.made_calls() if name not in unasked]
        self.assertEqual(
            made,
            [
                "get_file_info",
                "node_info",
                "node_info",
                "instance_shutdown",
                "blockdev_assemble",
                "blockdev_assemble",
                "blockdev_create",
                "blockdev_assemble",
                "blockdev_pause_resume_sync",
                "blockdev_image",
                "blockdev_pause_resume_sync",
                "instance_start",
                "instance_shutdown",
                "blockdev_remove",
                "import_start",
                "export_start",
                "impexp_cleanup",
                "impexp_cleanup",
                "finalize_export",
                "blockdev_shutdown",
            ],
        )
        for name in ("instance_start", "instance_shutdown"):
            place = max(at for at, (_, each) in enumerate(self.calls) if each == name)
            sent = self.arguments[place][0]
            self.assertEqual([disk["size"] for disk in sent["disks_info"]], [100, 64], name)
            uuids = [disk["uuid"] for disk in sent["disks_info"]]
            self.assertEqual(list(sent["disks"]), uuids)
        self.assertEqual(self.contents(), [FILLED])
        self.assertAsBefore(up=False)

    def test_templates(self) -> None:
        """Also disks that are mirrors, and files, get a volume before them."""
        for template in ("drbd", "file"):
            self.prepare(template, up=False)
            self.export()
            self.assertEqual(self.contents(), [FILLED], template)
            self.assertAsBefore(up=False)

    def test_known_after_its_end(self) -> None:
        """Under KVM an instance that has shut itself down is known until it is cleared away."""
        hvparams = {"user_shutdown": True}
        self.prepare(up=False, hypervisor="kvm", hvparams=hvparams, image={"seconds": 0.0})
        self.export()
        self.assertEqual(self.contents(), [FILLED])
        self.assertAsBefore(up=False)

    def test_noted_while_it_runs(self) -> None:
        """What a start after a crash would have to stop is forgotten before it starts again."""
        self.prepare()
        noted: list[tuple[str, list[Fate]]] = []
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, *arguments: Any, **options: Any) -> Any:
            if procedure == "instance_start":
                noted.append((procedure, [each.fate for each in self.job.devices]))
            return inner(targets, procedure, *arguments, **options)

        self.patch(self.world.nodes, "call", call)
        self.export()
        (_, helper), (_, own) = noted
        self.assertEqual(helper, [Fate.REMOVE, Fate.GUEST])
        self.assertNotIn(Fate.GUEST, own)

    def test_locks(self) -> None:
        """The primary is held until the helper VM has its disk."""
        self.prepare()
        nodes = sorted(self.world.now.node(name).uuid for name in ("node2", "node3"))
        self.assertEqual(self.locks_of(EXPORT, **self.arguments_of())["node"], (nodes, True))
        remote = {
            **self.arguments_of(),
            "mode": "remote",
            "target_node": [["192.0.2.1", 5000, "magic", "0", "0"]],
            "x509_key_name": ["key", "0", "0"],
            "destination_x509_ca": "certificate",
        }
        self.assertEqual(self.locks_of(EXPORT, **remote)["node"], ([self.now().primary_node], True))
        held: list[bool] = []
        primary = self.now().primary_node
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, *arguments: Any, **options: Any) -> Any:
            if procedure in ("blockdev_create", "instance_start"):
                held.append(primary in self.job.owned(Level.NODE))
            return inner(targets, procedure, *arguments, **options)

        self.patch(self.world.nodes, "call", call)
        self.export()
        self.assertEqual(held, [True, False, False])

    def test_url(self) -> None:
        """The server of a URL is asked for the size."""
        url = "http://images.example.com/zero"
        self.prepare(up=False, place=url)
        asked = []

        class Answer:
            headers = {"Content-Length": str(100 * 1048576 - 5)}

            def __enter__(self) -> Answer:
                return self

            def __exit__(self, *about: object) -> None:
                pass

        def urlopen(request: Any, timeout: float) -> Answer:
            asked.append((request.get_method(), request.full_url))
            return Answer()

        self.patch(images, "urlopen", urlopen)
        self.export()
        self.assertEqual(asked, [("HEAD", url)])
        self.assertEqual(self.contents(), [FILLED])


class RefusalTests(ZeroingScene):
    """What can't be is refused before the instance is stopped."""

    def refused(self, text: str, code: str, **parameters: Any) -> None:
        """Expects a refusal."""
        self.forget()
        self.assertRefused(text, code, EXPORT, **{**self.arguments_of(), **parameters})
        self.assertNotIn("instance_shutdown", [name for _, name in self.calls])
        self.assertAsBefore(up=self.now().admin_state == "up")

    def cluster(self, **changes: Any) -> None:
        """Changes the cluster."""
        self.modify(self.world.now.cluster.uuid, lambda now: replace(now, **changes))

    def test_image(self) -> None:
        """The image must be there, and have a volume group with room for it."""
        self.prepare()
        self.cluster(zeroing_image="/srv/none")
        self.refused("Could not open file '/srv/none' on node node2", "environment_error")
        self.cluster(zeroing_image=IMAGE, volume_group_name="")
        self.refused(
            "Cluster does not support lvm-based instances: a helper VM needs a volume to boot from",
            "wrong_state",
        )
        self.prepare(image={"size": 2000000})
        self.refused(
            "Not enough disk space on target node node2 vg xenvg: required 2000000 MiB, available "
            "1048512 MiB",
            "insufficient_resources",
        )

    def test_arguments(self) -> None:
        """Those that don't go together, whatever the instance is."""
        self.prepare()
        for text, parameters in (
            (
                "Zeroing free space does not make sense unless compression is used",
                {"compress": ""},
            ),
            ("Unless the instance is shut down, zeroing cannot be used.", {"shutdown": False}),
        ):
            arguments = {**self.arguments_of(), **parameters, "instance_name": "nosuch"}
            self.assertEqual(self.fails(EXPORT, **arguments).args, (text, "wrong_input"))

    def test_memory(self) -> None:
        """One that is down needs memory on its node."""
        self.prepare(up=False, beparams={"minmem": 100000, "maxmem": 100000})
        self.refused(
            f"Not enough memory on node node2 for starting the helper VM of instance {NAME}: "
            "needed 100000 MiB, available 64512 MiB",
            "insufficient_resources",
        )

    def test_boot_order(self) -> None:
        """It must be the disk that comes first, in the words of the hypervisor."""
        for hypervisor, order, good in (
            ("kvm", "disk", True),
            ("kvm", "cdrom", False),
            ("kvm", "network", False),
            ("xen-hvm", "cd", True),
            ("xen-hvm", "dc", False),
        ):
            self.assertIs(boots_from_disk(hypervisor, {"boot_order": order}), good, order)
        for hypervisor in ("fake", "xen-pvm"):
            self.assertIs(boots_from_disk(hypervisor, {}), True)

    def test_url(self) -> None:
        """A server that says nothing, or not how large the image is."""
        url = "http://images.example.com/zero"
        self.prepare(place=url)

        def urlopen(request: Any, timeout: float) -> Any:
            raise URLError("no route")

        self.patch(images, "urlopen", urlopen)
        self.refused(
            f"Could not retrieve image from given url '{url}': <urlopen error no route>",
            "environment_error",
        )


class FailureTests(ZeroingScene):
    """Whatever happens, the instance is as before and the job says why."""

    def failed(self, text: str, *, up: bool = True, **about: Any) -> None:
        """Expects a failure, and all as before."""
        self.prepare(up=up, **about)
        before = self.now()
        self.assertFails(text, EXPORT, **self.arguments_of())
        self.assertEqual(self.now().hvparams, before.hvparams)
        self.assertEqual(self.now().disks, before.disks)
        self.assertAsBefore(up=up)
        self.assertEqual(self.exports(), {})
        self.assertIn("What it had done before was taken back", str(self.world.lines))

    def test_hangs(self) -> None:
        """A guest that never ends is stopped once its time is over."""
        for up in (True, False):
            self.failed(
                f"{DOING}: Error running helper VM with image {IMAGE}: it has not shut itself "
                "down within 303 seconds",
                up=up,
                image={"seconds": None},
            )
            self.assertIn(
                f" - WARNING: {DOING}: Helper VM has not finished within the timeout; shutting it "
                "down forcibly",
                self.world.lines,
            )
            waited = sum(self.job.slept)
            self.assertGreaterEqual(waited, 303)
            self.assertLess(waited, 330)

    def test_time_of_its_own(self) -> None:
        """The opcode says how long it may take."""
        self.prepare(image={"seconds": 1000.0})
        self.export(zeroing_timeout_fixed=900, zeroing_timeout_per_mib=2.0)
        self.assertEqual(self.contents(), [FILLED])
        self.prepare(image={"seconds": 1000.0})
        error = self.fails(
            EXPORT, **self.arguments_of(), zeroing_timeout_fixed=0, zeroing_timeout_per_mib=1.0
        )
        self.assertIn("within 64 seconds", str(error.args[0]))
        self.assertAsBefore(up=True)

    def test_never_boots(self) -> None:
        """A guest that never comes up."""
        for up in (True, False):
            self.failed(
                f"{DOING}: Could not boot instance using image {IMAGE}",
                up=up,
                image={"boots": False},
            )

    def test_calls_fail(self) -> None:
        """Each call that it needs may fail once."""
        for call, text in (
            ("blockdev_create", "Can't create block device"),
            ("blockdev_image", f"{DOING}: Could not image the temporary disk on node node2"),
            ("instance_start", f"{DOING}: Could not start helper VM with image {IMAGE}"),
        ):
            self.prepare()
            mend = self.break_call(call, count=1)
            error = self.fails(EXPORT, **self.arguments_of())
            mend()
            self.assertIn(text, str(error.args[0]))
            self.assertAsBefore(up=True)

    def test_disk_stays(self) -> None:
        """A temporary disk that can't be removed is named; the export goes on."""
        self.prepare(up=False)
        self.break_call("blockdev_remove")
        self.export()
        (path,) = self.volumes()
        volume = path.removeprefix("/dev/")
        self.assertIn(
            f"      Hint: gnt-cluster command -n node2 lvremove -f {volume}", self.world.lines
        )
        self.assertEqual(self.contents(), [FILLED])

    def test_node_dies(self) -> None:
        """Its node stops answering: the job names what may run there, and starts nothing."""
        self.prepare()
        self.when("instance_start", lambda: self.break_all())
        error = self.fails(EXPORT, **self.arguments_of())
        self.assertIn(
            f"{DOING}: Can't tell whether the helper VM runs on node node2", error.args[0]
        )
        lines = "\n".join(map(str, self.world.lines))
        self.assertIn(f"Could not stop the helper VM of instance {NAME} on node node2", lines)
        self.assertIn(
            f"      Hint: It may still run in the place of the instance: gnt-instance shutdown "
            f"{NAME}",
            lines,
        )
        self.assertIn("a helper VM may run in its place", lines)
        self.assertEqual([name for _, name in self.calls].count("instance_start"), 1)
        self.assertEqual(self.now().admin_state, "up")

    def test_power(self) -> None:
        """Its node loses its power: what is left is named, and the next commands put it right."""
        for up in (True, False):
            self.prepare(up=up)
            nodes = self.world.nodes
            self.when("instance_start", lambda nodes=nodes: throw(nodes, ["power", "node2", "off"]))
            self.fails(EXPORT, **self.arguments_of())
            lines = "\n".join(map(str, self.world.lines))
            (path,) = self.volumes()
            volume = path.removeprefix("/dev/")
            self.assertIn(f"Hint: gnt-cluster command -n node2 lvremove -f {volume}", lines)
            self.assertIn("a helper VM may run in its place on node2", lines)
            again = f"Hint: To go on: gnt-backup export -n node3 --zero-free-space {NAME}"
            self.assertTrue(lines.endswith(again), lines)
            self.assertEqual(self.now().admin_state, "up" if up else "down")
            # Nobody takes disks away that it may use.
            self.assertTrue(self.now().disks_active)
            throw(nodes, ["power", "node2", "on"])
            self.world.run("OP_INSTANCE_SHUTDOWN", instance_name=NAME)
            self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
            running = nodes.node("node2").state.instances[NAME]
            self.assertEqual((running.image, len(running.disks)), ("", 1))
            self.export()
            self.assertEqual(self.contents(), [FILLED])

    def test_end_not_recorded(self) -> None:
        """Where its end isn't recorded the instance isn't started: a restart would stop it."""
        self.prepare()

        def stop(ctx: SynchronousContext, devices: Any) -> None:
            raise DaemonStopping("the daemon stops")

        self.patch(SynchronousContext, "forget_surely", stop)
        self.fails(EXPORT, **self.arguments_of())
        self.assertNotIn(NAME, self.world.nodes.node("node2").state.instances)
        self.assertIn(Fate.GUEST, [each.fate for each in self.job.devices])
        self.assertIn("a helper VM may run in its place", "\n".join(map(str, self.world.lines)))

    def test_node_is_busy(self) -> None:
        """A node that doesn't answer for a while is asked again."""
        self.prepare(up=False)
        self.break_call("instance_info", count=5)
        self.export()
        self.assertEqual(self.contents(), [FILLED])
        self.assertAsBefore(up=False)

    def when(self, procedure: str, do: Any) -> None:
        """Does something after the first call of a procedure."""
        inner = self.world.nodes.call
        done: list[bool] = []

        def call(targets: Any, name: str, *arguments: Any, **options: Any) -> Any:
            answer = inner(targets, name, *arguments, **options)
            if name == procedure and not done:
                done.append(True)
                do()
            return answer

        self.patch(self.world.nodes, "call", call)

    def break_all(self) -> None:
        """Nothing that is asked of node2 is answered well from now on."""
        for name in ("instance_info", "instance_shutdown", "blockdev_remove", "blockdev_shutdown"):
            self.break_call(name)


class KillTests(ZeroingScene):
    """A job that is killed at each checkpoint."""

    def test_each(self) -> None:
        """Nothing of the helper VM is left, and the instance is as before."""
        for up in (True, False):
            for moment in self.each_kill(
                lambda up=up: self.prepare(up=up, image={"seconds": 25.0}),  # type: ignore[misc]
                EXPORT,
                **self.arguments_of(),
            ):
                self.assertEqual(self.volumes(), [], moment)
                self.assertEqual(self.where(), ["node2"] if up else [], moment)
                if up:
                    running = self.world.nodes.node("node2").state.instances[NAME]
                    self.assertEqual(running.image, "", moment)
                self.assertNotIn(Fate.GUEST, [each.fate for each in self.job.devices], moment)
