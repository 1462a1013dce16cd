"""OP_INSTANCE_CREATE: everything that is refused, before anything is changed."""

from __future__ import annotations

import socket
from typing import Any

from ganeti_masterd.errors import (
    ECODE_ENVIRON,
    ECODE_EXISTS,
    ECODE_INVAL,
    ECODE_NOENT,
    ECODE_NORES,
    ECODE_NOTUNIQUE,
    ECODE_RESOLVER,
    ECODE_STATE,
    OpPrereqError,
)
from ganeti_masterd.logical_units.instances import resolving
from tests.logical_units.instances.creation import NAME, CreationCase


class RefusalTests(CreationCase):
    """Texts and codes are the real daemon's, but where docs/differences.rst says so."""

    def test_arguments(self) -> None:
        """What makes no sense by itself."""
        refused: list[tuple[str, str, dict[str, Any]]] = [
            (
                "Forthcoming generation and commiting are mutually exclusive",
                ECODE_INVAL,
                {"forthcoming": True, "commit": True},
            ),
            (
                "Cannot do IP address check without a name check",
                ECODE_INVAL,
                {"ip_check": True},
            ),
            ("Invalid hostname 'a b'", ECODE_INVAL, {"instance_name": "a b"}),
            (
                "Instance 'web.example.com' is already in the cluster",
                ECODE_EXISTS,
                {"instance_name": "web.example.com"},
            ),
            (
                "Do not specify both, iallocator and node",
                ECODE_INVAL,
                {"iallocator": "hail"},
            ),
            (
                "A secondary node can only be given together with a primary node",
                ECODE_INVAL,
                {"pnode": ..., "snode": "node2"},
            ),
            (
                "The networked disk templates need a mirror node",
                ECODE_INVAL,
                {"template": "drbd", "snode": ...},
            ),
            (
                "The secondary node cannot be the primary node",
                ECODE_INVAL,
                {"template": "drbd", "snode": "node1"},
            ),
            ("Node 'node9' not known", ECODE_NOENT, {"pnode": "node9"}),
            (
                "Opportunistic locking is only available in combination with an instance allocator",
                ECODE_INVAL,
                {"opportunistic_locking": True},
            ),
            ("No guest OS or OS image specified", ECODE_INVAL, {"os_type": ...}),
            (
                "OS image must be an absolute path or a URL",
                ECODE_INVAL,
                {"os_type": ..., "osparams": {"os-image": "x.img"}},
            ),
            (
                "Selected hypervisor (kvm) not enabled in the cluster (fake)",
                ECODE_STATE,
                {"hypervisor": "kvm"},
            ),
            (
                "The following hypervisor parameters are global and cannot be customized at "
                "instance level, please modify them at cluster level: migration_mode",
                ECODE_INVAL,
                {"hvparams": {"migration_mode": "live"}},
            ),
            (
                "Invalid memory sizes: minmem (512) must not be larger than maxmem (128)",
                ECODE_INVAL,
                {"beparams": {"minmem": 512, "maxmem": 128}},
            ),
            (
                "Cannot assign multiple values to OS parameters. The following parameters are "
                "given in more than one visibility: fs",
                ECODE_INVAL,
                {"osparams": {"fs": "a"}, "osparams_secret": {"fs": "b"}},
            ),
            ("Missing disk size", ECODE_INVAL, {"disks": [{"mode": "rw"}]}),
            ("Invalid disk size 'big'", ECODE_INVAL, {"disks": [{"size": "big"}]}),
            ("Invalid disk size '0'", ECODE_INVAL, {"disks": [{"size": 0}]}),
            (
                "Missing provider for template 'ext'",
                ECODE_INVAL,
                {"template": "ext", "disks": [{"size": 64}]},
            ),
            (
                "The 'provider' option is only valid for the ext disk template, not plain",
                ECODE_INVAL,
                {"disks": [{"size": 64, "provider": "x"}]},
            ),
            (
                "Invalid name '5'. Purely numeric disk names are not allowed",
                ECODE_INVAL,
                {"disks": [{"size": 64, "name": "5"}]},
            ),
            (
                "disk name 'a' already used",
                ECODE_NOTUNIQUE,
                {"disks": [{"size": 64, "name": "a"}, {"size": 64, "name": "a"}]},
            ),
            (
                "Instance has too many disks (17 of at most 16)",
                ECODE_STATE,
                {"disks": [{"size": 4}] * 17},
            ),
            (
                "An instance without disks (template diskless) can't have disks",
                ECODE_INVAL,
                {"template": "diskless", "disks": [{"size": 4}]},
            ),
            (
                "Disks of the template plain have no 'access' parameter",
                ECODE_INVAL,
                {"disks": [{"size": 4, "access": "userspace"}]},
            ),
            (
                "Selected hypervisor (fake) cannot be used with userspace disk access param",
                ECODE_STATE,
                {"template": "rbd", "disks": [{"size": 4, "access": "userspace"}]},
            ),
            (
                "Spindles in instance disks cannot be specified when exclusive storage is not "
                "active",
                ECODE_INVAL,
                {"disks": [{"size": 64, "spindles": 2}]},
            ),
            (f"Instance {NAME} unknown", ECODE_INVAL, {"commit": True}),
            (
                "Compression tool not allowed, tools allowed are [gzip, gzip-fast, gzip-slow]",
                ECODE_INVAL,
                {"compress": "zip"},
            ),
            *(
                (
                    f"Invalid file storage directory '{path}': it must be below the cluster's, "
                    "and given relative to that",
                    ECODE_INVAL,
                    {"template": "file", "file_storage_dir": path},
                )
                for path in ("/tmp", "../x", "a/../../x", "..", "/")
            ),
        ]
        for text, code, more in refused:
            with self.subTest(text):
                self.assertRefused(text, code, **more)

    def test_types(self) -> None:
        """Parameters of no or the wrong type."""
        self.assertEqual(
            self.fails(disks=[{"size": 4, "pool": "x"}]).args, ("Unknown parameter 'pool'",)
        )
        self.assertEqual(self.fails(beparams={"x": 1}).args, ("Unknown parameter 'x'",))
        self.assertIn("is not supported", str(self.fails(hvparams={"vnc_tls": True}).args[0]))

    def test_cluster(self) -> None:
        """What the cluster doesn't allow."""
        cluster = self.world.now.cluster
        self.modify(
            cluster.uuid,
            enabled_disk_templates=("diskless", "file"),
            blacklisted_os=("demo",),
        )
        text = (
            "Disk template 'plain' is not enabled in cluster. Enabled disk templates are: "
            "diskless,file"
        )
        self.assertRefused(text, ECODE_INVAL)
        self.assertRefused(text, ECODE_INVAL, instance_name="web.example.com")
        self.assertRefused(
            "Guest OS 'demo+plain' is not allowed for installation",
            ECODE_STATE,
            "diskless",
            os_type="demo+plain",
        )
        self.modify(cluster.uuid, file_storage_dir="")
        self.assertRefused(
            "Cluster file storage dir for 'file' storage type not defined", ECODE_STATE, "file"
        )
        self.assertRefused(
            f"Instance '{NAME}' can't have instance communication: the cluster has no instance "
            "communication network",
            ECODE_STATE,
            "diskless",
            instance_communication=True,
        )
        self.modify(
            cluster.uuid, enabled_disk_templates=("plain", "diskless"), volume_group_name=None
        )
        self.assertRefused("Cluster does not support lvm-based instances", ECODE_STATE)

    def test_nodes(self) -> None:
        """Nodes that can't be used."""
        for field, word in (
            ("offline", "offline"),
            ("drained", "drained"),
            ("vm_capable", "non-vm_capable"),
        ):
            with self.subTest(word):
                self.renew()
                self.world.run(
                    "OP_NODE_SET_PARAMS", node_name="node4", **{field: field != "vm_capable"}
                )
                self.assertRefused(
                    f"Cannot use {word} primary node 'node4'", ECODE_STATE, pnode="node4"
                )
                text = {
                    "offline": "Can't use offline node: node4",
                    "drained": "Can't use drained node node4",
                    "vm_capable": "Can't use non-vm_capable node node4",
                }[field]
                self.assertRefused(text, ECODE_STATE, "drbd", snode="node4")

    def test_what_nodes_say(self) -> None:
        """Room, memory, operating systems, bridges."""
        self.assertRefused(
            "Not enough disk space on target node node1 vg altvg: required 4000 MiB, available "
            "1024 MiB",
            ECODE_NORES,
            disks=[{"size": 4000, "vg": "altvg"}],
        )
        self.assertRefused(
            "Can't compute free disk space on node node1 for vg novg, result was 'None'",
            ECODE_ENVIRON,
            disks=[{"size": 64, "vg": "novg"}],
        )
        error = self.fails(beparams={"memory": 100000}, ignore_ipolicy=True)
        self.assertIn("Not enough memory on node node1 for creating instance", str(error.args[0]))
        for os, text in (
            ("none", "Directory for OS none not found in search path"),
            ("demo", "OS name 'demo' must include a variant"),
            ("demo+x", "OS 'demo' does not support variant 'x'"),
        ):
            self.assertRefused(
                f"OS Parameters validation failed on node node1: {text}",
                ECODE_ENVIRON,
                os_type=os,
            )
        self.create(os_type="demo+x", force_variant=True, no_install=True)
        self.assertRefused(
            "Error checking bridges on destination node 'node1': Missing bridges br9",
            ECODE_ENVIRON,
            instance_name="second",
            nics=[{"mode": "bridged", "link": "br9"}],
        )

    def test_policy(self) -> None:
        """The instance policy of the primary's group, unless it is to be ignored."""
        error = self.fails("diskless", beparams={"memory": 1048576})
        self.assertIsInstance(error, OpPrereqError)
        self.assertIn("memory-size value 1048576 is not in range", str(error.args[0]))
        self.assertIn("violates policy", str(error.args[0]))
        group = next(iter(self.world.now.groups.values()))
        self.assertIn(f"group {group.uuid} (default)", str(error.args[0]))
        self.modify(group.uuid, ipolicy={"disk-templates": ["plain"]})
        self.assertIn("Disk template drbd is not allowed", str(self.fails("drbd").args[0]))
        self.create("drbd", ignore_ipolicy=True)

    def test_names(self) -> None:
        """Names that don't resolve, or to something else, and addresses in use."""
        self.patch(resolving, "resolve", lambda name, family: ("other.example.com", "192.0.2.9"))
        named = {"instance_name": "x", "name_check": True}
        self.assertRefused(
            "Resolved hostname 'other.example.com' does not look the same as given hostname 'x'",
            ECODE_INVAL,
            **named,
        )
        self.patch(resolving, "resolve", lambda name, family: (f"{name}.net", "192.0.2.9"))
        self.patch(resolving, "answers", lambda address: address == "192.0.2.9")
        self.assertRefused(
            "IP 192.0.2.9 of instance x.net already in use",
            ECODE_NOTUNIQUE,
            ip_check=True,
            **named,
        )
        self.create("diskless", **named)
        self.assertRefused(
            "Instance 'x.net' is already in the cluster", ECODE_EXISTS, "diskless", **named
        )

    def test_unresolvable(self) -> None:
        """The resolver's words are told."""

        def getaddrinfo(*_: Any) -> Any:
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        self.patch(socket, "getaddrinfo", getaddrinfo)
        self.assertRefused(
            "The given name (x.example) does not resolve: Temporary failure in name resolution",
            ECODE_RESOLVER,
            instance_name="x.example",
            name_check=True,
        )

    def test_allocator(self) -> None:
        """No place, and an allocator that isn't there."""
        error = self.fails(pnode=..., disks=[{"size": 99999999}], ignore_ipolicy=True)
        self.assertEqual(error.args[1], ECODE_NORES)
        self.assertIn("Can't compute nodes using iallocator", str(error.args[0]))
        self.assertIn("nosuch", str(self.fails(pnode=..., iallocator="nosuch").args[0]))

    def test_taken_meanwhile(self) -> None:
        """Of two creations of one name the second is refused once the first is done."""
        self.world.meanwhile.append(lambda: None)
        taken: list[Any] = []

        def other() -> None:
            taken.append(self.world.try_run("OP_INSTANCE_CREATE", **self.parameters("diskless")))

        self.world.at_hooks.append(other)
        self.create()
        self.assertEqual(taken, [None])
        self.assertEqual(len(self.world.now.disks_of(self.now())), 2)

    def test_warnings(self) -> None:
        """What is only warned of."""
        self.create("plain", snode="node2")
        self.assertIn(
            " - WARNING: Secondary node will be ignored on non-mirrored disk template",
            self.world.lines,
        )
        self.renew(nodes={"node1": "default", "node2": "default", "node3": "b", "node4": "b"})
        self.create("drbd")
        self.assertTrue(any("two different node groups" in line for line in self.world.lines))
