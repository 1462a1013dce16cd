"""``/events``: the stream over HTTP, as Server-Sent Events or as one JSON object a line."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from ganeti_masterd.monitoring.pages import PLAIN, ReadOnly, WebPage
from ganeti_masterd.monitoring.stream import EventStream
from ganeti_masterd.timing import Timer, Timers

#: The most viewers at a time; scrapes keep the other connections.
MAX_VIEWERS = 16
#: Seconds between signs of life, and how many of them a viewer may leave unread.
BEAT, PATIENCE = 15.0, 8

#: The forms: media type, what a viewer gets first, and a sign of life.
_FORMS = {
    b"sse": (b"text/event-stream", b"retry: 2000\n\n", b": alive\n\n"),
    b"jsonl": (b"application/x-ndjson", b"", b"\n"),
}


@implementer(IPushProducer)
class FeedViewer:
    """One who reads the stream over HTTP; not ready while its connection takes no more."""

    def __init__(self, request: Request, form: bytes, stream: EventStream, timers: Timers) -> None:
        self.ready = True
        self._request = request
        self._events = form == b"sse"
        _, self._first, self._alive = _FORMS[form]
        self._stream = stream
        self._timers = timers
        self._beat: Timer | None = None
        self._unread = 0

    def begin(self, since: int | None) -> None:
        """Answers the request with what happens, until the other end goes away."""
        self._request.notifyFinish().addBoth(self._gone)
        self._request.registerProducer(self, True)
        self._beat = self._timers.every(BEAT, self._beats)
        if self._first:
            self._request.write(self._first)
        self._stream.add(self, since)

    def show(self, messages: list[tuple[int, bytes]]) -> None:
        """Sends messages at once."""
        if self._events:
            data = b"".join(b"id: %d\ndata: %s\n\n" % each for each in messages)
        else:
            data = b"".join(b"%s\n" % message for _, message in messages)
        self._request.write(data)

    def pauseProducing(self) -> None:
        """The connection takes no more for now."""
        self.ready = False

    def resumeProducing(self) -> None:
        """The connection takes more again."""
        self.ready = True
        self._unread = 0
        self._stream.ready(self)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._gone(None)

    def _beats(self) -> None:
        if self.ready:
            self._request.write(self._alive)
            return
        self._unread += 1
        if self._unread >= PATIENCE:  # it keeps a place from others
            self._request.channel.forceAbortClient()

    def _gone(self, _: Any) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        self._stream.remove(self)


class Feed(Resource):
    """The page ``/events``; ``format=jsonl`` for lines, ``since=NUMBER`` to go on from there."""

    isLeaf = True

    def __init__(self, stream: EventStream, timers: Timers) -> None:
        super().__init__()
        self._stream = stream
        self._timers = timers

    def render(self, request: Request) -> Any:
        """Answers with the stream; HEAD with its headers."""
        refusal = self._refusal(request)
        if refusal is not None:
            return ReadOnly(lambda: refusal).render(request)
        form = request.args.get(b"format", [b"sse"])[-1]
        request.setHeader(b"Content-Type", _FORMS[form][0])
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            return b""
        since = request.args.get(b"since", [b""])[-1]
        viewer = FeedViewer(request, form, self._stream, self._timers)
        viewer.begin(int(since) if since else None)
        return NOT_DONE_YET

    def _refusal(self, request: Request) -> WebPage | None:
        if request.postpath:
            return http.NOT_FOUND, PLAIN, b"There is nothing below /events\n"
        if request.method not in (b"GET", b"HEAD"):
            return http.NOT_ALLOWED, PLAIN, b""  # ReadOnly says so in its own words
        if request.args.get(b"format", [b"sse"])[-1] not in _FORMS:
            return http.BAD_REQUEST, PLAIN, b"format is sse or jsonl\n"
        since = request.args.get(b"since", [b""])[-1]
        if len(since) > 18 or (since and not since.isdigit()):
            return http.BAD_REQUEST, PLAIN, b"since is the seq of a message\n"
        if len(self._stream) >= MAX_VIEWERS:
            return http.SERVICE_UNAVAILABLE, PLAIN, b"As many look already as may; try later\n"
        return None
