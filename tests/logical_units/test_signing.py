"""What clusters sign for each other."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.logical_units.steps import signing

SECRET = "00112233445566778899aabbccddeeff"

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIC\nxjCC\n-----END CERTIFICATE-----\n"


class SigningTests(SynchronousTestCase):
    """Signatures that Ganeti 3.0.2 made are good here, and what was changed is not."""

    def test_handshake_of_ganeti(self) -> None:
        """One that 3.0.2 made with this secret."""
        shown = [0, "13f55c632ab84f5a0638c562606b3010dbe1062f", "0aceee5bf9c9677d"]
        signing.check_handshake(SECRET, shown)
        self.assertRaises(signing.Untrusted, signing.check_handshake, SECRET + "0", shown)

    def test_place_of_ganeti(self) -> None:
        """One that 3.0.2 made; it holds for its disk alone."""
        place = ["192.0.2.3", 77, "m", "8056bb7bf4cceb081660fda23f8afc45d38ba81f", "abcd"]
        self.assertEqual(signing.place_of(SECRET, 2, place), ("192.0.2.3", 77, "m"))
        self.assertRaises(signing.Untrusted, signing.place_of, SECRET, 1, place)
        for at, other in enumerate(("192.0.2.4", 78, "n", "0", "abce")):
            changed = [*place[:at], other, *place[at + 1 :]]
            self.assertRaises(signing.Untrusted, signing.place_of, SECRET, 2, changed)

    def test_own(self) -> None:
        """What is signed is found good; each time with another salt."""
        one, two = signing.handshake(SECRET), signing.handshake(SECRET)
        self.assertNotEqual(one, two)
        signing.check_handshake(SECRET, one)
        name, signature, salt = signing.signed_name(SECRET, "x509-1")
        self.assertTrue(signing.is_signed(SECRET, name, signature, salt))
        self.assertFalse(signing.is_signed(SECRET, "x509-2", signature, salt))
        self.assertFalse(signing.is_signed(SECRET, name, None, salt))
        self.assertFalse(signing.is_signed(SECRET, name, "\u00e4", salt))

    def test_certificate(self) -> None:
        """Its text is signed, whatever stands around it."""
        signed = signing.signed_certificate(SECRET, CERTIFICATE)
        self.assertTrue(signed.startswith("X-Ganeti-Signature: "))
        self.assertEqual(signing.certificate_of(SECRET, signed), CERTIFICATE)
        self.assertEqual(signing.certificate_of(SECRET, signed + "\nmore\n"), CERTIFICATE)
        self.assertEqual(signing.certificate_of(SECRET, signed.replace("\n", "\r\n")), CERTIFICATE)
        for changed in (
            signed.replace("MIIC", "MIID"),
            CERTIFICATE,
            signed.partition("\n\n")[0],
            CERTIFICATE + signed.partition("\n\n")[0],
        ):
            self.assertRaises(signing.Untrusted, signing.certificate_of, SECRET, changed)
        self.assertRaises(signing.Untrusted, signing.certificate_of, SECRET + "0", signed)

    def test_secret(self) -> None:
        """The first line of its file; a missing or empty one is refused."""
        root = self.mktemp()
        path = root + signing.SECRET_FILE
        os.makedirs(os.path.dirname(path))
        self.assertRaises(OpPrereqError, signing.domain_secret, root)
        for content, found in (("one\ntwo\n", "one"), ("\n", None), ("", None), ("one", "one")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            if found is None:
                self.assertRaises(OpPrereqError, signing.domain_secret, root)
            else:
                self.assertEqual(signing.domain_secret(root), found)
