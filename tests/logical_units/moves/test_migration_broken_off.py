"""Migrations that end half-way: a call fails or is lost, the job is killed, the daemon is gone."""

from __future__ import annotations

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.state import SimulatedInstance
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.moving import MIGRATE, Crash, MovingScene


class BrokenScene(MovingScene):
    """Base: an instance with a mirror under KVM, where the memory takes some time."""

    def prepare(self) -> None:
        """Makes the cluster anew, with the instance on node2."""
        self.renew(description=Description(migration_speed=32.0))
        self.make(up=True, hypervisor="kvm")

    def crash_at(self, number: int) -> bool:
        """Has the daemon end at a call; returns whether the migration had come so far."""
        self.crash_after = number
        try:
            self.world.run(MIGRATE, instance_name=NAME)
        except Crash:
            return True
        finally:
            self.crash_after = None
        return False

    def clean_up(self) -> str:
        """Runs a cleanup; returns the node where the instance is then, all in order."""
        self.world.nodes.faults.clear()
        self.lost.clear()
        self.forget()
        self.move(MIGRATE, cleanup=True)
        primary = self.world.now.nodes[self.now().primary_node].name
        warned = any("network may be incomplete" in line for line in self.world.lines)
        self.assertWhole(primary, ended=not warned)
        self.assertIn("* done", self.world.lines)
        if warned:
            self.world.run("OP_INSTANCE_REBOOT", instance_name=NAME, reboot_type="hard")
            self.assertWhole(primary)
        return primary


