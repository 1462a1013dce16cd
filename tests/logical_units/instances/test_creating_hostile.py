"""OP_INSTANCE_CREATE against arguments, allocators and other jobs that mean it no good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Add
from ganeti_masterd.config.objects import Disk
from ganeti_masterd.errors import GenericError, OpExecError
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.state import Device
from tests.logical_units.instances.scene import NAME, InstanceScene
from tests.logical_units.world import MustWait, Refused

CREATE = "OP_INSTANCE_CREATE"
MAC = "aa:00:00:11:22:33"


class HostileCase(InstanceScene):
    """Base: a cluster with a network and no instance of that name."""

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Starts anew."""
        self.renew(disk_templates=["plain", "drbd", "file", "blockdev", "diskless"])
        run = self.world.run
        run("OP_NETWORK_ADD", network_name="net1", network="192.0.2.0/24")
        where = {"group_name": "default", "network_name": "net1"}
        run("OP_NETWORK_CONNECT", network_mode="routed", network_link="l", **where)
        self.forget()

    def op(self, **about: Any) -> dict[str, Any]:
        """Returns the opcode's parameters."""
        return {
            "instance_name": NAME,
            "mode": "create",
            "disk_template": "plain",
            "disks": [{"size": 64}],
            "nics": [],
            "os_type": "noop",
            "pnode": "node2",
            "name_check": False,
            "ip_check": False,
            "start": False,
            **about,
        }

    def create(self, **about: Any) -> Any:
        """Makes the instance."""
        return self.world.run(CREATE, **self.op(**about))

    def refuses(self, text: str, code: str = "wrong_input", **about: Any) -> None:
        """Expects a refusal that leaves nothing."""
        self.assertRefused(text, code, CREATE, **self.op(**about))


class ArgumentTests(HostileCase):
    """Arguments that each look well."""

    def test_same_addresses(self) -> None:
        """Two NICs of one instance can't share a MAC address, or an address of a network."""
        nics = [{"mac": MAC}, {"mac": MAC.upper()}]
        text = "{} is given to two NICs of one instance"
        self.refuses(text.format(f"MAC address {MAC}"), "resource_not_unique", nics=nics)
        uuid = self.world.now.network("net1").uuid
        nics = [{"network": each, "ip": "192.0.2.5"} for each in ("net1", uuid)]
        self.refuses(text.format("IP address 192.0.2.5"), "resource_not_unique", nics=nics)
        self.create(nics=[{"network": "net1", "ip": "pool"}, {"network": "net1"}])
        self.assertEqual(self.world.faults(), [])

    def test_directory(self) -> None:
        """A directory of one's own stays below the cluster's."""
        for given in ("../../etc", "/etc", "a/../../b", ".."):
            self.refuses(
                f"Invalid file storage directory '{given}': it must be below the cluster's, and "
                "given relative to that",
                disk_template="file",
                file_storage_dir=given,
            )

    def test_directory_in_normal_form(self) -> None:
        """So that it is the same directory whenever it is compared."""
        self.create(disk_template="file", file_storage_dir="a/./b//c/")
        (disk,) = self.world.now.disks_of(self.now())
        path = str((disk.logical_id or ("", ""))[1])
        self.assertTrue(path.startswith(f"/srv/ganeti/file-storage/a/b/c/{NAME}/"), path)

    def test_devices(self) -> None:
        """A device is known by one path, and belongs to one disk, attached or not."""
        path = "/dev/disk/by-id/wwn-1"
        self.world.nodes.node("node2").state.devices[path] = Device("blockdev", 64, "", "")
        adopting = {"disk_template": "blockdev", "start": False}
        for odd in ("/dev/disk/by-id/../by-id/wwn-1", "/dev/disk//by-id/wwn-1", "/dev/disk/.."):
            self.refuses(
                f"Device node(s) {odd} lie outside /dev/disk/ and cannot be adopted",
                disks=[{"adopt": odd}],
                **adopting,
            )
        lone = Disk(uuid="lone", dev_type="blockdev", logical_id=("manual", path), size=64)
        self.world.store.apply([Add("disks", lone)])
        self.refuses(
            f"Device {path} is used by disk lone, which is in no instance",
            "resource_not_unique",
            disks=[{"adopt": path}],
            **adopting,
        )

    def test_values_that_scripts_tell(self) -> None:
        """Private and secret values are masked in what nodes say, before and half-way."""
        fault = SimulatedFault(kind="error", call="os_validate", text="no hush-hush")
        self.world.nodes.faults.add(fault)
        text = "OS Parameters validation failed on node node2: no <redacted>"
        for visibility in ("osparams_private", "osparams_secret"):
            self.refuses(text, "environment_error", **{visibility: {"a": "hush-hush"}})

    def test_values_that_scripts_tell_half_way(self) -> None:
        """The same when the installation fails."""
        fault = SimulatedFault(kind="error", call="instance_os_add", text="set -x: hush-hush")
        self.world.nodes.faults.add(fault)
        error = self.fails(CREATE, **self.op(osparams_private={"a": "hush-hush"}))
        self.assertIn("set -x: <redacted>; instance", str(error.args[0]))

    def test_adopted_disk_that_is_not_ready(self) -> None:
        """An instance isn't started on an adopted volume that can't be made ready."""
        path = "/dev/disk/by-id/wwn-1"
        self.world.nodes.node("node2").state.devices[path] = Device("blockdev", 64, "", "")
        self.break_call("blockdev_assemble")
        error = self.fails(
            CREATE, **self.op(disk_template="blockdev", disks=[{"adopt": path}], start=True)
        )
        text = f"Disk consistency error; instance {NAME} is in the cluster, marked to be down"
        self.assertEqual(error.args[0], text)
        self.assertNotIn(("node2", "instance_start"), self.calls)
        self.assertEqual(self.state(), ("down", "admin", False, []))


