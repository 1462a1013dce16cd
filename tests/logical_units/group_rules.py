"""Rules of the state machine about node groups, networks, and the instances that use them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ganeti_masterd.allocation import builtin
from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.changes import Add, Change, Remove, Update
from ganeti_masterd.config.objects import Nic
from ganeti_masterd.config.reservations import with_ports
from ganeti_masterd.locking.levels import Level
from tests.logical_units.cluster import with_instance
from tests.logical_units.world import MustWait, Refused, World

groups = st.sampled_from(["default", "other", "third", "nosuch"])
networks = st.sampled_from(["lan", "wan", "nosuch"])
subnets = st.sampled_from(["203.0.113.0/28", "198.51.100.0/24", "10.0.0.0/8"])
addresses = st.sampled_from([f"203.0.113.{last}" for last in (0, 1, 2, 9, 15)] + ["10.0.0.1"])
some_addresses = st.one_of(st.none(), st.lists(addresses, max_size=3))
some_places = st.lists(st.integers(0, 20), max_size=3)

group_parameters = st.fixed_dictionaries(
    {},
    optional={
        "alloc_policy": st.sampled_from(["preferred", "last_resort", "unallocable"]),
        "ndparams": st.sampled_from([{"spindle_count": "2"}, {"nosuch": 1}, {"ssh_port": "x"}]),
        "diskparams": st.sampled_from([{"plain": {"stripes": 2}}, {"rbd": {"access": "pink"}}]),
        "ipolicy": st.sampled_from([{"vcpu-ratio": 2}, {"disk-templates": ["rbd"]}, {"x": 1}]),
        "hv_state": st.sampled_from([{"fake": {"cpu_total": 4}}, {"nosuch": {}}]),
    },
)


class GroupRules:
    """Changes groups, networks and connections, while instances are added and removed."""

    world: World

    def nodes_at(self, places: list[int]) -> list[str]:
        """Returns names of nodes by their places; some may not exist."""
        present = sorted(node.name for node in self.world.now.nodes.values())
        return [[*present, "nosuch"][place % (len(present) + 1)] for place in places]

    def attempt(self, op_id: str, *, changed: bool = False, **parameters: Any) -> None:
        """Runs an opcode; checks that a refused one changes nothing, unless others did."""
        before = self.world.now
        try:
            self.world.run(op_id, **parameters)
        except (Refused, MustWait):
            assert changed or self.world.now is before, "refused, yet changed"
        finally:
            self.world.meanwhile = []
            self.world.at_hooks = []

    @rule(name=groups, parameters=group_parameters)
    def add_group(self, name: str, parameters: dict[str, Any]) -> None:
        self.attempt("OP_GROUP_ADD", group_name=name, **parameters)

    @rule(name=groups)
    def remove_group(self, name: str) -> None:
        self.attempt("OP_GROUP_REMOVE", group_name=name)

    @rule(name=groups, new=groups)
    def rename_group(self, name: str, new: str) -> None:
        self.attempt("OP_GROUP_RENAME", group_name=name, new_name=new)

    @rule(name=groups, parameters=group_parameters)
    def modify_group(self, name: str, parameters: dict[str, Any]) -> None:
        self.attempt("OP_GROUP_SET_PARAMS", group_name=name, **parameters)

    @rule(name=groups, places=some_places, force=st.booleans())
    def assign_nodes(self, name: str, places: list[int], force: bool) -> None:
        nodes = self.nodes_at(places)
        self.attempt("OP_GROUP_ASSIGN_NODES", group_name=name, nodes=nodes, force=force)

    @rule(
        name=networks,
        subnet=subnets,
        gateway=st.one_of(st.none(), addresses),
        kept=some_addresses,
        check=st.booleans(),
    )
    def add_network(
        self, name: str, subnet: str, gateway: str | None, kept: list[str] | None, check: bool
    ) -> None:
        self.attempt(
            "OP_NETWORK_ADD",
            network_name=name,
            network=subnet,
            gateway=gateway,
            add_reserved_ips=kept,
            conflicts_check=check,
        )

    @rule(name=networks)
    def remove_network(self, name: str) -> None:
        self.attempt("OP_NETWORK_REMOVE", network_name=name)

    @rule(
        name=networks,
        gateway=st.one_of(st.none(), addresses),
        more=some_addresses,
        fewer=some_addresses,
    )
    def modify_network(
        self, name: str, gateway: str | None, more: list[str] | None, fewer: list[str] | None
    ) -> None:
        before = {network.name: network for network in self.world.now.networks.values()}
        self.attempt(
            "OP_NETWORK_SET_PARAMS",
            network_name=name,
            gateway=gateway,
            add_reserved_ips=more,
            remove_reserved_ips=fewer,
        )
        for network in self.world.now.networks.values():
            pool = pool_of(network)
            assert network.gateway is None or pool.is_external(network.gateway)
            assert name == network.name or network == before[network.name]

    @rule(name=networks, group=groups, check=st.booleans())
    def connect_network(self, name: str, group: str, check: bool) -> None:
        self.attempt(
            "OP_NETWORK_CONNECT",
            network_name=name,
            group_name=group,
            network_mode="bridged",
            network_link="br0",
            conflicts_check=check,
        )

    @rule(name=networks, group=groups)
    def disconnect_network(self, name: str, group: str) -> None:
        self.attempt("OP_NETWORK_DISCONNECT", network_name=name, group_name=group)

    @rule(place=st.integers(0, 20), name=networks)
    def meanwhile_network(self, place: int, name: str) -> None:
        """Connects a network while hooks of another opcode about it run."""
        group = sorted(one.name for one in self.world.now.groups.values())
        self.world.at_hooks = [
            lambda: self.world.try_run(
                "OP_NETWORK_CONNECT",
                network_name=name,
                group_name=group[place % len(group)],
                network_mode="routed",
                network_link="x",
            )
        ]
        self.attempt("OP_NETWORK_REMOVE", changed=True, network_name=name)

    @rule(name=groups, places=some_places, other=groups)
    def meanwhile_group(self, name: str, places: list[int], other: str) -> None:
        """Assigns nodes to a group while hooks of its removal run."""
        nodes = self.nodes_at(places)
        self.world.at_hooks = [
            lambda: self.world.try_run(
                "OP_GROUP_ASSIGN_NODES", group_name=other, nodes=nodes, force=True
            )
        ]
        self.attempt("OP_GROUP_REMOVE", changed=True, group_name=name)

    @rule(places=some_places, template=st.sampled_from(["drbd", "file", "diskless"]))
    def put_instance(self, places: list[int], template: str) -> None:
        """Adds or moves the one instance, in the first network of its group."""
        now = self.world.now
        count = 2 if template == "drbd" else 1
        nodes = [name for name in dict.fromkeys(self.nodes_at(places)) if name != "nosuch"]
        if len(nodes) < count:
            return
        reached = now.group_of(now.node(nodes[0])).networks
        nics = [Nic(mac="aa:00:00:00:00:01", uuid="nic", network=uuid) for uuid in reached][:1]
        old = now.lookup("instance", "db")
        bare = now if old is None else now.without("instances", old.uuid)
        own = old.disks if old is not None else ()
        for uuid in own:
            bare = bare.without("disks", uuid)
        after = with_instance(bare, "db", nodes[:count], template=template, nics=nics)
        new = after.instance("db")
        if old is None:
            self.world.locks.add_lock(Level.INSTANCE, "db")
        changes: list[Change] = [Remove("disks", uuid) for uuid in own]
        changes += [Add("disks", disk) for disk in after.disks_of(new)]
        if old is None:
            changes.append(Add("instances", new))
        else:
            changes.append(Update(old.uuid, lambda _: new))
        ports = [port for disk in after.disks_of(new) for port in disk.ports()]
        changes.append(Update(now.cluster.uuid, lambda cluster: with_ports(cluster, ports)))
        self.world.store.apply(changes)

    @rule(mode=st.sampled_from(["allocate", "node-evacuate", "change-group"]))
    def try_allocator(self, mode: str) -> None:
        """Checks that asking an allocator changes nothing and gives an answer."""
        self.world.meanwhile = []
        self.world.at_hooks = []
        before = self.world.now
        said = self.world.try_run(
            "OP_TEST_ALLOCATOR",
            direction="out",
            iallocator=builtin.NAME,
            mode=mode,
            name="new",
            memory=128,
            vcpus=1,
            os="noop",
            disk_template="diskless",
            disks=[],
            nics=[],
            instances=["db"],
            evac_mode="all",
        )
        assert self.world.now is before
        if said is None:
            return
        answer = msgspec.json.decode(said)
        if mode == "allocate" and answer["success"]:
            (name,) = answer["result"]
            node = before.node(name)
            assert node.vm_capable
            assert not node.offline
            assert not node.drained
