"""Prints which jobs fail, and what keeps the daemon from its work.

Usage: ``python failures.py ENDPOINT``, such as ``unix:/run/ganeti/monitoring``
"""

import sys

from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater, react

from ganeti_masterd.luxi.eventreader import EventReader
from ganeti_masterd.luxi.failures import CallFailed


async def main(reactor, endpoint):
    """Follows the stream of events, for ever."""
    events = EventReader(clientFromString(reactor, endpoint))
    while True:
        try:
            async for event in events:
                if event["event"] == "job" and event["job"]["status"] == "error":
                    print(f"Job {event['job']['id']} failed: {event['job']['error']}", flush=True)
                elif event["event"] == "state":
                    print("Watching", event["cluster"], *event["faults"], flush=True)
                elif event["event"] == "faults":
                    print(*event["faults"] or ["All is well"], sep="\n", flush=True)
        except CallFailed as failure:  # as while the daemon restarts
            print(failure, flush=True)
        await deferLater(reactor, 1.0)


if __name__ == "__main__":
    react(main, sys.argv[1:])
