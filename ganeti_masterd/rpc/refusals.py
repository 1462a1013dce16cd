"""Messages for calls that got no answer: every failure of a connection in words."""

from __future__ import annotations

import os
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed
from twisted.web.http import PotentialDataLoss

from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.interfaces import NodeResult, Target

#: Alerts with which a node refuses our certificate (parts of OpenSSL's messages).
_REFUSALS = (
    "alert internal error",  # noded's own check: the certificate isn't listed
    "alert unknown ca",
    "alert handshake failure",
    "alert certificate required",
    "alert bad certificate",
    "alert unsupported certificate",
    "alert certificate revoked",
    "alert certificate expired",
    "alert certificate unknown",
    "alert access denied",
)


def failed(
    target: Target, procedure: str, failure: Failure, distrust: str | None = None
) -> NodeResult[Any]:
    """Returns the result of a call whose connection or answer failed.

    ``distrust`` is why this side refused the node's certificate; None if it didn't.
    """
    cause = root(failure)
    if distrust is not None:
        return _result(target, procedure, f"Node {target.name} {distrust}")
    unreachable = _unreachable(cause)
    if unreachable is not None:
        return results.unreachable(target, procedure, unreachable)
    return _result(target, procedure, _words(target, failure, cause))


def root(failure: Failure) -> BaseException:
    """Returns the innermost cause of a failure that Twisted may have wrapped several times."""
    while isinstance(failure.value, (ResponseFailed, RequestTransmissionFailed)):
        if not failure.value.reasons:
            break
        # The connection's own error comes first, the parser's error caused by it second.
        failure = failure.value.reasons[0]
    return cast(BaseException, failure.value)


def _result(target: Target, procedure: str, text: str) -> NodeResult[Any]:
    return NodeResult(target.name, procedure, None, text)


def _unreachable(cause: BaseException) -> str | None:
    """Returns why no connection could be made; None if there was one."""
    if isinstance(cause, error.ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, (error.DNSLookupError, error.UnknownHostError)):
        return "its name can't be resolved"
    if isinstance(cause, (error.TimeoutError, error.TCPTimedOutError)):
        return "no answer"
    if isinstance(cause, error.NoRouteError):
        return "no route to host"
    if isinstance(cause, error.ConnectError):
        return os.strerror(cause.osError) if isinstance(cause.osError, int) else str(cause)
    return None


def _words(target: Target, failure: Failure, cause: BaseException) -> str:
    if isinstance(cause, SSL.Error):
        return _tls(target, cause)
    half = getattr(failure.value, "response", None) is not None
    if half or isinstance(cause, PotentialDataLoss):
        return f"Node {target.name} broke off its answer"
    if isinstance(cause, (error.ConnectionDone, error.ConnectionLost)):
        return f"Node {target.name} closed the connection without an answer"
    return f"Node {target.name} does not answer as a node daemon ({type(cause).__name__})"


def _tls(target: Target, cause: SSL.Error) -> str:
    if isinstance(cause, SSL.SysCallError):
        text = str(cause.args[-1]) if cause.args else ""
    else:
        reasons = cause.args[0] if cause.args else ()
        text = ", ".join(reason for _, _, reason in reasons if reason)
    text = text or type(cause).__name__
    if any(refusal in text for refusal in _REFUSALS):
        return f"Node {target.name} refused our certificate ({text})"
    return f"No TLS connection with node {target.name} ({text})"
