"""OP_INSTANCE_REPLACE_DISKS: what it does when all goes well."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.simulation.ends import Link
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.scene import MirrorScene

OP = "OP_INSTANCE_REPLACE_DISKS"


class ReplacingCase(MirrorScene):
    """Base: runs the opcode on the instance."""

    def replace(self, mode: str, **parameters: Any) -> None:
        """Replaces disks; the short names of modes are those of the options."""
        modes = {
            "-p": "replace_on_primary",
            "-s": "replace_on_secondary",
            "-n": "replace_new_secondary",
            "-a": "replace_auto",
        }
        self.assertIsNone(self.world.run(OP, instance_name=NAME, mode=modes[mode], **parameters))
        self.assertEqual(self.world.faults(), [])


#: What both nodes are asked before a mirror's volumes are replaced: a look at one disk.
LOOK = ("blockdev_find",) * 3


class InPlaceTests(ReplacingCase):
    """New volumes on one of the nodes."""

    def test_on_each_node(self) -> None:
        """Volumes of the same names, filled from the other node; the configuration stays."""
        for mode, target, other in (("-s", "node3", "node2"), ("-p", "node2", "node3")):
            self.renew()
            self.made()
            before = self.world.now
            self.replace(mode)
            self.assertWhole()
            self.assertIs(self.world.now.disks, before.disks)
            self.assertIs(self.world.now.instances, before.instances)
            self.assertEqual(self.where(), ["node2"])
            exchange = ("removechildren", "find", "find", "rename", "rename", "addchildren")
            self.assertEqual(
                self.made_calls(),
                [
                    *((other, "blockdev_find"), (target, "blockdev_find")) * 2,
                    (target, "vg_list"),
                    *((other, call) for call in LOOK * 2),
                    (target, "lv_list"),
                    *((target, "blockdev_create"),) * 4,
                    *((target, f"blockdev_{call}") for call in exchange * 2),
                    *(("node2", "blockdev_getmirrorstatus"),) * 2,
                    *(("node2", "blockdev_find"),) * 2,
                    *((target, "blockdev_remove"),) * 4,
                ],
            )

    def test_lines(self) -> None:
        """The log of real daemon 3.0.2."""
        self.made()
        self.replace("-s", disks=[1])
        self.assertEqual(
            [line for line in self.world.lines if "done" not in line],
            [
                f"Replacing disk(s) 1 for instance '{NAME}'",
                "Current primary node: node2",
                "Current secondary node: node3",
                "STEP 1/6 Check device existence",
                " - INFO: Checking disk/1 on node2",
                " - INFO: Checking disk/1 on node3",
                " - INFO: Checking volume groups",
                "STEP 2/6 Check peer consistency",
                " - INFO: Checking disk/1 consistency on node node2",
                "STEP 3/6 Allocate new storage",
                " - INFO: Adding storage on node3 for disk/1",
                "STEP 4/6 Changing drbd configuration",
                " - INFO: Detaching disk/1 drbd from local storage",
                " - INFO: Renaming the old LVs on the target node",
                " - INFO: Renaming the new LVs on the target node",
                " - INFO: Adding new mirror component on node3",
                "STEP 5/6 Sync devices",
                f" - INFO: Waiting for instance {NAME} to sync disks",
                f" - INFO: Instance {NAME}'s disks are in sync",
                "STEP 6/6 Removing old storage",
                " - INFO: Remove logical volumes for disk/1",
            ],
        )

    def test_data(self) -> None:
        """What is written before and meanwhile is on the new volumes in the end."""
        self.made()
        self.write("before")
        self.replace("-s")
        self.assertEqual(self.data("node3"), [("0", "before"), ("1", "before")])
        self.at_call("blockdev_addchildren", lambda: self.write("meanwhile"))
        self.replace("-p")
        for node in ("node2", "node3"):
            self.assertEqual(self.data(node), [("0", "meanwhile"), ("1", "meanwhile")])

    def test_early_release(self) -> None:
        """Old volumes go, and locks, before the wait."""
        self.made()
        held: list[Any] = []
        self.at_call("blockdev_getmirrorstatus", lambda: held.append(self.held()))
        self.replace("-s", early_release=True)
        self.assertWhole()
        self.assertEqual(held[0], {"instance": [NAME]})
        steps = [line for line in self.world.lines if line.startswith("STEP")]
        self.assertEqual(steps[4:], ["STEP 5/6 Removing old storage", "STEP 6/6 Sync devices"])

    def test_locks_while_waiting(self) -> None:
        """Nodes may be used by others meanwhile; as a resource that one may not that is filled."""
        self.made()
        held: list[Any] = []
        self.at_call("blockdev_getmirrorstatus", lambda: held.append(self.held()))
        self.replace("-s")
        filled = [self.world.now.node("node3").uuid]
        self.assertEqual(held[0], {"instance": [NAME], "node-res": filled})

    def test_volumes_are_gone(self) -> None:
        """Those of the secondary node, while the instance runs: they are named and made anew."""
        for mode in ("-s", "-a"):
            self.renew()
            self.made()
            self.throw("lose-lv", "node3", NAME, "1")
            missing = sorted(self.configured()["node3"] - self.volumes("node3"))
            self.assertEqual(len(missing), 2)
            self.replace(mode)
            self.assertIn(
                f" - INFO: Volumes missing on node3: {', '.join(missing)}", self.world.lines
            )
            self.assertWhole()
            self.assertEqual(self.where(), ["node2"])

    def test_node_came_back_empty(self) -> None:
        """The secondary node was installed anew: neither mirrors nor volumes are there."""
        for mode in ("-s", "-a"):
            self.renew()
            self.made()
            self.throw("lose-lv", "node3", NAME)
            self.throw("reboot", "node3")
            self.assertEqual(self.volumes("node3"), set())
            self.forget()
            self.replace(mode)
            self.assertWhole()
            self.assertEqual(self.data("node2"), self.data("node3"))

    def test_primary_lost_its_volumes(self) -> None:
        """An instance that is served by its secondary node gets them back while it runs."""
        for mode in ("-p", "-a"):
            self.renew()
            self.made()
            before = self.data("node3")
            self.throw("lose-lv", "node2", NAME)
            self.replace(mode)
            self.assertWhole()
            self.assertEqual(self.data("node2"), before)

    def test_down(self) -> None:
        """Disks that were down are down afterwards, of one that is marked offline too."""
        for state in ("down", "offline"):
            for mode in ("-s", "-p"):
                self.renew()
                self.made(up=False, admin_state=state)
                self.replace(mode)
                self.assertWhole(up=False)
                self.assertEqual(self.state(), (state, "admin", False, []))
                self.replace(mode, disks=[0])
                self.assertWhole(up=False)

    def test_up_by_itself(self) -> None:
        """An instance that runs although its disks are marked inactive keeps them."""
        self.made()
        self.modify(self.now().uuid, lambda now: replace(now, disks_active=False))
        self.replace("-s")
        self.assertTrue(self.now().disks_active)
        self.assertWhole()
        self.assertIn(
            f" - WARNING: Instance {NAME} is running, its disks are not shut down",
            self.world.lines,
        )

    def test_forthcoming(self) -> None:
        """There is nothing to replace yet."""
        self.made(up=False)
        self.modify(self.now().uuid, lambda now: replace(now, forthcoming=True))
        for mode in ("-s", "-p", "-a"):
            self.forget()
            self.replace(mode)
            self.assertEqual(self.made_calls(), [])
        self.assertEqual(self.world.lines, [f"No disks need replacement for instance '{NAME}'"])


class AutoTests(ReplacingCase):
    """The faulty half is found."""

    def test_nothing(self) -> None:
        """All is well: nothing is done, hooks run all the same."""
        self.made()
        self.replace("-a")
        self.assertEqual(
            self.made_calls(),
            [
                *(("node2", "blockdev_find"), ("node3", "blockdev_find")) * 2,
                ("node2", "blockdev_getmirrorstatus"),
                ("node3", "blockdev_getmirrorstatus"),
                ("node2", "lv_list"),
                ("node3", "lv_list"),
            ],
        )
        self.assertEqual(self.world.lines[-1], f"No disks need replacement for instance '{NAME}'")
        self.assertEqual(len(self.hook_variables()), 2)

    def test_each_side(self) -> None:
        """Only the disk that is faulty is replaced, and the log says which that is."""
        for node in ("node2", "node3"):
            self.renew()
            self.made()
            self.throw("lose-lv", node, NAME, "1")
            self.replace("-a")
            self.assertWhole()
            self.assertIn(f" - INFO: Faulty on {node}: disk/1", self.world.lines)
            self.assertIn(f"Replacing disk(s) 1 for instance '{NAME}'", self.world.lines)

    def test_down(self) -> None:
        """Disks that are down are made ready first; nothing, or something, is faulty then."""
        for state in ("down", "offline"):
            self.renew()
            self.made(up=False, admin_state=state)
            self.replace("-a")
            self.assertWhole(up=False)
            self.throw("lose-lv", "node3", NAME, "0")
            self.forget()
            self.replace("-a")
            self.assertIn(" - INFO: Faulty on node3: disk/0", self.world.lines)
            self.assertWhole(up=False)

    def test_syncing(self) -> None:
        """A half that is being filled is not faulty."""
        self.made()
        self.throw("sync-speed", "0.5")
        self.throw("detach", "node3", NAME)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.replace("-a")
        self.assertIn("No disks need replacement", self.world.lines[-1])


class NewSecondaryTests(ReplacingCase):
    """Another secondary node."""

    def test_named(self) -> None:
        """The calls of real daemon 3.0.2 and looks at the new node; primary, port, secret stay."""
        self.made()
        before = self.world.now.disks_of(self.now())
        serial = self.world.now.cluster.serial_no
        self.replace("-n", remote_node="node4")
        self.assertWhole()
        self.assertEqual(self.volumes("node3"), set())
        self.assertEqual(
            self.made_calls(),
            [
                ("node4", "node_info"),
                ("node4", "lv_list"),
                *(("node2", "blockdev_find"),) * 2,
                ("node4", "vg_list"),
                *(("node2", "blockdev_find"),) * 6,
                *(("node4", "blockdev_find"),) * 2,
                *(("node4", "blockdev_create"),) * 6,
                *(("node3", "blockdev_shutdown"),) * 2,
                ("node2", "drbd_disconnect_net"),
                ("node2", "drbd_attach_net"),
                ("node4", "drbd_attach_net"),
                *(("node2", "blockdev_getmirrorstatus"),) * 2,
                *(("node2", "blockdev_find"),) * 2,
                *(("node3", "blockdev_remove"),) * 4,
            ],
        )
        nodes = tuple(self.world.now.node(name).uuid for name in ("node2", "node4"))
        for old, new in zip(before, self.world.now.disks_of(self.now()), strict=True):
            one, other = old.logical_id or (), new.logical_id or ()
            self.assertEqual(other[:2], nodes)
            self.assertEqual((other[2], other[3], other[5]), (one[2], one[3], one[5]))
            self.assertEqual(new.nodes, nodes)
            self.assertEqual([child.nodes for child in new.children], [nodes, nodes])
            self.assertEqual(new.serial_no, old.serial_no + 1)
        self.assertEqual(self.world.now.cluster.serial_no, serial)
        self.assertEqual(self.where(), ["node2"])

    def test_after_a_failover(self) -> None:
        """A disk whose id names the primary node last: its minor is taken from there."""
        self.made(up=False)
        node3 = self.world.now.node("node3").uuid
        self.modify(self.now().uuid, lambda now: replace(now, primary_node=node3))
        self.replace("-n", remote_node="node4")
        self.assertWhole(up=False)
        self.assertEqual(sorted(self.configured()), ["node3", "node4"])

    def test_one_transaction(self) -> None:
        """All disks change at once."""
        self.made()
        seen: list[set[tuple[str, ...]]] = []
        self.world.store.on_change(
            lambda *_: seen.append(
                {disk.all_nodes() for disk in self.world.now.disks_of(self.now())}
            )
        )
        self.replace("-n", remote_node="node4")
        self.assertEqual([len(each) for each in seen], [1])

    def test_allocator(self) -> None:
        """A node of the group; the locks of the others are given back."""
        self.made()
        held: list[Any] = []
        self.at_call("blockdev_create", lambda: held.append(self.held()))
        self.replace("-n", iallocator="builtin")
        self.assertWhole()
        (new,) = set(self.configured()) - {"node2"}
        self.assertIn(
            f" - INFO: Selected new secondary for instance '{NAME}': {new}", self.world.lines
        )
        nodes = sorted(self.world.now.node(name).uuid for name in ("node2", "node3", new))
        filled = [self.world.now.node(new).uuid]
        self.assertEqual(held[0], {"instance": [NAME], "node": nodes, "node-res": filled})

    def test_secondary_is_lost(self) -> None:
        """The old secondary node is dead, or marked offline: what stays there is named."""
        self.made()
        self.throw("power", "node3", "off")
        self.set_offline("node3")
        self.replace("-n", remote_node="node4")
        lines = "\n".join(self.world.lines)
        self.assertIn("Old secondary node3 is offline, automatically enabling early", lines)
        for volume in self.strays()["node3"]:
            self.assertIn(f"Can't remove LV {volume} on node node3", lines)
        self.assertIn("Please cleanup this device manually", lines)
        self.assertWhole(strays={"node3": self.volumes("node3")})
        self.assertEqual(self.where(), ["node2"])

    def test_down(self) -> None:
        """Disks that were down are down afterwards."""
        for state in ("down", "offline"):
            self.renew()
            self.made(up=False, admin_state=state)
            self.replace("-n", remote_node="node4")
            self.assertWhole(up=False)
            self.assertEqual(self.state(), (state, "admin", False, []))

    def test_other_group(self) -> None:
        """Allowed, with a warning: nobody may have meant it."""
        self.made()
        self.world.run("OP_GROUP_ADD", group_name="other")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node4"], force=True)
        self.replace("-n", remote_node="node4")
        self.assertWhole()
        self.assertIn("node4 is in group other", "\n".join(self.world.lines))

    def test_minor_in_use(self) -> None:
        """A device that is up on the new node, though no disk has it, is left alone."""
        self.made()
        self.world.nodes.mirrors.allocate("node4", 0, 1)
        link = Link("198.51.100.4:1", "198.51.100.5:1", "secret")
        self.world.nodes.mirrors.connect("node4", 0, link)
        self.replace("-n", remote_node="node4")
        self.assertIn(
            " - WARNING: Minor 0 is in use on node node4, but no disk has it", self.world.lines
        )
        self.assertEqual(set(self.world.nodes.mirrors.of_node("node4")), {0, 1, 2})

    def test_forthcoming(self) -> None:
        """Only the configuration changes, with as many disks as there are."""
        self.made(up=False)
        self.modify(self.now().uuid, lambda now: replace(now, forthcoming=True))
        self.replace("-n", remote_node="node4")
        self.assertEqual(self.made_calls(), [])
        self.assertEqual(sorted(self.configured()), ["node2", "node4"])
        self.assertEqual(self.world.faults(), [])

    def test_there_and_back(self) -> None:
        """Minors, volumes and reservations are free again."""
        self.made()
        for node in ("node4", "node3", "node1", "node3"):
            self.replace("-n", remote_node=node)
            self.assertWhole()
