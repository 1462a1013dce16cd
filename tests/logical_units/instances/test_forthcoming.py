"""OP_INSTANCE_CREATE with forthcoming and commit: an instance is planned, and made later."""

from __future__ import annotations

from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, OpPrereqError
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.instances.creation import NAME, CreationCase

NICS = [{"network": "net1", "ip": "pool", "name": "front"}, {"mode": "bridged", "link": "br0"}]


class ForthcomingTests(CreationCase):
    """Plans, and what becomes of them."""

    def plan(self, template: str = "drbd", **more: object) -> None:
        """Plans an instance with NICs."""
        more.setdefault("nics", NICS)
        self.create(template, forthcoming=True, **more)

    def test_planned(self) -> None:
        """A plan holds names, addresses, ports and minors, and nothing is on nodes."""
        held = self.holdings()
        self.plan()
        self.assertEqual(self.holdings(), held)
        made = self.now()
        self.assertTrue(made.forthcoming)
        self.assertEqual([disk.forthcoming for disk in self.world.now.disks_of(made)], [True] * 2)
        self.assertEqual(self.accounts()["ports"], [11000, 11001, 11002])
        self.assertEqual(self.own_addresses(), "00100000")
        self.assertEqual(
            self.world.lines[-4:],
            [
                "Instance is forthcoming, not creating disks",
                f"adding instance {NAME} to cluster config",
                "adding disks to cluster config",
                "Instance is forthcoming; not creating the actual instance",
            ],
        )

    def test_committed(self) -> None:
        """All that was planned is kept, and made; everything else is as is said now."""
        givens: tuple[list[dict[str, str]], ...] = ([], [{}])
        for nics in givens:
            for disks in ([], [{"size": 64}, {"size": 128}]):
                self.renew()
                self.plan()
                plan, planned = self.now(), self.world.now.disks_of(self.now())
                accounts = self.accounts()
                result = self.create(
                    "drbd",
                    commit=True,
                    nics=nics,
                    disks=disks,
                    tags=["late"],
                    pnode=...,
                    snode=...,
                    iallocator="hail",
                )
                self.assertEqual(result, ["node1", "node4"])
                made, disks_now = self.now(), self.world.now.disks_of(self.now())
                self.assertEqual(made.uuid, plan.uuid)
                self.assertIsNone(made.forthcoming)
                self.assertGreater(made.serial_no, plan.serial_no)
                self.assertEqual((made.nics, made.tags), (plan.nics, ("late",)))
                self.assertEqual(
                    [(one.uuid, one.logical_id, one.forthcoming) for one in disks_now],
                    [(one.uuid, one.logical_id, None) for one in planned],
                )
                self.assertEqual(self.accounts(), accounts)
                self.assertEqual(made.admin_state, "up")
                self.assertIn(
                    f" - INFO: Nodes of instance {NAME}: ['node1', 'node4']", self.world.lines
                )
                self.assertNotIn("iallocator_runner", [call for call, _ in self.made()])

    def test_other_things(self) -> None:
        """What is dropped from a plan goes back to its pool."""
        self.plan()
        before = self.world.now.disks_of(self.now())
        self.create(
            "drbd",
            commit=True,
            nics=[{"network": "net1", "ip": "192.0.2.4"}],
            disks=[{"size": 256}],
        )
        made = self.now()
        self.assertEqual(
            [
                (nic.ip, nic.name, nic.mac == plan_mac)
                for nic, plan_mac in zip(made.nics, [made.nics[0].mac], strict=True)
            ],
            [("192.0.2.4", "front", True)],
        )
        self.assertEqual(self.own_addresses(), "00001000")
        (disk,) = self.world.now.disks_of(made)
        self.assertEqual(disk.size, 256)
        self.assertNotIn(disk.uuid, [one.uuid for one in before])
        self.assertEqual(len(self.accounts()["ports"]), 2)
        self.assertEqual(self.accounts()["ports"][0], 11000)

    def test_refusals(self) -> None:
        """Other nodes or another template than planned; and what isn't planned."""
        self.plan()
        self.assertRefused(
            f"Forthcoming instance {NAME} is not planned on node node2",
            ECODE_INVAL,
            "drbd",
            commit=True,
            pnode="node2",
        )
        self.assertRefused(
            f"Forthcoming instance {NAME} has disks of the template drbd, not plain",
            ECODE_INVAL,
            "plain",
            commit=True,
        )
        self.create("drbd", commit=True)
        uuid = self.now().uuid
        self.assertRefused(
            f"Instance {NAME} (with uuid {uuid}) not forthcoming but --commit was passed.",
            ECODE_STATE,
            "drbd",
            commit=True,
        )

    def test_planned_anew(self) -> None:
        """A plan that has other nodes by the time that it is locked is refused."""
        self.plan("plain")
        op = {"OP_ID": "OP_INSTANCE_CREATE", **self.parameters("plain", commit=True, pnode=...)}
        unit = unit_for(decode_opcode(op))
        assert unit is not None
        unit.expand(self.world.now)
        self.modify(self.now().uuid, primary_node=self.world.now.node("node2").uuid)
        for disk in self.now().disks:
            self.modify(disk, nodes=(self.world.now.node("node2").uuid,))
        ctx = SynchronousContext(self.world.now, self.world.nodes)
        error = self.assertRaises(OpPrereqError, unit.check, ctx)
        text = f"Nodes of instance {NAME} changed since locks were acquired; retry the operation"
        self.assertEqual(error.args, (text, ECODE_STATE))

    def test_half_way(self) -> None:
        """A commit that fails or is killed leaves the plan as it was."""
        for call in ("blockdev_create", "blockdev_getmirrorstatus"):
            self.renew()
            self.plan()
            plan = (self.now().nics, [one.uuid for one in self.world.now.disks_of(self.now())])
            held, accounts = self.holdings(), self.accounts()
            self.break_call(call, "node1")
            self.fails(
                "drbd",
                commit=True,
                disks=[{"size": 256}],
                nics=[{"network": "net1", "ip": "192.0.2.4"}],
            )
            self.assertEqual((self.holdings(), self.accounts()), (held, accounts))
            now = self.now()
            self.assertTrue(now.forthcoming)
            self.assertEqual((now.nics, list(now.disks)), plan)
        for _ in self.each_kill("drbd", commit=True):
            now = self.now()
            if now.forthcoming:
                self.assertEqual((self.holdings(), self.accounts()), self.before)
                self.assertEqual(
                    [disk.forthcoming for disk in self.world.now.disks_of(now)], [True, True]
                )

    def prepare(self) -> None:
        """Plans an instance, for kills."""
        self.plan()
        self.before = self.holdings(), self.accounts()
