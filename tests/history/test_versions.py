"""The file of versions: what is recorded comes back, whatever is thinned or breaks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from functools import partialmethod
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.history.states import (
    ConfigState,
    Place,
    apply_delta,
    delta_between,
    pack,
    snapshot_of,
    state_of,
    unpack,
)
from ganeti_masterd.history.versions import NewVersion, VersionStore
from tests.config.sample import CLUSTER, sample
from tests.examples import examples

NOW = 1_800_000_000.0

BODIES = st.one_of(st.none(), st.integers(0, 99).map(lambda n: b'{"n":%d}' % n))
DELTAS = st.dictionaries(st.tuples(st.just("nodes"), st.sampled_from("abcd")), BODIES, min_size=1)


def version(delta: Any, time: float = NOW, note: str = "") -> NewVersion:
    return NewVersion(time, 1, 0, 7, note, delta)


class TroubleTests(SynchronousTestCase):
    """The file can't be written, or read, for a while."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.store = VersionStore(self.path, CLUSTER)
        self.addCleanup(lambda: self.store.close())

    def test_first_commit_fails(self) -> None:
        """A history whose first commit failed begins with the next."""
        state = state_of(sample())
        self.store._db.set_authorizer(lambda action, *_: int(action == sqlite3.SQLITE_INSERT))
        self.assertRaises(sqlite3.Error, self.store.catch_up, state, NOW, 1, "")
        self.store._db.set_authorizer(None)
        self.store.catch_up(state, NOW, 1, "")
        self.assertEqual([one.id for one in self.store.lines()], [1])

    def test_locked(self) -> None:
        """A file that another program has locked is healthy: it stays where it is."""
        self.store.close()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            self.patch(VersionStore, "_opened", partialmethod(_impatient, VersionStore._opened))
            self.assertRaises(sqlite3.OperationalError, VersionStore, self.path, CLUSTER)
        self.assertFalse(os.path.exists(f"{self.path}.1"))
        self.store = VersionStore(self.path, CLUSTER)


def _impatient(store: VersionStore, opened: Any) -> Any:
    """Opens a store whose connection doesn't wait for others."""
    connect = sqlite3.connect
    try:
        sqlite3.connect = lambda *args, **options: connect(*args, timeout=0, **options)  # type: ignore
        return opened(store)
    finally:
        sqlite3.connect = connect


class StateTests(SynchronousTestCase):
    """States and deltas."""

    def test_round_trip(self) -> None:
        """A real configuration becomes a state, bytes, and the same configuration again."""
        before = sample()
        state = state_of(before)
        again = unpack(pack(state))
        self.assertEqual(again, state)
        self.assertEqual(snapshot_of(dict(state), "it"), before)

    @given(DELTAS, DELTAS)
    @settings(max_examples=examples(60, 1000), deadline=None)
    def test_delta(self, one: Any, other: Any) -> None:
        """What is between two states makes the second of the first."""
        before: ConfigState = {}
        apply_delta(before, one)
        after = dict(before)
        apply_delta(after, other)
        delta = unpack(pack(delta_between(before, after)))
        apply_delta(before, delta)
        self.assertEqual(before, after)

    def test_other_bytes(self) -> None:
        """Bytes that are no delta are refused."""
        for content in (b"", b"no", pack({})[:-3], b"x" * 100):
            self.assertRaises(ConfigurationError, unpack, content)