class AllocatorTests(HostileCase):
    """Answers that are none."""

    def told(self, answer: str, **about: Any) -> GenericError:
        """Returns the error after an answer of the allocator; nothing is left."""
        self.begin()
        fault = SimulatedFault(kind="garbage", call="iallocator_runner", payload=answer)
        self.world.nodes.faults.add(fault)
        error = self.fails(CREATE, **self.op(pnode=None, iallocator="hail", **about))
        self.assertIsNone(self.world.now.instances.named(NAME))
        made = [call for _, call in self.calls if call == "blockdev_create"]
        self.assertEqual(made, [])
        return error

    def test_nonsense(self) -> None:
        """Whatever it says, it is a failure in order."""
        for answer in (
            "",
            "nonsense",
            "[]",
            '{"success": true, "info": "", "result": []}',
            '{"success": true, "info": "", "result": [null]}',
            '{"success": true, "info": "", "result": "node1"}',
            '{"success": true, "info": "", "result": ["node1", "node2"]}',
            '{"success": "yes", "info": 5, "result": ["node1"]}',
            '{"success": false, "info": null, "result": []}',
        ):
            self.assertIn("iallocator", str(self.told(answer).args[0]), answer)

    def test_unknown_node(self) -> None:
        """A node that isn't there is the allocator's fault, not the client's."""
        error = self.told('{"success": true, "info": "", "result": ["nosuch"]}')
        self.assertIsInstance(error, OpExecError)
        self.assertEqual(
            error.args[0],
            f"The allocator hail chose nodes for instance {NAME} that don't exist: nosuch",
        )

    def test_one_node_twice(self) -> None:
        """A mirror has two nodes."""
        answer = '{"success": true, "info": "", "result": ["node1", "node1"]}'
        error = self.told(answer, disk_template="drbd")
        self.assertEqual(error.args[0], "The secondary node cannot be the primary node")


class MeanwhileTests(HostileCase):
    """Other jobs, and nodes that are lost, at each call to a node."""

    def at_each_call(self, what: Callable[[], object], **about: Any) -> list[tuple[object, Any]]:
        """Has something happen after the first call, the second, ...; returns what came of both."""
        found = []
        for moment in range(100):
            self.begin()
            seen: list[object] = []
            self.world.meanwhile = [lambda: None] * moment
            self.world.meanwhile.append(lambda seen=seen: seen.append(what()))  # type: ignore[misc]
            try:
                result = self.create(
                    disk_template="drbd",
                    snode="node3",
                    nics=[{"network": "net1", "ip": "pool"}],
                    start=True,
                    **about,
                )
            except Refused as refused:
                result = refused.error
            self.check_whole()
            if not seen:
                return found
            found.append((seen[0], result))
        raise self.failureException("it never ends")

    def check_whole(self) -> None:
        """Expects the instance with its disk and address, or none of them."""
        now = self.world.now
        there = now.instances.named(NAME)
        named = set(there.disks) if there is not None else set()
        self.assertEqual(set(now.disks) - set(self.now("web.example.com").disks), named)
        self.assertEqual(len(named), 1 if there is not None else 0)
        taken = {nic.ip for nic in there.nics} if there is not None else set()
        held = now.network("net1").reservations or ""
        self.assertEqual(held.count("1"), len(taken))
        self.assertEqual(len(self.world.reservations), 0)

    def tried(self, op_id: str, **parameters: Any) -> Callable[[], object]:
        """Returns what runs another job; that returns whether it waits, or why it is refused."""

        def run() -> object:
            try:
                return self.world.run(op_id, **parameters)
            except MustWait:
                return "waits"
            except Refused as refused:
                return str(refused.error.args[0])

        return run

    def test_same_name(self) -> None:
        """A second creation, or a rename to the name, waits and is then refused."""
        taken = f"Instance '{NAME}' is already in the cluster"
        names = {"new_name": NAME, "name_check": False, "ip_check": False}
        for other in (
            self.tried(CREATE, **self.op()),
            self.tried("OP_INSTANCE_RENAME", instance_name="web.example.com", **names),
        ):
            found = self.at_each_call(other)
            self.assertEqual({said for said, _ in found}, {"waits", taken})
            self.assertEqual({tuple(result) for _, result in found}, {("node2", "node3")})
            self.assertEqual(self.world.faults(), [])

    def test_network(self) -> None:
        """Its network can't be taken from under it."""
        where = {"group_name": "default", "network_name": "net1"}
        found = self.at_each_call(self.tried("OP_NETWORK_DISCONNECT", **where))
        self.assertEqual({said for said, _ in found}, {"waits"})
        found = self.at_each_call(self.tried("OP_NETWORK_REMOVE", network_name="net1"))
        self.assertEqual({said for said, _ in found}, {"Network still connected"})

    def test_node_lost(self) -> None:
        """A node that is lost leaves the instance whole or not at all, and is named."""
        for name in ("node2", "node3"):
            found = self.at_each_call(lambda name=name: self._lose(name))  # type: ignore[misc]
            failures = [result for _, result in found if isinstance(result, GenericError)]
            self.assertGreater(len(failures), 2)
            for error in failures:
                self.assertIn(name, str(error.args[0]))

    def _lose(self, name: str) -> None:
        node = self.world.now.node(name)
        self.modify(node.uuid, lambda now: replace(now, offline=True, master_candidate=False))