class FailingCallTests(BrokenScene):
    """Each call of a migration fails."""

    def test_refused(self) -> None:
        """Before the memory is there all is taken back; afterwards a cleanup mends the disks."""
        ends: dict[tuple[str, str], str] = {}
        for node, procedure in self.each_call(self.prepare, MIGRATE):
            self.prepare()
            # Only the first call of its kind: the same is used to take things back.
            self.break_call(procedure, node, count=1)
            self.world.try_run(MIGRATE, instance_name=NAME)
            primary = self.world.now.nodes[self.now().primary_node].name
            ends[node, procedure] = primary
            running = self.where()
            if procedure not in (
                "instance_finalize_migration_src",
                "instance_finalize_migration_dst",
                "instance_get_migration_status",
            ):
                self.assertEqual(running, [primary], procedure)
            if primary == "node2" and len(running) == 1 and "finalize" not in procedure:
                self.assertWhole("node2")
            self.clean_up()
            self.move(MIGRATE)
            self.clean_up()
        moved = {each for each, primary in ends.items() if primary == "node3"}
        self.assertEqual(
            moved, {("node2", "blockdev_close"), ("node2", "instance_get_migration_status")}
        )

    def test_refused_always(self) -> None:
        """Also where nothing can be taken back with it, a cleanup mends all."""
        for node, procedure in self.each_call(self.prepare, MIGRATE):
            self.prepare()
            self.break_call(procedure, node)
            self.world.try_run(MIGRATE, instance_name=NAME)
            self.clean_up()
            self.move(MIGRATE)
            self.clean_up()

    def test_lost(self) -> None:
        """The node did what it was asked to."""
        for each in self.each_call(self.prepare, MIGRATE):
            self.prepare()
            self.lost.append(each)
            self.world.try_run(MIGRATE, instance_name=NAME)
            self.clean_up()
            self.move(MIGRATE)
            self.clean_up()

    def test_each_wait_for_mirrors(self) -> None:
        """The later calls of the same kind as well: mirrors are connected for one primary."""
        for procedure in ("drbd_disconnect_net", "drbd_attach_net", "drbd_wait_sync"):
            for node in ("node2", "node3"):
                for after in range(3):
                    self.prepare()
                    self.break_call(procedure, node, after=after, count=1)
                    self.world.try_run(MIGRATE, instance_name=NAME)
                    self.clean_up()

    def test_memory_fails(self) -> None:
        """The hypervisor gives up on the way."""
        self.prepare()
        throw(self.world.nodes, ["fail-migration", NAME, "60"])
        self.assertFails(
            f"Could not migrate instance {NAME}: hypervisor returned failure",
            MIGRATE,
            instance_name=NAME,
        )
        self.assertWhole("node2")
        self.assertIn("Migration failed, aborting", self.world.lines)
        self.assertIn("What it had done before was taken back", self.world.lines[-1])
        throw(self.world.nodes, ["fail-migration", NAME, "never"])
        self.move(MIGRATE)
        self.assertWhole("node3")

    def test_texts(self) -> None:
        """Each failure in the words of real daemon 3.0.2."""
        for procedure, node, text in (
            (
                "migration_info",
                "node2",
                "Failed fetching source migration information from node2: broken",
            ),
            ("blockdev_close", "node3", "Cannot close instance disks on node node3: broken"),
            ("drbd_disconnect_net", "node3", "Cannot disconnect disks node node3: broken"),
            ("drbd_attach_net", "node2", "Cannot change disks config on node node2: broken"),
            ("drbd_wait_sync", "node2", "Cannot resync disks on node node2: broken"),
            ("blockdev_open", "node3", "Cannot open instance disks on node node3: broken"),
            ("accept_instance", "node3", f"Could not pre-migrate instance {NAME}: broken"),
            ("instance_migrate", "node2", f"Could not migrate instance {NAME}: broken"),
            (
                "instance_finalize_migration_dst",
                "node3",
                "Could not finalize instance migration: node3: broken",
            ),
        ):
            self.prepare()
            self.break_call(procedure, node, count=1)
            self.assertFails(text, MIGRATE, instance_name=NAME)

    def test_disks_not_tidied(self) -> None:
        """After the move a failure is a warning that names the cleanup."""
        self.prepare()
        self.break_call("blockdev_close", "node2")
        self.move(MIGRATE)
        self.assertEqual(
            self.world.lines[-2:],
            [
                f" - WARNING: Instance {NAME} runs on node node3, but its disks are not as they "
                "should be: Cannot close instance disks on node node2: broken",
                f"      Hint: gnt-instance migrate --cleanup {NAME}",
            ],
        )
        self.assertEqual(self.clean_up(), "node3")

    def test_target_dies(self) -> None:
        """The target is gone in the middle; when it is back, a cleanup connects the mirror."""
        self.prepare()

        def die() -> None:
            if self.calls[-1][1] != "instance_get_migration_status":
                self.world.meanwhile.append(die)
                return
            throw(self.world.nodes, ["power", "node3", "off"])

        self.world.meanwhile.append(die)
        self.fails(MIGRATE, instance_name=NAME)
        self.assertEqual(self.where(), ["node2"])
        self.assertEqual(
            self.world.lines[-1],
            f"      Hint: To go on: gnt-instance migrate --cleanup {NAME}",
        )
        throw(self.world.nodes, ["power", "node3", "on"])
        self.assertEqual(self.clean_up(), "node2")

    def test_source_dies(self) -> None:
        """Nobody knows how far it was: nothing is ended; where it runs decides."""
        self.prepare()

        def die() -> None:
            if self.calls[-1][1] != "instance_get_migration_status":
                self.world.meanwhile.append(die)
                return
            throw(self.world.nodes, ["power", "node2", "off"])

        self.world.meanwhile.append(die)
        self.fails(MIGRATE, instance_name=NAME)
        self.assertTrue(any("it isn't known whether instance" in line for line in self.world.lines))
        self.assertNotIn(("node3", "instance_finalize_migration_dst"), self.calls)
        # A guest that waits for the rest of its memory ends when its sender is gone.
        self.crash("node3")
        self.world.run("OP_NODE_SET_PARAMS", node_name="node2", offline=True)
        self.assertIn(
            "does not seem to be running at all",
            self.fails(MIGRATE, instance_name=NAME, cleanup=True).args[0],
        )
        self.move("OP_INSTANCE_FAILOVER")
        self.assertEqual(self.where(), ["node3"])


