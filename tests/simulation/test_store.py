"""The state of simulated nodes on disk."""

from __future__ import annotations

import os

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.shelves import EVERYTHING
from ganeti_masterd.simulation.state import SHARED, StoredFile
from ganeti_masterd.simulation.store import BLOCKS, NodeStore, StoredChange


class NodeStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "nodes.sqlite")
        self.store = self.opened()

    def opened(self) -> NodeStore:
        store = NodeStore(self.path, synced=False)
        store.load()
        self.addCleanup(store.close)
        return store

    def held(self) -> dict[str, bytes]:
        """Returns what another process would read, by name."""
        self.store.close()
        self.store = NodeStore(self.path, synced=False)
        self.addCleanup(self.store.close)
        return {name: value for _, _, name, value in self.store.load()}

    def test_many(self) -> None:
        """Any number of values is stored, in blocks of any size."""
        for count in (1, *BLOCKS, 2 * BLOCKS[0] + BLOCKS[1] + 3):
            names = [f"{count}-{number}" for number in range(count)]
            self.store.write([("node1", "file", name, name.encode()) for name in names])
            held = self.held()
            self.assertEqual({name: held[name] for name in names}, {n: n.encode() for n in names})

    def test_values(self) -> None:
        """Values are stored as JSON, whoever encodes them; equal ones become one object."""
        files = [StoredFile(0, "x" * SHARED) for _ in range(2 * BLOCKS[0])]
        self.store.write([(f"n{number}", "file", "f", file) for number, file in enumerate(files)])
        self.store.close()
        self.store = NodeStore(self.path, synced=False)
        self.addCleanup(self.store.close)
        rows = self.store.load()
        self.assertEqual(len(rows), len(files))
        self.assertEqual(len({id(value) for *_, value in rows}), 1)
        self.assertEqual(msgspec.json.decode(rows[0][3], type=StoredFile), files[0])

    def test_shared(self) -> None:
        """A file that nodes share is encoded once in a write; each of two is stored as it is."""
        files = [StoredFile(0, "x"), StoredFile(0, "y")]
        encoded: list[object] = []
        encode = msgspec.json.encode

        def counted(value: object) -> bytes:
            encoded.append(value)
            return encode(value)

        self.patch(msgspec.json, "encode", counted)
        self.store.write([(f"n{at}", "file", f"f{at}", files[at % 2]) for at in range(10)])
        self.assertEqual(encoded, files)
        held = self.held()
        for at in range(10):
            self.assertEqual(held[f"f{at}"], encode(files[at % 2]))

    def test_order(self) -> None:
        """Of several changes of one name the last one counts, in one write or several."""
        changes: list[StoredChange] = [
            ("node1", "file", "a", b"1"),
            ("node1", "file", "a", b"2"),
            ("node1", "file", "b", b"1"),
            ("node1", "file", "b", None),
            ("node1", "device", "c", b"1"),
            ("node1", "device", EVERYTHING, None),
            ("node1", "device", "d", b"1"),
            ("node2", "device", "e", b"1"),
        ]
        self.store.write(changes)
        self.assertEqual(self.held(), {"a": b"2", "d": b"1", "e": b"1"})
