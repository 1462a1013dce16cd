"""OP_INSTANCE_CREATE: what is made, in which order, and what the log and hooks tell."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.locking.levels import BGL, Level, LockMode, exclusive, shared
from ganeti_masterd.logical_units.instances import resolving
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.logical_units.steps.wording import size_text
from ganeti_masterd.opcodes import decode_opcode
from tests.logical_units.instances.creation import NAME, CreationCase
from tests.logical_units.world import MustWait

#: What names of instances resolve to.
ADDRESS = "198.51.100.77"

P, S = "node1", "node4"
#: What is asked before anything is made, where it is installed and started.
ASKED = [
    ("hypervisor_validate_params", P),
    ("os_validate", P),
    ("os_diagnose", P),
    ("node_info", P),
]
#: What follows when the disks are there.
FINISHED = [("instance_os_add", P), ("instance_metadata_modify", P), ("instance_start", P)]


class MadeTests(CreationCase):
    """Instances of each template."""

    def test_templates(self) -> None:
        """What is configured is on the nodes, and nothing else; the result names the nodes."""
        for template, devices in (
            ("diskless", (0, 0)),
            ("plain", (2, 0)),
            ("drbd", (4, 4)),
            ("file", (2, 0)),
            ("ext", (1, 1)),
        ):
            with self.subTest(template):
                self.renew()
                before = {node: len(held[0]) for node, held in self.holdings().items()}
                result = self.create(template)
                self.assertEqual(result, ["node1", "node4"] if template == "drbd" else ["node1"])
                after = {node: len(held[0]) for node, held in self.holdings().items()}
                if template != "ext":
                    self.assertEqual(
                        (after[P] - before[P], after[S] - before[S]), devices, template
                    )
                self.assertIn(NAME, self.world.nodes.node(P).state.instances)
                made = self.now()
                self.assertEqual((made.admin_state, made.disks_active), ("up", True))
                disks = self.world.now.disks_of(made)
                self.assertEqual(
                    [disk.dev_type for disk in disks],
                    [template] * len(self.parameters(template)["disks"]),
                )
                self.assertEqual(
                    [disk.iv_name for disk in disks],
                    [f"disk/{index}" for index in range(len(disks))],
                )

    def test_shared_and_foreign_storage(self) -> None:
        """Templates whose disks every node reaches."""
        self.create("sharedfile", disks=[{"size": 16}])
        (disk,) = self.world.now.disks_of(self.now())
        self.assertEqual(disk.nodes, ())
        self.assertTrue(
            str((disk.logical_id or ("", ""))[1]).startswith(
                f"/srv/ganeti/shared-file-storage/{NAME}/"
            )
        )
        for template in ("gluster", "rbd"):
            self.renew()
            self.create(template, disks=[{"size": 16}])
            (disk,) = self.world.now.disks_of(self.now())
            self.assertEqual((disk.dev_type, disk.nodes), (template, ()))

    def test_one_transaction(self) -> None:
        """Instance, disks, addresses and ports come into the configuration at once."""
        before = self.world.now.header.serial_no
        self.create(
            "drbd", start=False, nics=[{"network": "net1", "ip": "pool"}], wait_for_sync=True
        )
        self.assertEqual(self.world.now.header.serial_no, before + 1)
        made = self.now()
        self.assertEqual((made.serial_no, made.nics[0].ip), (1, "192.0.2.2"))
        self.assertEqual(self.accounts()["ports"], [11000, 11001, 11002])
        self.assertEqual(self.own_addresses(), "00100000")

    def test_order_of_calls(self) -> None:
        """Nodes are called in the real daemon's order, without what asks for nothing.

        Only which minors they use is asked in addition.
        """
        creates = [("blockdev_create", P)]
        on_both = [each for call in ("blockdev_create",) * 3 for each in ((call, P), (call, S))]
        expected: dict[str, Any] = {
            "diskless": [
                *[each for each in ASKED if each[0] != "os_diagnose"],
                *FINISHED[1:],
            ],
            "plain": [("node_info", P), *ASKED, *creates * 2, *FINISHED],
            "file": [*ASKED, ("file_storage_dir_create", P), *creates * 2, *FINISHED],
            "ext": [*ASKED, *creates, *FINISHED],
            "drbd": [
                ("node_info", P),
                ("node_info", S),
                ("hypervisor_validate_params", P),
                ("hypervisor_validate_params", S),
                ("os_validate", P),
                ("os_validate", S),
                *ASKED[2:],
                ("node_verify_light", P),
                ("node_verify_light", S),
                *on_both * 2,
                ("blockdev_getmirrorstatus", P),
                *FINISHED,
            ],
        }
        for template, calls in expected.items():
            with self.subTest(template):
                self.renew()
                self.create(template)
                self.assertEqual(self.made(), calls)

    def test_log(self) -> None:
        """The lines of progress are those of gnt-instance add."""
        self.create("plain", disks=[{"size": 5}, {"size": 1536}])
        self.assertEqual(
            self.world.lines,
            [
                "* disk 0, size 8M",
                "* disk 1, size 1.5G",
                "* creating instance disks...",
                f"adding instance {NAME} to cluster config",
                "adding disks to cluster config",
                "* running the instance OS create scripts...",
                "* starting instance...",
            ],
        )
        self.assertEqual(size_text(3 * 1024 * 1024), "3.0T")

    def test_what_is_stored(self) -> None:
        """Only what differs from the defaults is kept."""
        self.create(
            "plain",
            os_type="demo+fancy",
            osparams={"fs": "ext4"},
            osparams_private={"root_pw": "hush"},
            osparams_secret={"dhcp": "topsecret"},
            beparams={"memory": "256", "vcpus": 2, "auto_balance": "auto"},
            tags=["red", "blue"],
            disks=[{"size": 64, "mode": "ro", "name": "root", "vg": "altvg"}],
            nics=[{"mac": "AA:00:00:11:22:33", "mode": "bridged", "link": "br0", "vlan": "100"}],
        )
        made = self.now()
        self.assertEqual(made.os, "demo+fancy")
        self.assertEqual(
            made.beparams, {"maxmem": 256, "minmem": 256, "vcpus": 2, "auto_balance": True}
        )
        self.assertEqual(
            (made.osparams, made.osparams_private), ({"fs": "ext4"}, {"root_pw": "hush"})
        )
        self.assertEqual(made.tags, ("blue", "red"))
        self.assertEqual(made.hvparams, {})
        (nic,) = made.nics
        self.assertEqual(
            (nic.mac, nic.nicparams),
            ("aa:00:00:11:22:33", {"mode": "bridged", "link": "br0", "vlan": ".100"}),
        )
        (disk,) = self.world.now.disks_of(made)
        self.assertEqual(
            (disk.mode, disk.name, (disk.logical_id or ("",))[0]), ("ro", "root", "altvg")
        )
        self.assertIn(("bridges_exist", P), self.made())

    def test_identify_defaults(self) -> None:
        """Parameters that are as they would be anyway are not kept."""
        self.create(
            "diskless",
            identify_defaults=True,
            beparams={"maxmem": 128, "vcpus": 3},
            nics=[{"mode": "bridged", "link": "br1"}],
        )
        made = self.now()
        self.assertEqual(made.beparams, {"vcpus": 3})
        self.assertEqual(made.nics[0].nicparams, {"link": "br1"})

    def test_secrets(self) -> None:
        """No value of a private or secret parameter is in the log, in a result or with hooks."""
        self.create(
            "plain",
            os_type="demo+plain",
            osparams_private={"root_pw": "geheim"},
            osparams_secret={"dhcp": "topsecret"},
        )
        told = repr((self.world.lines, self.sent("hooks_runner")))
        self.assertNotIn("geheim", told)
        self.assertNotIn("topsecret", told)
        self.assertNotIn("topsecret", repr(self.now()))
        ((installed, reinstall, _),) = self.sent("instance_os_add")
        self.assertFalse(reinstall)
        self.assertEqual(installed["osparams"], {"dhcp": "topsecret"})
        self.assertEqual(installed["osparams_private"], {"root_pw": "geheim"})
        ((metadata,),) = self.sent("instance_metadata_modify")
        self.assertEqual(metadata["osparams_secret"], {"dhcp": "topsecret"})
        self.assertEqual(metadata["osparams"], {})

    def test_not_started(self) -> None:
        """Without a start its disks are shut down; nothing runs."""
        self.create("drbd", start=False)
        made = self.now()
        self.assertEqual((made.admin_state, made.disks_active), ("down", False))
        self.assertEqual(
            [each for each in self.made() if each[0] == "blockdev_shutdown"],
            [("blockdev_shutdown", P), ("blockdev_shutdown", S)] * 2,
        )
        self.assertNotIn("instance_start", [call for call, _ in self.made()])

    def test_no_wait(self) -> None:
        """Without waiting, mirrors are looked at once and stand still for the scripts."""
        self.create("drbd", wait_for_sync=False, start=False)
        self.assertIn("* checking mirrors status", self.world.lines)
        first = self.world.lines.index("* pausing disk sync to install instance OS")
        self.assertEqual(
            self.world.lines[first + 1 : first + 3],
            ["* running the instance OS create scripts...", "* resuming disk sync"],
        )
        self.assertEqual(
            [arguments[1] for arguments in self.sent("blockdev_pause_resume_sync")], [True, False]
        )
        self.assertTrue(self.now().disks_active)

    def test_no_install(self) -> None:
        """Without an installation no script runs, and it isn't started."""
        self.create("plain", no_install=True)
        calls = [call for call, _ in self.made()]
        self.assertNotIn("instance_os_add", calls)
        self.assertNotIn("instance_start", calls)
        self.assertIn(" - INFO: No-installation mode selected, disabling startup", self.world.lines)
        self.assertEqual(self.now().admin_state, "down")

    def test_image(self) -> None:
        """An image goes on the first disk, instead of an operating system."""
        self.create("plain", os_type=..., osparams={"os-image": "http://images.example.com/x"})
        calls = [call for call, _ in self.made()]
        self.assertNotIn("instance_os_add", calls)
        self.assertNotIn("os_validate", calls)
        first = calls.index("blockdev_pause_resume_sync")
        self.assertEqual(
            calls[first : first + 3],
            ["blockdev_pause_resume_sync", "blockdev_image", "blockdev_pause_resume_sync"],
        )
        ((disk, image, size),) = self.sent("blockdev_image")
        self.assertEqual(
            (disk["iv_name"], image, size), ("disk/0", "http://images.example.com/x", 64)
        )
        self.assertEqual(self.now().os, "")

    def test_wiping(self) -> None:
        """Where the cluster says so, new disks are wiped before they are used."""
        self.modify(self.world.now.cluster.uuid, prealloc_wipe_disks=True)
        self.create("plain")
        calls = [call for call, _ in self.made()]
        self.assertLess(calls.index("blockdev_wipe"), calls.index("instance_os_add"))
        self.assertIn("* wiping instance disks...", self.world.lines)

    def test_ports(self) -> None:
        """Hypervisors with a console in a window take a port, which is accounted for."""
        self.renew(hypervisors=("fake", "kvm", "xen-pvm"))
        kernel = {"kernel_path": ""}
        self.create("diskless", hypervisor="kvm", hvparams=kernel, start=False)
        self.assertEqual(self.now().network_port, 11001)
        self.assertEqual(self.accounts()["ports"], [11000, 11001])
        self.create("diskless", instance_name="other", start=False)
        self.assertIsNone(self.now("other").network_port)

    def test_communication(self) -> None:
        """The NIC to the metadata daemon is on the cluster's network for it."""
        self.modify(self.world.now.cluster.uuid, instance_communication_network="net1")
        self.create(
            "diskless", instance_communication=True, nics=[{"mode": "bridged", "link": "br0"}]
        )
        nic = self.now().nics[1]
        self.assertEqual(nic.name, f"ganeti:communication:{NAME}")
        self.assertEqual((nic.network, nic.ip), (self.network().uuid, "192.0.2.2"))

    def test_hooks(self) -> None:
        """Hooks run on the master and its nodes; afterwards they are told of the real disks."""
        self.create("drbd", nics=[{"network": "net1", "ip": "pool"}], disks=[{"size": 64}])
        where = [
            (arguments[1], node)
            for procedure, node, arguments in self.calls
            if procedure == "hooks_runner" and arguments[0] == "instance-add"
        ]
        self.assertEqual(where, [("pre", P), ("pre", S), ("post", P), ("post", S)])
        pre, post = self.hook_variables("pre"), self.hook_variables("post")
        for told in (pre, post):
            self.assertEqual(told["ADD_MODE"], "create")
            self.assertEqual(told["OP_TARGET"], NAME)
            self.assertEqual(told["INSTANCE_PRIMARY"], P)
            self.assertEqual(told["INSTANCE_SECONDARIES"], S)
            self.assertEqual(told["INSTANCE_STATUS"], "True")
            self.assertEqual(told["INSTANCE_DISK_TEMPLATE"], "drbd")
            self.assertEqual(told["INSTANCE_DISK0_SIZE"], "64")
            self.assertEqual(told["INSTANCE_NIC0_NETWORK_NAME"], "net1")
        self.assertEqual(pre["INSTANCE_DISK0_UUID"], "")
        self.assertNotIn("INSTANCE_DISK0_DEV_TYPE", pre)
        (disk,) = self.world.now.disks_of(self.now())
        self.assertEqual(post["INSTANCE_DISK0_UUID"], disk.uuid)
        self.assertEqual(post["INSTANCE_DISK0_DEV_TYPE"], "drbd")

    def test_dry_run(self) -> None:
        """A dry run names the nodes, and changes nothing."""
        before, held = self.world.now, self.holdings()
        self.assertEqual(self.create("drbd", dry_run=True), ["node1", "node4"])
        self.assertIs(self.world.now, before)
        self.assertEqual(self.holdings(), held)

    def test_names(self) -> None:
        """A name that is to be resolved is used in full; its address may be the NIC's."""
        self.patch(resolving, "resolve", lambda name, family: (f"{name}.example.com", ADDRESS))
        self.patch(resolving, "answers", lambda address: False)
        self.create(
            "diskless",
            instance_name="long",
            name_check=True,
            ip_check=True,
            nics=[{"ip": "auto", "mode": "routed"}],
        )
        self.assertEqual(self.now("long.example.com").nics[0].ip, ADDRESS)
        self.assertIn(" - INFO: Resolved given name 'long' to 'long.example.com'", self.world.lines)


