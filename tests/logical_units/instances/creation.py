"""A small cluster on which instances are made, and what is looked at afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.addresspool import new_pool
from ganeti_masterd.config.objects import Instance, Network
from ganeti_masterd.config.templates import TEMPLATES
from ganeti_masterd.errors import GenericError
from ganeti_masterd.simulation.description import DescribedNode, DescribedVolume, Description
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.node import Failing, OSDefinition, StorageProvider
from ganeti_masterd.simulation.state import Hardware, PhysicalVolume, VolumeGroup
from tests.logical_units.world import Refused, World

NAME = "db.example.com"

#: Networks that the group is connected to, and one that it isn't.
NETWORK = "net1"
FOREIGN = "net2"

SYSTEMS = (
    OSDefinition("noop", api_versions=(5, 10)),
    OSDefinition(
        "demo",
        variants=("plain", "fancy"),
        parameters=(("fs", ""), ("dhcp", ""), ("root_pw", "")),
        fails=(Failing("create", "fs", ("boom",), exit_code=3, output="told to fail"),),
        writes="{os} {variant} {instance} {root_pw}",
    ),
)
HARDWARE = Hardware(
    groups=(
        VolumeGroup("xenvg", (PhysicalVolume("/dev/sda2", 1048576),)),
        VolumeGroup("altvg", (PhysicalVolume("/dev/sdb", 1024),)),
    ),
    bridges=("br0", "br1"),
)
VOLUMES = (
    DescribedVolume("xenvg", "adoptee", 96),
    DescribedVolume("xenvg", "other", 32),
)
#: Directories that stay once there was a file in one.
BASES = {"/srv", "/srv/ganeti", "/srv/ganeti/file-storage"}

#: How many checkpoints or calls are tried before a test says that there is no end.
MOST = 200


class CreationCase(SynchronousTestCase):
    """Base: a world whose calls to nodes are written down, with two networks."""

    def setUp(self) -> None:
        self.renew()

    def renew(self, **settings: Any) -> None:
        """Starts anew; ``settings`` are those of a new cluster."""
        systems = (*SYSTEMS, *settings.pop("systems", ()))
        description = Description(
            default=DescribedNode(hardware=HARDWARE, volumes=VOLUMES),
            systems=systems,
            providers=(StorageProvider("filestore"),),
            **settings.pop("described", {}),
        )
        settings.setdefault("disk_templates", sorted(TEMPLATES))
        self.world = World(description=description, **settings)
        self.calls: list[tuple[str, str, Any]] = []
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, arguments: Any = (), **options: Any) -> Any:
            for target in targets:
                sent = arguments(target) if callable(arguments) else arguments
                self.calls.append((procedure, target.name, sent))
            return inner(targets, procedure, arguments, **options)

        self.world.nodes.call = call  # type: ignore[method-assign]
        self.modify(self.world.now.cluster.uuid, default_iallocator="")
        self.add_network(NETWORK, "192.0.2.0/29", connected=True)
        self.add_network(FOREIGN, "203.0.113.0/29", connected=False)

    def modify(self, uuid: str, **fields: Any) -> None:
        """Changes an object of the configuration."""
        self.world.store.change(uuid, lambda now: replace(now, **fields))

    def add_network(self, name: str, subnet: str, *, connected: bool) -> None:
        """Adds a network; connects the only group to it."""
        self.world.run("OP_NETWORK_ADD", network_name=name, network=subnet)
        if connected:
            self.world.run(
                "OP_NETWORK_CONNECT",
                group_name="default",
                network_name=name,
                network_mode="routed",
                network_link="tab9",
            )

    def network(self, name: str = NETWORK) -> Network:
        """Returns a network as it is."""
        return self.world.now.network(name)

    def own_addresses(self, name: str = NETWORK) -> str:
        """Returns which addresses of a network instances have."""
        network = self.network(name)
        return network.reservations or new_pool(network.network).map

    def parameters(self, template: str = "plain", **more: Any) -> dict[str, Any]:
        """Returns the parameters of an opcode that makes an instance."""
        found: dict[str, Any] = {
            "instance_name": NAME,
            "mode": "create",
            "disk_template": template,
            "disks": [] if template == "diskless" else [{"size": 64}, {"size": 128}],
            "nics": [],
            "os_type": "noop",
            "name_check": False,
            "ip_check": False,
            "pnode": "node1",
        }
        if template == "drbd":
            found["snode"] = "node4"
        if template == "ext":
            found["disks"] = [{"size": 64, "provider": "filestore", "pool": "gold"}]
        found.update(more)
        return {key: value for key, value in found.items() if value is not ...}

    def create(self, template: str = "plain", **more: Any) -> list[str]:
        """Makes an instance; nothing is left over. Returns the result."""
        self.calls.clear()
        self.world.lines.clear()
        result: list[str] = self.world.run(
            "OP_INSTANCE_CREATE", **self.parameters(template, **more)
        )
        self.assertEqual(self.world.faults(), [])
        return result

    def fails(self, template: str = "plain", **more: Any) -> GenericError:
        """Returns the error with which a creation ends."""
        self.calls.clear()
        self.world.lines.clear()
        refused: Refused = self.assertRaises(
            Refused, self.world.run, "OP_INSTANCE_CREATE", **self.parameters(template, **more)
        )
        self.assertEqual(self.world.faults(), [])
        return refused.error

    def assertRefused(self, text: str, code: str | None, /, *args: Any, **more: Any) -> None:
        """Expects a refusal with this text and code, before anything was changed."""
        before, held = self.world.now, self.holdings()
        error = self.fails(*args, **more)
        self.assertEqual(error.args, (text,) if code is None else (text, code))
        self.assertIs(self.world.now, before)
        self.assertEqual(self.holdings(), held)

    def now(self, name: str = NAME) -> Instance:
        """Returns the instance as it is configured."""
        return self.world.now.instance(name)

    def holdings(self) -> dict[str, Any]:
        """Returns what is on nodes: devices, directories, instances that run."""
        return {
            node.name: (
                sorted(state.devices),
                sorted(set(state.directories) - BASES),
                sorted(state.instances),
            )
            for node in self.world.now.nodes.values()
            for state in [self.world.nodes.node(node.name).state]
        }

    def accounts(self) -> dict[str, Any]:
        """Returns what the configuration accounts for: ports, addresses, disks, instances."""
        now = self.world.now
        cluster = now.cluster
        free = set(cluster.tcpudp_port_pool)
        used = set(range(11000, cluster.highest_used_port + 1)) - free
        return {
            "ports": sorted(used),
            "addresses": {one.name: one.reservations for one in now.networks.values()},
            "disks": sorted(now.disks),
            "instances": sorted(now.instances),
        }

    def made(self) -> list[tuple[str, str]]:
        """Returns procedure and node of the calls so far, without those for the configuration."""
        return [
            (procedure, node)
            for procedure, node, _ in self.calls
            if procedure not in ("hooks_runner", "write_ssconf_files", "upload_file")
        ]

    def sent(self, procedure: str) -> list[Any]:
        """Returns the arguments of all calls of a procedure."""
        return [arguments for name, _, arguments in self.calls if name == procedure]

    def break_call(self, call: str, node: str | None = None, **about: Any) -> Callable[[], object]:
        """Makes a call fail; returns what mends it."""
        settings: dict[str, Any] = {"kind": "error", "text": "broken", **about}
        return self.world.nodes.faults.add(SimulatedFault(call=call, node=node, **settings))

    def hook_variables(self, phase: str) -> dict[str, str]:
        """Returns what the opcode's hooks are told before or after it, without the prefix."""
        prefix = "GANETI_POST_" if phase == "post" else "GANETI_"
        (found,) = {
            tuple(sorted(arguments[2].items()))
            for arguments in self.sent("hooks_runner")
            if arguments[0] == "instance-add" and arguments[1] == phase
        }
        return {key.removeprefix(prefix): value for key, value in found if key.startswith(prefix)}

    def each_kill(self, template: str = "plain", **more: Any) -> Iterator[int]:
        """Makes an instance again and again, killed one checkpoint later each time.

        Yields after each kill; ends when the instance is made.
        """
        for moment in range(MOST):
            self.renew()
            self.prepare()
            self.world.kill_after = moment
            self.world.lines.clear()
            self.calls.clear()
            try:
                self.world.run("OP_INSTANCE_CREATE", **self.parameters(template, **more))
            except Refused as refused:
                self.assertIn("was killed", str(refused.error.args[0]))
                self.assertEqual(self.world.faults(), [], f"after checkpoint {moment}")
                yield moment
            else:
                self.assertGreater(moment, 10)
                return
        raise self.failureException("it never ends")

    def prepare(self) -> None:
        """Does what a creation needs, after each new beginning."""
