"""The pages: ``/metrics``, ``/status`` and ``/healthz``. GET and HEAD only, answered at once."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from ganeti_masterd.monitoring.status import Status

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"

#: "Misdirected Request", which Twisted has no name for (RFC 9110, 15.5.20).
MISDIRECTED = 421
#: "Too Many Requests", the same (RFC 6585, 4).
TOO_MANY_REQUESTS = 429
_PHRASES = {MISDIRECTED: b"Misdirected Request", TOO_MANY_REQUESTS: b"Too Many Requests"}

#: A page's response code, type and content.
WebPage = tuple[int, str, bytes]


class ReadOnly(Resource):
    """A page with the content that ``make`` returns, and without child pages."""

    def __init__(self, make: Callable[[], WebPage]) -> None:
        super().__init__()
        self._make = make

    def render(self, request: Request) -> bytes:
        """Answers GET and HEAD; answers any other method with 405."""
        if request.method in (b"GET", b"HEAD"):
            code, kind, content = self._make()
        else:
            request.setHeader(b"Allow", b"GET, HEAD")
            code, kind, content = http.NOT_ALLOWED, PLAIN, b"This is read only: GET or HEAD\n"
        request.setResponseCode(code, _PHRASES.get(code))
        request.setHeader(b"Content-Type", kind.encode("ascii"))
        request.setHeader(b"Cache-Control", b"no-store")
        if request.method == b"HEAD":
            request.setHeader(b"Content-Length", b"%d" % len(content))
            return b""
        return content

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Returns a page that answers 404, because a page has no children."""
        return ReadOnly(_nothing_here)


def pages(
    registry: CollectorRegistry, status: Callable[[], Status], schema: Callable[[], object]
) -> Resource:
    """Returns the root of all pages, which isn't a page itself; ``/events`` isn't in it yet."""
    root = ReadOnly(_nothing_here)
    root.putChild(
        b"metrics",
        ReadOnly(lambda: (http.OK, CONTENT_TYPE_LATEST, generate_latest(registry))),
    )
    root.putChild(b"status", ReadOnly(lambda: _status(status())))
    root.putChild(b"healthz", ReadOnly(lambda: _health(status())))
    root.putChild(b"events.schema.json", ReadOnly(lambda: (http.OK, JSON, _document(schema()))))
    return root


def _nothing_here() -> WebPage:
    return http.NOT_FOUND, PLAIN, b"There are /, /metrics, /status, /healthz and /events\n"


def _status(status: Status) -> WebPage:
    return http.OK, JSON, _document(status)


def _document(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"


def _health(status: Status) -> WebPage:
    if not status.faults:
        return http.OK, PLAIN, b"ok\n"
    return http.SERVICE_UNAVAILABLE, PLAIN, "\n".join([*status.faults, ""]).encode()