class KilledMigrationTests(BrokenScene):
    """The job is killed, or the daemon."""

    def test_killed(self) -> None:
        """A kill at any checkpoint: all is taken back, or it has moved."""
        found = set()
        for moment in self.each_kill(self.prepare, MIGRATE, instance_name=NAME):
            primary = self.world.now.nodes[self.now().primary_node].name
            self.assertEqual(self.where(), [primary], moment)
            if primary == "node2":
                self.assertWhole("node2")
            else:
                self.assertEqual(self.clean_up(), "node3")
            found.add(primary)
        self.assertEqual(found, {"node2", "node3"})

    def test_killed_fake(self) -> None:
        """The same where the memory is sent at once."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)

        for moment in self.each_kill(prepare, MIGRATE, instance_name=NAME):
            primary = self.world.now.nodes[self.now().primary_node].name
            self.assertEqual(self.where(), [primary], moment)
            self.clean_up()

    def test_killed_shared(self) -> None:
        """The same for storage that all nodes reach."""

        def prepare() -> None:
            self.renew(description=Description(migration_speed=32.0))
            self.make("rbd", ("node2",), up=True, hypervisor="kvm")

        for moment in self.each_kill(prepare, MIGRATE, instance_name=NAME, target_node="node4"):
            primary = self.world.now.nodes[self.now().primary_node].name
            self.assertEqual(self.where(), [primary], moment)
            other = "node2" if primary == "node4" else "node4"
            self.move(MIGRATE, cleanup=True, target_node=other)
            self.assertEqual(self.where(), [primary], moment)

    def test_killed_in_postcopy(self) -> None:
        """From there no way leads back: it is put off until the instance has moved."""

        def prepare() -> None:
            self.renew(description=Description(migration_speed=16.0))
            self.make(up=True, hypervisor="kvm", hvparams={"migration_caps": "postcopy-ram"})

        switched = sending = 0
        for moment in self.each_kill(prepare, MIGRATE, instance_name=NAME):
            primary = self.world.now.nodes[self.now().primary_node].name
            self.assertEqual(self.where(), [primary], moment)
            if any("switched to postcopy" in line for line in self.world.lines):
                switched += 1
                self.assertEqual(primary, "node3", moment)
                sending += any("at the step: send the memory" in each for each in self.world.lines)
            self.clean_up()
        self.assertGreater(switched, 3)
        # Only just before the switch is heard of.
        self.assertLess(sending, 6)

    def test_killed_when_it_has_arrived(self) -> None:
        """The memory is there, but the job hasn't heard of that: the migration is finished."""
        self.prepare()
        self.break_call("instance_get_migration_status", "node2", count=5)

        def pass_time() -> None:
            if self.calls[-1][1] == "instance_migrate":
                self.world.clock.advance(60)
            else:
                self.world.meanwhile.append(pass_time)

        self.world.meanwhile.append(pass_time)
        self.fails(MIGRATE, instance_name=NAME)
        self.assertWhole("node3")
        self.assertTrue(
            any(
                f"the memory of instance {NAME} was on node3 already" in line
                for line in self.world.lines
            )
        )

    def test_crashes(self) -> None:
        """The daemon ends at any call: a cleanup leaves the instance whole, on one node."""
        found = set()
        for number in range(200):
            self.prepare()
            if not self.crash_at(number):
                break
            found.add(self.clean_up())
            self.move(MIGRATE)
            self.clean_up()
        self.assertGreater(number, 30)
        self.assertEqual(found, {"node2", "node3"})

    def test_crash_when_it_has_arrived(self) -> None:
        """Both nodes have the instance, but only the target has its newest memory."""
        self.prepare()
        self.move(MIGRATE)
        number = [name for _, name in self.calls].index("instance_finalize_migration_src")
        self.prepare()
        # Calls to several nodes count as one here.
        for less in range(number):
            self.prepare()
            self.assertTrue(self.crash_at(number - less))
            if self.calls[-1][1] == "instance_get_migration_status" and self.has_arrived():
                break
        self.assertEqual(self.where(), ["node2", "node3"])
        self.assertEqual(self.clean_up(), "node3")
        self.assertIn(
            "* memory has been sent, instance goes over to node3",
            self.world.lines,
        )
        self.assertNotIn("may be incomplete", "".join(self.world.lines))

    def has_arrived(self) -> bool:
        """Whether the source has sent all memory."""
        sent = self.world.nodes.world.cluster.migrations.get(NAME)
        return sent is not None and sent.percent(self.world.nodes.world.now()) >= 100

    def test_crashes_of_shared(self) -> None:
        """The same for storage that all nodes reach."""
        for number in range(200):
            self.renew(description=Description(migration_speed=32.0))
            self.make("rbd", ("node2",), up=True, hypervisor="kvm")
            self.crash_after = number
            try:
                self.move(MIGRATE, target_node="node4")
            except Crash:
                self.crash_after = None
            else:
                break
            primary = self.world.now.nodes[self.now().primary_node].name
            other = "node2" if primary == "node4" else "node4"
            self.move(MIGRATE, cleanup=True, target_node=other)
            primary = self.world.now.nodes[self.now().primary_node].name
            self.assertEqual(self.where(), [primary], number)
            self.assertEqual(self.world.faults(), [])