class VersionTests(SynchronousTestCase):
    """The store on a real disk."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.base: ConfigState = {("nodes", "a"): b'{"n":0}'}

    def open(self, cluster: str = CLUSTER, **bounds: int) -> VersionStore:
        store = VersionStore(self.path, cluster, **bounds)
        self.addCleanup(store.close)
        store.catch_up(self.base, NOW - 1, 1, "found")
        return store

    def test_begins(self) -> None:
        """The first version is what there was; the file is its owner's alone."""
        store = self.open()
        (line,) = store.lines()
        self.assertEqual((line.id, line.uid, line.job, line.serial), (1, None, None, 1))
        self.assertEqual(store.state(1), self.base)
        for name in (self.path, self.path + "-wal"):
            self.assertEqual(stat.S_IMODE(os.stat(name).st_mode), 0o600)

    @given(
        st.lists(st.tuples(DELTAS, st.integers(0, 40_000)), min_size=1, max_size=30),
        st.integers(1, 12),
    )
    @settings(max_examples=examples(30, 500), deadline=None)
    def test_thinned(self, changes: list[Any], most: int) -> None:
        """Each version that is listed is what it was; the bound holds; the newest is there."""
        self.path = os.path.abspath(self.mktemp())
        store = self.open(most=most, newest=2)
        state, now = dict(self.base), NOW
        truth = {1: dict(state)}
        for number, (delta, pause) in enumerate(changes, 2):
            now += pause
            apply_delta(state, delta)
            truth[number] = dict(state)
            store.append([version(delta, now)], now)
            self.assertLessEqual(store.size[0], most)
            self.assertEqual(store.lines()[-1].id, number)
            for line in store.lines():
                self.assertEqual(store.state(line.id), truth[line.id])
        self.assertEqual(store.state(), state)

    def test_room(self) -> None:
        """The bytes of the changes are bounded as well."""
        store = self.open(room=4000)
        for number in range(200):
            body = b'"%s"' % os.urandom(50).hex().encode()
            place: Place = ("nodes", f"n{number}")
            store.append([version({place: body}, NOW + number)], NOW + number)
            self.assertLessEqual(store.size[1], 4000)
        self.assertEqual(len(store.state()), 201)
        self.assertGreater(store.size[0], 5)

    def test_catch_up(self) -> None:
        """What changed while nobody recorded becomes one version; nothing makes none."""
        store = self.open()
        store.catch_up(self.base, NOW, 2, "found")
        self.assertEqual(len(store.lines()), 1)
        store.catch_up({("nodes", "b"): b"{}"}, NOW, 3, "found")
        self.assertEqual(store.lines()[-1].note, "found")
        self.assertEqual(store.state(2), {("nodes", "b"): b"{}"})
        self.assertEqual(store.state(1), self.base)

    def test_all_or_none(self) -> None:
        """A batch of which one can't be recorded is not recorded at all."""
        store = self.open()
        bad = NewVersion(NOW, "x", 0, 7, None, {})  # type: ignore[arg-type]
        with self.assertRaises(sqlite3.Error):
            store.append([version({("nodes", "b"): b"{}"}), bad], NOW)
        self.assertEqual(store.state(), self.base)
        store.append([version({("nodes", "b"): b"{}"})], NOW)
        self.assertEqual(len(store.state()), 2)

    def test_crash(self) -> None:
        """A copy of the files made at any time between two changes reads as a history."""
        store = self.open(most=4, newest=1)
        for number in range(12):
            store.append([version({("nodes", "b"): b"%d" % number})], NOW + number)
            copy = f"{self.path}.copy{number}"
            for suffix in ("", "-wal"):
                shutil.copy(self.path + suffix, copy + suffix)
            again = VersionStore(copy, CLUSTER)
            self.assertEqual(again.lines(), store.lines())
            for line in again.lines():
                self.assertEqual(again.state(line.id), store.state(line.id))
            again.close()

    def test_damaged(self) -> None:
        """A file that can't be read, or is another's, is kept aside, and a new history begins."""
        self.open().close()
        for number, spoil in enumerate((b"rubbish" * 1000, None), 1):
            if spoil is not None:
                with open(self.path, "wb") as file:
                    file.write(spoil)
            store = VersionStore(self.path, f"other{number}")
            self.flushLoggedErrors()
            self.assertEqual(store.lines(), [])
            store.catch_up(self.base, NOW, 1, "found")
            store.close()
            self.assertTrue(os.path.exists(f"{self.path}.{number}"))

    def test_links(self) -> None:
        """A link in the file's place is refused, and what it leads to is left alone."""
        target = self.path + ".target"
        with open(target, "w") as file:
            file.write("mine")
        os.symlink(target, self.path)
        with self.assertRaises(OSError):
            VersionStore(self.path, CLUSTER)
        with open(target) as file:
            self.assertEqual(file.read(), "mine")

    def test_unknown(self) -> None:
        """A version that isn't there is known not to be."""
        store = self.open()
        self.assertTrue(store.has(1))
        self.assertFalse(store.has(2))
