"""OP_INSTANCE_CONSOLE."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from tests.logical_units.instances.scene import NAME, InstanceScene

CONSOLE = "OP_INSTANCE_CONSOLE"

CONTROL = f"/var/run/ganeti/kvm-hypervisor/ctrl/{NAME}"


class ConsoleTests(InstanceScene):
    """How to reach consoles."""

    def console(self, hypervisor: str = "fake", **about: Any) -> dict[str, Any]:
        """Returns the console of a running instance, without the name in it."""
        self.renew(hypervisors=(hypervisor,))
        self.modify(
            self.world.now.cluster.uuid,
            lambda cluster: replace(cluster, ndparams={**cluster.ndparams, "ssh_port": 2222}),
        )
        self.make("plain", ("node2",), hypervisor=hypervisor, **about)
        self.run_on("node2", hypervisor=hypervisor)
        found: dict[str, Any] = self.world.run(CONSOLE, instance_name=NAME)
        self.assertEqual(self.world.faults(), [])
        self.assertEqual(found.pop("instance"), NAME)
        return found

    def ssh(self, *command: str) -> dict[str, Any]:
        """Returns the console that is a command on the primary node."""
        return {
            "kind": "ssh",
            "host": "node2",
            "port": 2222,
            "user": "root",
            "command": list(command),
        }

    def test_fake(self) -> None:
        """The fake hypervisor has none, and says so. Nothing that doesn't apply is told."""
        self.assertEqual(
            self.console(),
            {"kind": "msg", "message": "Console not available for fake hypervisor"},
        )
        self.assertEqual(
            self.calls, [("node2", "instance_list"), ("node2", "instance_console_info")]
        )

    def test_kvm(self) -> None:
        """The serial console goes before VNC, VNC before SPICE."""
        self.assertEqual(
            self.console("kvm", hvparams={"serial_console": True}),
            self.ssh(
                "/usr/lib/ganeti/tools/kvm-console-wrapper",
                "/usr/bin/socat",
                NAME,
                f"{CONTROL}.monitor",
                "STDIO,raw,echo=0,escape=0x1d",
                f"UNIX-CONNECT:{CONTROL}.serial",
            ),
        )
        vnc = {"serial_console": False, "vnc_bind_address": "0.0.0.0"}
        self.assertEqual(
            self.console("kvm", hvparams=vnc, network_port=11005),
            {"kind": "vnc", "host": "0.0.0.0", "port": 11005, "display": 5105},
        )
        spice = {"serial_console": False, "vnc_bind_address": "", "spice_bind": "127.0.0.1"}
        self.assertEqual(
            self.console("kvm", hvparams=spice, network_port=11005),
            {"kind": "spice", "host": "127.0.0.1", "port": 11005},
        )
        self.assertEqual(
            self.console("kvm", hvparams={"serial_console": False, "vnc_bind_address": ""}),
            {"kind": "msg", "message": f"No serial shell for instance {NAME}"},
        )

    def test_others(self) -> None:
        """Commands on the primary node, also under chroot, wherever the master is."""
        for hypervisor, command in (
            ("xen-pvm", ("/usr/lib/ganeti/tools/xen-console-wrapper", "xl", NAME)),
            ("xen-hvm", ("/usr/lib/ganeti/tools/xen-console-wrapper", "xl", NAME)),
            ("lxc", ("lxc-console", "-n", NAME)),
            ("chroot", ("chroot", f"/var/run/ganeti/chroot-hypervisor/{NAME}")),
        ):
            with self.subTest(hypervisor):
                params = {"xen_cmd": "xl"} if hypervisor.startswith("xen") else {}
                self.assertEqual(self.console(hypervisor, hvparams=params), self.ssh(*command))

    def test_not_running(self) -> None:
        """The state that is told is what its administrator wants of it."""
        for admin, state in (
            ("up", "ERROR_down"),
            ("down", "ADMIN_down"),
            ("offline", "ADMIN_offline"),
        ):
            self.renew()
            self.make("plain", ("node2",), admin_state=admin)
            self.assertFails(
                f"Instance {NAME} is not running (state {state})", CONSOLE, instance_name=NAME
            )

    def test_offline(self) -> None:
        """A node that is offline is refused before it is asked."""
        self.make("plain", ("node2",), up=True)
        self.set_offline("node2")
        self.assertRefused(
            "Can't use offline node: node2", "wrong_state", CONSOLE, instance_name=NAME
        )

    def test_node_fails(self) -> None:
        """A node that can't say is named."""
        self.make("plain", ("node2",), up=True)
        mend = self.break_call("instance_list")
        self.assertFails(
            "Can't get node information from node2: broken", CONSOLE, instance_name=NAME
        )
        mend()
        text = f"Can't get the console of instance '{NAME}' from node node2"
        mend = self.break_call("instance_console_info")
        self.assertFails(f"{text}: broken", CONSOLE, instance_name=NAME)
        mend()
        self.break_call("instance_console_info", kind="garbage", payload={})
        self.assertFails(f"{text}: it tells none", CONSOLE, instance_name=NAME)

    def test_locks(self) -> None:
        """The instance, shared with others; no hooks run."""
        self.make("plain", ("node2",), up=True)
        self.assertEqual(self.locks_of(CONSOLE, instance_name=NAME), {"instance": ([NAME], False)})
        self.world.run(CONSOLE, instance_name=NAME)
        self.assertEqual(self.hook_variables(), [])

    def test_killed(self) -> None:
        """A kill leaves nothing behind."""

        def prepare() -> None:
            self.renew()
            self.make("plain", ("node2",), up=True)

        killed = list(self.each_kill(prepare, CONSOLE, instance_name=NAME))
        self.assertEqual(killed, [0, 1, 2, 3])
