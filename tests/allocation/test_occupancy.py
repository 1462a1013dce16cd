"""Hosts and instances that are kept from one document to the next."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.allocation.builtin.room import Occupancy, Rooms
from tests.allocation.clusters import allocate, document, instance, node
from tests.examples import examples

EXAMPLES = examples(100, 1000)
NODES = ("node1", "node2", "node3", "node4")

NAMES = ("web", "db", "mail", "shop", "wiki")


def described(rooms: Rooms) -> Any:
    """Returns all hosts and instances; a host that stands in for none is like any other."""
    hosts = msgspec.to_builtins(rooms.hosts)
    for host in hosts.values():
        host["stands_in"] = {name: memory for name, memory in host["stands_in"].items() if memory}
    return hosts, msgspec.to_builtins(rooms.instances)


class OccupancyTests(SynchronousTestCase):
    """Rooms of one document after another."""

    def test_as_if_anew(self) -> None:
        """They are as if read from the document alone, whatever was put into those before."""
        random, kept = Random(7), Occupancy()
        now: dict[str, Any] = {}
        for _ in range(EXAMPLES):
            names = random.sample(NODES, random.randint(2, 4))
            # Some come, some go, some change, and the others stay the same object.
            now = {name: about for name, about in now.items() if random.random() > 0.2}
            for name in random.sample(NAMES, 2):
                where = random.sample(NODES, 2)
                now[name] = instance(where, "drbd", memory=random.randint(1, 4096))
            there = {
                name: about for name, about in now.items() if set(about["nodes"]) <= set(names)
            }
            told = document({name: node() for name in names}, allocate(), instances=there)
            rooms = Rooms(told, occupancy=kept)
            self.assertEqual(described(rooms), described(Rooms(told)))
            for demand in rooms.instances.values():
                rooms.take(demand)
                rooms.put(demand, names[:2])

    def test_malformed(self) -> None:
        """A document that makes no sense leaves what is kept as it was."""
        kept = Occupancy()
        nodes = {name: node() for name in NODES}
        good = document(nodes, allocate(), instances={"web": instance(("node1", "node2"), "drbd")})
        Rooms(good, occupancy=kept)
        wrong = {**good, "instances": {"db": {**good["instances"]["web"], "vcpus": "many"}}}
        self.assertRaises(msgspec.ValidationError, Rooms, wrong, occupancy=kept)
        wrong = {**good, "nodes": {**good["nodes"], "node3": {"group": 3}}}
        self.assertRaises(msgspec.ValidationError, Rooms, wrong, occupancy=kept)
        self.assertEqual(described(Rooms(good, occupancy=kept)), described(Rooms(good)))
