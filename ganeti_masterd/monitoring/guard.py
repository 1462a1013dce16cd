"""In front of all pages: the headers that every answer has, and requests that get none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from ganeti_masterd.monitoring.hosts import KnownHosts, foreign
from ganeti_masterd.monitoring.pages import MISDIRECTED, PLAIN, ReadOnly, WebPage

#: Only this server's own files, and nothing inline; a page can be in no frame and send no form.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

#: Headers of every answer, whatever its code.
HEADERS = {
    b"Server": b"gnt-masterd",
    b"Content-Security-Policy": _POLICY.encode("ascii"),
    b"X-Content-Type-Options": b"nosniff",
    b"X-Frame-Options": b"DENY",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}


class Guard(Resource):
    """The root of all pages. A request has to pass it before ``pages`` see it."""

    def __init__(self, pages: Resource, hosts: KnownHosts) -> None:
        super().__init__()
        self._pages = pages
        self._hosts = hosts

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        """Returns the page of a request, or the refusal of it."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        refusal = self._refusal(request)
        if refusal is not None:
            request.postpath = []
            return ReadOnly(lambda: refusal)
        return cast(Resource, self._pages.getChildWithDefault(path, request))

    def _refusal(self, request: Request) -> WebPage | None:
        headers = request.requestHeaders
        hosts = headers.getRawHeaders(b"host", [])
        # Without one, as old probes ask, it is no browser.
        for host in hosts:
            if host.decode("latin-1") not in self._hosts:
                return MISDIRECTED, PLAIN, _unknown(host)
        if foreign(
            _first(headers.getRawHeaders(b"sec-fetch-site")),
            _first(headers.getRawHeaders(b"sec-fetch-mode")),
        ):
            return http.FORBIDDEN, PLAIN, b"Pages of other web sites get no answer from here\n"
        return None


def _first(values: Sequence[bytes] | None) -> bytes | None:
    return values[0] if values else None


def _unknown(host: bytes) -> bytes:
    shown = host.decode("ascii", "backslashreplace")[:100]
    return (
        f"This daemon doesn't know the host {shown!r}, so it doesn't answer: a web site may have "
        "made the name lead here. Ask for localhost, an address, or the name of the cluster or of "
        "its master; start the daemon with --monitoring-hosts to have it know other names\n"
    ).encode("ascii", "backslashreplace")
