"""Tests of the keys and certificates of a new simulated cluster."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.logical_units.verification.certificates import check_file
from ganeti_masterd.startup.simulated_keys import files


class KeyTests(SynchronousTestCase):
    """A new simulated cluster has the files that a real one has."""

    def setUp(self) -> None:
        self.made = {name: (content, mode) for name, content, mode in files(1000.0)}

    def test_files(self) -> None:
        """All files that a verification reads exist, and no two secrets are the same."""
        self.assertIn(b"BEGIN RSA PRIVATE KEY", self.made["server.pem"][0])
        self.assertNotIn(b"PRIVATE", self.made["spice-ca.pem"][0])
        self.assertEqual(self.made["hmac.key"][1], 0o440)
        self.assertNotEqual(self.made["hmac.key"][0], self.made["cluster-domain-secret"][0])
        self.assertIn("known_hosts", self.made)

    def test_certificates(self) -> None:
        """The certificates pass the verification of the cluster."""
        for name in ("server.pem", "rapi.pem", "spice.pem", "spice-ca.pem"):
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(self.made[name][0])
            self.assertEqual(list(check_file(path, 1000.0)), [], name)
