"""Places for clients fit the limit on open files, or the start says so."""

from __future__ import annotations

import resource

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd import service
from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.service import SPARE_DESCRIPTORS, fit_descriptors
from ganeti_masterd.timing import Timers


class DescriptorTests(SynchronousTestCase):
    """The limits of a process that isn't this one."""

    def setUp(self) -> None:
        self.limits = (1024, 100_000)
        self.patch(service.resource, "getrlimit", lambda _: self.limits)
        self.patch(service.resource, "setrlimit", self.set_limits)
        self.logged: list[str] = []
        self.patch(service.log, "warn", lambda text, **about: self.logged.append(text))
        timers = Timers(Clock())
        self.factories = [
            LuxiFactory(lambda request, peer: None, timers, max_connections=4096) for _ in range(3)
        ]

    def set_limits(self, which: int, limits: tuple[int, int]) -> None:
        self.limits = limits

    def open_at_most(self) -> int:
        """How many descriptors are open where all places of all sockets are taken."""
        return SPARE_DESCRIPTORS + sum(factory.descriptors for factory in self.factories)

    def test_enough(self) -> None:
        """The soft limit is raised for the places of all sockets, refused clients included."""
        fit_descriptors(self.factories)
        self.assertEqual(self.limits, (self.open_at_most(), 100_000))
        self.assertEqual(self.factories[0].max_connections, 4096)
        self.assertEqual(self.logged, [])

    def test_unlimited(self) -> None:
        """Nothing is lowered where there is no limit."""
        self.limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        fit_descriptors(self.factories)
        self.assertEqual(self.limits, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def test_too_few(self) -> None:
        """Where the hard limit is too low there are as many places as fit, and the log says so."""
        self.limits = (1024, 4096)
        fit_descriptors(self.factories)
        self.assertEqual(self.limits, (4096, 4096))
        places = {factory.max_connections for factory in self.factories}
        self.assertEqual(len(places), 1)
        self.assertLessEqual(self.open_at_most(), 4096)
        self.assertGreater(self.open_at_most(), 4096 - 3)
        self.assertEqual(len(self.logged), 1)

    def test_none(self) -> None:
        """Where no place is left, the daemon doesn't start, and says what is wanted."""
        self.limits = (1024, 1024)
        error = self.assertRaises(GenericError, fit_descriptors, self.factories)
        self.assertIn("1024 files at most (RLIMIT_NOFILE, LimitNOFILE= of the unit)", str(error))
