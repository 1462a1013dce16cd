"""Messages for every failure of a connection."""

from __future__ import annotations

from errno import EHOSTUNREACH
from typing import Any

from OpenSSL import SSL
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.rpc.refusals import failed

NODE = Target("u", "node2", "192.0.2.2")


def alert(reason: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason)])


def never(*causes: BaseException) -> ResponseFailed:
    return ResponseNeverReceived([Failure(each) for each in causes])


class WordTests(SynchronousTestCase):
    def said(self, cause: BaseException, distrust: str | None = None) -> Any:
        result = failed(NODE, "version", Failure(cause), distrust)
        self.assertEqual((result.node, result.procedure), ("node2", "version"))
        self.assertTrue(result.failed)
        self.assertFalse(result.offline)
        return result.error

    def test_no_connection(self) -> None:
        """Errors of connecting give a message with the address."""
        for cause, reason in (
            (error.ConnectionRefusedError(), "connection refused"),
            (error.DNSLookupError("node2"), "its name can't be resolved"),
            (error.TimeoutError(), "no answer"),
            (error.TCPTimedOutError(), "no answer"),
            (error.NoRouteError(), "no route to host"),
            (error.ConnectError(EHOSTUNREACH, "x"), "No route to host"),
            (error.ConnectError(string="odd"), "An error occurred while connecting: odd."),
        ):
            self.assertEqual(self.said(cause), f"Can't connect to 192.0.2.2: {reason}")

    def test_refusals(self) -> None:
        """Each TLS 1.2 and 1.3 alert that refuses our certificate is recognized."""
        for text in (
            "tlsv1 alert internal error",
            "tlsv1 alert unknown ca",
            "sslv3 alert handshake failure",
            "ssl/tls alert handshake failure",
            "tlsv13 alert certificate required",
            "ssl/tls alert bad certificate",
            "tlsv1 alert access denied",
        ):
            wrapped = RequestTransmissionFailed([Failure(never(alert(text)))])
            for cause in (alert(text), never(alert(text)), wrapped):
                self.assertEqual(self.said(cause), f"Node node2 refused our certificate ({text})")

    def test_other_tls(self) -> None:
        """Other TLS errors are reported as they are, even those without a message."""
        for cause, text in (
            (alert("wrong version number"), "wrong version number"),
            (SSL.Error([]), "Error"),
            (SSL.Error(), "Error"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "Unexpected EOF"),
        ):
            self.assertEqual(self.said(cause), f"No TLS connection with node node2 ({text})")

    def test_distrust(self) -> None:
        """If this side refused, its own reason is given instead of OpenSSL's."""
        cause = never(alert("certificate verify failed"))
        said = self.said(cause, "does not hold the cluster's certificate")
        self.assertEqual(said, "Node node2 does not hold the cluster's certificate")

    def test_answers(self) -> None:
        """Connections that end before or within the answer have different messages."""
        for cause in (never(error.ConnectionDone()), never(error.ConnectionLost())):
            self.assertEqual(self.said(cause), "Node node2 closed the connection without an answer")
        for cause in (
            ResponseFailed([Failure(error.ConnectionLost())], response=object()),
            PotentialDataLoss(),
        ):
            self.assertEqual(self.said(cause), "Node node2 broke off its answer")

    def test_anything_else(self) -> None:
        """Of an unknown error only the class is given, as its message may quote a body."""
        for cause in (never(ValueError("secret")), never(), KeyError("secret")):
            said = self.said(cause)
            self.assertTrue(said.startswith("Node node2 does not answer as a node daemon ("), said)
            self.assertNotIn("secret", said)