class PlaceTests(CreationCase):
    """Where instances go, and which locks that takes."""

    def wanted(self, **more: Any) -> dict[Level, Any]:
        """Returns the locks that a creation wants."""
        op = {"OP_ID": "OP_INSTANCE_CREATE", **self.parameters(**more)}
        unit = unit_for(decode_opcode(op))
        assert unit is not None
        unit.expand(self.world.now)
        found = {}
        for level in Level:
            found[level] = unit.locks(level, self.world.now)
            unit.held[level] = found[level].names or frozenset()
        return found

    def test_named_nodes(self) -> None:
        """Its nodes are held alone, and as resources shared."""
        nodes = {self.world.now.node(name).uuid for name in (P, S)}
        wanted = self.wanted(template="drbd")
        self.assertEqual(wanted[Level.INSTANCE].creating, {NAME})
        self.assertEqual(
            (wanted[Level.NODE].mode, wanted[Level.NODE].names), (LockMode.EXCLUSIVE, nodes)
        )
        self.assertEqual(
            (wanted[Level.NODE_RES].mode, wanted[Level.NODE_RES].names), (LockMode.SHARED, nodes)
        )
        self.assertEqual(len(wanted[Level.NODEGROUP].names), 1)
        self.assertTrue(wanted[Level.NETWORK].empty)

    def test_allocator(self) -> None:
        """An allocator needs all nodes; or what is free, and enough of it."""
        wanted = self.wanted(template="drbd", pnode=..., snode=...)
        self.assertIsNone(wanted[Level.NODE].names)
        self.assertIsNone(wanted[Level.NODEGROUP].names)
        some = self.wanted(template="drbd", pnode=..., snode=..., opportunistic_locking=True)
        self.assertEqual(some[Level.NODE].minimum, 2)
        self.assertEqual(self.wanted(pnode=..., opportunistic_locking=True)[Level.NODE].minimum, 1)

    def test_chosen(self) -> None:
        """The allocator's nodes are taken, and the log names them."""
        result = self.create("drbd", pnode=..., snode=...)
        self.assertEqual(len(result), 2)
        line = f"Selected nodes for instance {NAME} via iallocator built-in: {', '.join(result)}"
        self.assertTrue(
            any(
                line.split(" via ", maxsplit=1)[0] in each and ", ".join(result) in each
                for each in self.world.lines
            ),
            self.world.lines,
        )

    def test_released(self) -> None:
        """Nodes and their resources are free once the disks are in the configuration."""
        held: dict[str, set[str]] = {}
        inner = self.world.nodes.call

        def calling(targets: Any, procedure: str, *rest: Any, **options: Any) -> Any:
            levels = {row.name.partition("/")[0] for row in self.world.locks.rows() if row.owner}
            held.setdefault(procedure, levels)
            return inner(targets, procedure, *rest, **options)

        self.world.nodes.call = calling  # type: ignore[method-assign]
        self.create("drbd")
        always = {"cluster", "instance", "nodegroup"}
        self.assertEqual(held["blockdev_create"], always | {"node", "node-res"})
        self.assertEqual(held["blockdev_getmirrorstatus"], always)
        self.assertEqual(held["instance_os_add"], always)

    def nested(self, call: str, first: dict[str, Any], second: dict[str, Any]) -> Any:
        """Runs a second creation while the first makes a call; returns what came of the second."""
        found: list[Any] = []
        inner = self.world.nodes.call

        def calling(targets: Any, procedure: str, *rest: Any, **options: Any) -> Any:
            if procedure == call and not found:
                found.append(None)
                try:
                    found[0] = self.world.run("OP_INSTANCE_CREATE", **self.parameters(**second))
                except MustWait:
                    found[0] = "waits"
            return inner(targets, procedure, *rest, **options)

        self.world.nodes.call = calling  # type: ignore[method-assign]
        self.create(**first)
        return found[0]

    def test_side_by_side(self) -> None:
        """Creations on other nodes never wait for each other, whatever the first is doing."""
        for call in ("node_info", "blockdev_create", "instance_os_add", "instance_start"):
            with self.subTest(call):
                self.renew()
                second = {"instance_name": "second", "pnode": "node2"}
                self.assertEqual(self.nested(call, {}, second), ["node2"])

    def test_same_node(self) -> None:
        """On the same node one waits until the disks of the other are made, and no longer."""
        second = {"instance_name": "second"}
        self.assertEqual(self.nested("blockdev_create", {}, second), "waits")
        for call in ("blockdev_wipe", "instance_os_add", "instance_start"):
            with self.subTest(call):
                self.renew()
                self.modify(self.world.now.cluster.uuid, prealloc_wipe_disks=True)
                self.assertEqual(self.nested(call, {}, second), ["node1"])

    def test_allocators_side_by_side(self) -> None:
        """Among free nodes an allocator chooses at any time; among all once disks are made."""
        first = {"pnode": ...}
        some = {"instance_name": "second", "pnode": ..., "opportunistic_locking": True}
        result = self.nested("blockdev_create", first, some)
        self.assertEqual(len(result), 1)
        self.assertNotEqual(result[0], self.world.now.nodes[self.now().primary_node].name)
        for call in ("blockdev_wipe", "instance_os_add"):
            with self.subTest(call):
                self.renew()
                self.modify(self.world.now.cluster.uuid, prealloc_wipe_disks=True)
                second = {"instance_name": "second", "pnode": ...}
                self.assertEqual(len(self.nested(call, first, second)), 1)

    def test_named_node_beside_allocator(self) -> None:
        """Once an allocator chose, nodes that it did not choose are free."""
        chosen = self.create(pnode=..., dry_run=True)[0]
        other = next(name for name in ("node3", "node4") if name != chosen)
        second = {"instance_name": "second", "pnode": other}
        self.assertEqual(self.nested("os_validate", {"pnode": ...}, second), [other])

    def test_second_try(self) -> None:
        """Free nodes that aren't enough: the job waits for all of them."""
        held = [self.world.now.node(name).uuid for name in ("node2", "node3")]
        busy = {"size": 900 * 1024}
        # node1 and node4 are full; node2 and node3 are held by another job meanwhile.
        for name in ("node1", "node4"):
            self.create(instance_name=f"full{name}", pnode=name, disks=[busy])
        self.world.locks.acquire(900, Level.CLUSTER, shared(BGL))
        self.world.locks.acquire(900, Level.NODE, exclusive(held))
        self.addCleanup(self.world.locks.release_all, 900)
        attempts: list[int] = []

        def freed() -> None:
            attempts.append(1)
            self.world.locks.release_all(900)

        self.world.before_second_try = freed
        result = self.create(
            pnode=..., disks=[busy], opportunistic_locking=True, ignore_ipolicy=True
        )
        self.assertIn(result[0], ("node2", "node3"))
        self.assertEqual(attempts, [1])
        self.assertIn("* falling back to full lock allocation", self.world.lines)
        self.assertTrue(
            any("failed on opportunistically acquired nodes: " in line for line in self.world.lines)
        )
