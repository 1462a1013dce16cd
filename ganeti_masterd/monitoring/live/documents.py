"""``/live/cluster`` and ``/live/job``, and the files of the page."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import msgspec
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from ganeti_masterd import __version__
from ganeti_masterd.monitoring.feed import MAX_VIEWERS
from ganeti_masterd.monitoring.live.inventory import Inventory
from ganeti_masterd.monitoring.live.measuring import Measuring
from ganeti_masterd.monitoring.live.shapes import (
    DaemonView,
    JobPage,
    LoggedLine,
    OpcodeView,
    PoolUse,
)
from ganeti_masterd.monitoring.pages import JSON, PLAIN, ReadOnly, WebPage
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.monitoring.usernames import UserNames
from ganeti_masterd.monitoring.views import SHORT, job_view, log_lines, log_text, seconds
from ganeti_masterd.query.jobs import op_summary

#: The most lines of a job's log, and the most of its opcodes.
MOST_LOG, MOST_LISTED = 2000, 200

#: A certificate that expires within so many seconds is told of.
SOON = 30 * 86400.0

#: The page's files, and the types that browsers are told.
PAGE_FILES = {
    "index.html": "text/html; charset=utf-8",
    "live.css": "text/css; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "model.js": "text/javascript; charset=utf-8",
    "sections.js": "text/javascript; charset=utf-8",
    "timeline.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_encode = msgspec.json.Encoder().encode


class LiveDocuments:
    """Makes what the page asks for.

    ``own`` returns how late the reactor is, in seconds, the rows that the journal made durable
    and how many look at the stream.
    """

    def __init__(self, parts: Parts, own: Callable[[], tuple[float, int, int]]) -> None:
        self._parts = parts
        self._own = own
        self._since = parts.timers.now()
        self._users = UserNames(parts.users_file)
        # Revisions go on from the time of the start, so that they grow over restarts, too.
        self._inventory = Inventory(int(self._since * 1000))
        self._measuring = Measuring(parts, self._inventory)

    def close(self) -> None:
        """Asks nodes nothing more."""
        self._measuring.close()

    def cluster(self, request: Request) -> WebPage:
        """Returns the daemon, and the nodes and instances that changed after ``since``."""
        since = _number(request, b"since")
        if since is None:
            return http.BAD_REQUEST, PLAIN, b"since is the revision of an answer\n"
        self._measuring.wanted(self._inventory.follow(self._parts.snapshot()))
        return http.OK, JSON, self._inventory.since(since, _encode(self._daemon()))

    def job(self, request: Request) -> WebPage:
        """Returns a job in the queue with its log."""
        job_id = _number(request, b"id")
        if job_id is None:
            return http.BAD_REQUEST, PLAIN, b"id is the number of a job\n"
        job = self._parts.queue.jobs.get(job_id)
        if job is None:
            return http.NOT_FOUND, PLAIN, b"There is no such job in the queue\n"
        lines = list(log_lines(job, 0))
        page = JobPage(
            job=job_view(job, self._users),
            opcodes=[
                OpcodeView(
                    op_summary(op.input)[:SHORT],
                    op.status,
                    seconds(op.exec_timestamp),
                    seconds(op.end_timestamp),
                )
                for op in job.ops[:MOST_LISTED]
            ],
            log=[
                LoggedLine(line.serial, seconds(line.time) or 0.0, log_text(line))
                for line in lines[-MOST_LOG:]
            ],
            left_out=max(0, len(lines) - MOST_LOG),
            wait=None if job.finished else self._parts.why(job_id),
        )
        return http.OK, JSON, _encode(page)

    def _daemon(self) -> DaemonView:
        parts, measuring = self._parts, self._measuring
        lateness, rows, viewers = self._own()
        return DaemonView(
            version=__version__,
            since=self._since,
            now=parts.timers.now(),
            lateness=lateness,
            clients={
                name: PoolUse(each.connections, each.max_connections)
                for name, each in parts.listeners.items()
            },
            threads={name: PoolUse(pool.busy, pool.limit) for name, pool in parts.pools.items()},
            viewers=PoolUse(viewers, MAX_VIEWERS),
            backlog=parts.journal.backlog,
            rows=rows,
            files_fault=parts.journal.files_fault,
            measured=measuring.at,
            measuring=measuring.under_way,
            measure_fault=measuring.fault,
            expiring={
                name: expiry
                for name, expiry in parts.files.expiries().items()
                if expiry < parts.timers.now() + SOON
            },
            config_faults=parts.config_faults(),
        )


def put_page(root: Resource, documents: LiveDocuments) -> None:
    """Puts the page, its files and its documents below the root."""
    folder = files("ganeti_masterd.monitoring.live").joinpath("page")
    contents = {name: folder.joinpath(name).read_bytes() for name in PAGE_FILES}
    live = ReadOnly(_nothing_here)
    for name, kind in PAGE_FILES.items():
        live.putChild(name.encode("ascii"), _file(kind, contents[name]))
    live.putChild(b"cluster", _Document(documents.cluster))
    live.putChild(b"job", _Document(documents.job))
    root.putChild(b"", _file(PAGE_FILES["index.html"], contents["index.html"]))
    root.putChild(b"favicon.ico", _file(PAGE_FILES["icon.svg"], contents["icon.svg"]))
    root.putChild(b"live", live)


def _nothing_here() -> WebPage:
    return http.NOT_FOUND, PLAIN, b"The live page has no such file\n"


def _file(kind: str, content: bytes) -> ReadOnly:
    return ReadOnly(lambda: (http.OK, kind, content))


class _Document(Resource):
    """A document that depends on the request."""

    isLeaf = True

    def __init__(self, make: Callable[[Request], WebPage]) -> None:
        super().__init__()
        self._make = make

    def render(self, request: Request) -> bytes:
        return ReadOnly(lambda: self._made(request)).render(request)

    def _made(self, request: Request) -> WebPage:
        return _nothing_here() if request.postpath else self._make(request)


def _number(request: Request, name: bytes) -> int | None:
    """Returns a parameter of the request; 0 if it isn't given, None if it is no number."""
    text = request.args.get(name, [b"0"])[-1]
    return int(text) if text.isdigit() and len(text) <= 18 else None
