"""In front of all pages: the headers that every answer has, and requests that get none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET, Request

from ganeti_masterd.monitoring.hosts import KnownHosts, foreign
from ganeti_masterd.monitoring.logins import WITHIN, Login, Logins
from ganeti_masterd.monitoring.pages import (
    MISDIRECTED,
    PLAIN,
    TOO_MANY_REQUESTS,
    ReadOnly,
    WebPage,
)

log = Logger()

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


#: What is answered to a request whose password isn't right, and the header that comes with it.
_REFUSALS = {
    Login.REFUSED: (http.UNAUTHORIZED, b"A name and its password are needed\n"),
    Login.TOO_MANY: (TOO_MANY_REQUESTS, b"Too many wrong passwords came; try in a minute\n"),
    Login.BUSY: (http.SERVICE_UNAVAILABLE, b"Too many passwords are being checked; try again\n"),
}
_HEADERS = {
    Login.REFUSED: (b"WWW-Authenticate", b'Basic realm="Ganeti", charset="UTF-8"'),
    Login.TOO_MANY: (b"Retry-After", b"%d" % WITHIN),
    Login.BUSY: (b"Retry-After", b"1"),
}


class Guard(Resource):
    """The root of all pages. A request has to pass it before ``pages`` see it.

    ``logins`` judges passwords; None if none are asked for.
    """

    def __init__(self, pages: Resource, hosts: KnownHosts, logins: Logins | None = None) -> None:
        super().__init__()
        self._pages = pages
        self._hosts = hosts
        self._logins = logins

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        """Returns the page of a request, or the refusal of it."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        refusal = self._refusal(request)
        if refusal is not None:
            request.postpath = []
            return ReadOnly(lambda: refusal)
        if self._logins is None:
            return self._page(path, request)
        host = getattr(request.getClientAddress(), "host", "")
        login = self._logins.login(request.getHeader("authorization"), str(host))
        if isinstance(login, Login):
            return self._admitted(login, path, request)
        return _Awaited(login, lambda known: self._admitted(known, path, request))

    def _page(self, path: bytes, request: Request) -> Resource:
        return cast(Resource, self._pages.getChildWithDefault(path, request))

    def _admitted(self, login: Login, path: bytes, request: Request) -> Resource:
        """Returns the page, or the refusal if the password isn't right."""
        if login is Login.GOOD:
            return self._page(path, request)
        request.setHeader(*_HEADERS[login])
        request.postpath = []
        code, text = _REFUSALS[login]
        return ReadOnly(lambda: (code, PLAIN, text))

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


class _Awaited(Resource):
    """A page that is known once a password has been checked."""

    isLeaf = True

    def __init__(self, login: Deferred[Login], page: Callable[[Login], Resource]) -> None:
        super().__init__()
        self._login = login
        self._page = page

    def render(self, request: Request) -> int:
        """Answers when the password has been checked, unless the other end has gone by then."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def checked(login: Login) -> None:
            if not gone:
                request.render(getChildForRequest(self._page(login), request))

        def failed(failure: Failure) -> None:
            log.failure("A password could not be checked", failure=failure)
            if not gone:
                request.render(
                    ReadOnly(lambda: (http.INTERNAL_SERVER_ERROR, PLAIN, b"No password checked\n"))
                )

        self._login.addCallbacks(checked, failed)
        return NOT_DONE_YET


def _first(values: Sequence[bytes] | None) -> bytes | None:
    return values[0] if values else None


def _unknown(host: bytes) -> bytes:
    shown = host.decode("ascii", "backslashreplace")[:100]
    return (
        f"This daemon doesn't know the host {shown!r}, so it doesn't answer: a web site may have "
        "made the name lead here. Ask for localhost, an address, or the name of the cluster or of "
        "its master; start the daemon with --monitoring-hosts to have it know other names\n"
    ).encode("ascii", "backslashreplace")