class CleanupTests(BrokenScene):
    """What a cleanup finds, and what it says."""

    def test_all_is_well(self) -> None:
        """The calls and the log of real daemon 3.0.2."""
        self.prepare()
        self.move(MIGRATE, cleanup=True)
        self.assertEqual(
            self.world.lines,
            [
                " - INFO: Not checking memory on the secondary node as instance will not be "
                "started",
                f"Migrating instance {NAME}",
                "* checking where the instance actually runs (if this hangs, the hypervisor might "
                "be in a bad state)",
                "* instance running on: node2",
                "* instance confirmed to be running on its primary node (node2)",
                "* closing instance disks on node node3",
                "* wait until resync is done",
                "* changing into standalone mode",
                "* changing disks into single-master mode",
                "* wait until resync is done",
                "* done",
            ],
        )
        self.assertEqual(
            self.made_calls(),
            [
                *[(f"node{number}", "instance_list") for number in (1, 2, 3, 4)],
                ("node3", "blockdev_close"),
                *[
                    (node, procedure)
                    for procedure in (
                        "drbd_wait_sync",
                        "drbd_disconnect_net",
                        "drbd_attach_net",
                        "drbd_wait_sync",
                    )
                    for node in ("node2", "node3")
                ],
            ],
        )
        self.assertWhole("node2")

    def test_disks_said_to_be_down(self) -> None:
        """The cleanup of one that runs brings up its mirrors, and records that they are."""
        self.make(up=True, hypervisor="kvm")
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME, force=True)
        self.assertFalse(self.now().disks_active)
        self.move(MIGRATE, cleanup=True)
        self.assertWhole("node2")

    def test_nowhere(self) -> None:
        """An instance that doesn't run isn't guessed about."""
        self.prepare()
        self.crash()
        self.assertFails(
            "Instance does not seem to be running at all; in this case it's safer to repair by "
            "running 'gnt-instance stop' to ensure disk shutdown, and then restarting it",
            MIGRATE,
            instance_name=NAME,
            cleanup=True,
        )
        self.assertIn("* instance running on: ", self.world.lines)

    def test_elsewhere(self) -> None:
        """A node without its disks can't be its own."""
        self.prepare()
        self.crash()
        self.run_on("node4", hypervisor="kvm")
        self.assertFails(
            "Instance runs on node node4, which has none of its disks; you will have to stop it "
            "there manually and restart this operation",
            MIGRATE,
            instance_name=NAME,
            cleanup=True,
        )

    def test_elsewhere_shared(self) -> None:
        """Where all nodes reach its disks, the one on which it runs is taken."""
        self.renew()
        self.make("sharedfile", ("node2",), up=True)
        self.crash()
        self.run_on("node4")
        self.move(MIGRATE, cleanup=True)
        self.assertEqual(self.now().primary_node, self.world.now.node("node4").uuid)
        self.assertIn(
            "* instance running on unexpected node (node4), updating as the new secondary",
            self.world.lines,
        )
        self.assertIn(("node2", "blockdev_close"), self.calls)

    def test_shared_without_a_target(self) -> None:
        """It is confirmed on its node; no allocator is asked."""
        self.renew()
        self.make("sharedfile", ("node2",), up=True)
        self.move(MIGRATE, cleanup=True)
        self.assertEqual(self.where(), ["node2"])
        self.assertIn("No other node is known on which", "".join(self.world.lines))

    def test_shared_on_two_nodes(self) -> None:
        """The other node on which it runs is found, whichever was named."""
        for named in ({}, {"target_node": "node3"}):
            self.renew()
            self.make("sharedfile", ("node2",), up=True)
            self.run_on("node4")
            self.move(MIGRATE, cleanup=True, **named)
            self.assertEqual(self.where(), ["node2"])
            self.assertIn("Trying to cleanup after failed migration", self.world.lines)
            self.assertIn(("node4", "blockdev_close"), self.calls)

    def test_shared_on_three_nodes(self) -> None:
        """Which of them is the other end isn't guessed."""
        self.renew()
        self.make("sharedfile", ("node2",), up=True)
        self.run_on("node3")
        self.run_on("node4")
        error = self.fails(MIGRATE, instance_name=NAME, cleanup=True, target_node="node3")
        self.assertIn("running on several nodes besides its own", error.args[0])
        self.assertEqual(self.where(), ["node2", "node3", "node4"])

    def test_node_not_reached(self) -> None:
        """Nothing is decided without one of its nodes; others can't have its disks."""
        self.prepare()
        mend = self.break_call("instance_list", "node3")
        self.assertFails(
            "Can't contact node node3: broken", MIGRATE, instance_name=NAME, cleanup=True
        )
        mend()
        self.break_call("instance_list", "node4")
        self.move(MIGRATE, cleanup=True)
        self.assertIn(" - WARNING: Can't contact node node4: broken", self.world.lines)
        self.assertWhole("node2")

    def test_old_primary_is_dead(self) -> None:
        """It arrived on the target, then the source died: the target is its node."""
        self.prepare()
        self.lose_the_end()
        throw(self.world.nodes, ["power", "node2", "off"])
        self.set_offline("node2")
        self.move(MIGRATE, cleanup=True)
        self.assertEqual(self.now().primary_node, self.world.now.node("node3").uuid)
        self.assertEqual(self.where(), ["node3"])
        self.assertIn("Node node2 is offline; what it has", "".join(self.world.lines))

    def lose_the_end(self) -> None:
        """Breaks a migration off when the source has let go of the instance."""
        self.break_call("instance_finalize_migration_dst", "node3", count=1)
        self.fails(MIGRATE, instance_name=NAME)
        self.forget()

    def test_ended_on_one_side(self) -> None:
        """The target has it, and may lack what it needs after that: the log says so."""
        self.prepare()
        self.lose_the_end()
        self.assertEqual(self.clean_up(), "node3")
        self.assertIn(
            "* instance running on secondary node (node3), updating config", self.world.lines
        )
        self.assertIn("network may be incomplete until it is rebooted", "".join(self.world.lines))

    def test_on_both_but_not_moving(self) -> None:
        """A copy on the secondary that isn't the end of a migration goes, its primary stays."""
        self.prepare()
        held = self.world.nodes.node("node2").state.instances[NAME]
        self.run_on("node3", hypervisor="kvm")
        self.assertIsInstance(held, SimulatedInstance)
        self.assertEqual(self.clean_up(), "node2")

    def check_nodes(self, procedure: str) -> None:
        """Here an instance may run twice: a test has done that."""

    def test_source_does_not_say(self) -> None:
        """Both have it, and the source doesn't say how far it was: nothing is ended."""
        self.prepare()
        self.run_on("node3", hypervisor="kvm")
        self.break_call("instance_get_migration_status", "node2")
        error = self.fails(MIGRATE, instance_name=NAME, cleanup=True)
        self.assertIsInstance(error, OpExecError)
        self.assertIn("nothing is ended", error.args[0])
        self.assertEqual(self.where(), ["node2", "node3"])
