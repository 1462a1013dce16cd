"""Large requests are read in a thread: to decode one takes long enough for others to notice.

The decoder holds the interpreter lock meanwhile, but what comes before and after it (counting,
checking, giving the arguments their types) lets the reactor in between, every few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ganeti_masterd.luxi.messages import LuxiRequest, SizeBound, decode_request
from ganeti_masterd.mailbox import RunInThread

#: From how many bytes on a request is read in the thread. The slowest to decode that are smaller
#: take 15 ms, usual ones 3 ms; the way to the thread and back costs a small one more than that.
LARGE_REQUEST = 128 * 1024

#: Returns a request with its arguments typed. For any thread.
ReadAhead = Callable[[LuxiRequest], LuxiRequest]


class LargeRequests:
    """Reads the large requests of one socket where ``in_thread`` runs functions.

    ``largest`` is as for :func:`~ganeti_masterd.luxi.messages.decode_request`.
    """

    def __init__(self, in_thread: RunInThread, largest: SizeBound, read_ahead: ReadAhead) -> None:
        self._in_thread = in_thread
        self._largest = largest
        self._read_ahead = read_ahead

    def __call__(self, message: bytes) -> Deferred[LuxiRequest]:
        """Fires with the request that a message holds, its arguments typed.

        Fails as :func:`~ganeti_masterd.luxi.messages.decode_request` raises; what is wrong with
        the arguments is in the request. If it is cancelled before its turn comes, the message is
        let go of and never read.
        """
        held = [message]

        def read() -> LuxiRequest | None:
            try:
                taken = held.pop()
            except IndexError:  # cancelled
                return None
            return self._read_ahead(decode_request(taken, self._largest))

        def told(result: LuxiRequest | Failure) -> None:
            if not done.called:  # otherwise it was cancelled
                done.callback(result)

        done: Deferred[LuxiRequest] = Deferred(lambda _: held.clear())
        self._in_thread(read).addBoth(told)
        return done
