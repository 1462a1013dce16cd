"""Follows a master daemon: how many jobs have which status, and which of them failed.

Usage: ``python monitor.py SOCKET``
"""

import sys
from collections import Counter

from twisted.internet.task import deferLater, react

from ganeti_masterd.luxi.client import LuxiClient
from ganeti_masterd.luxi.failures import CallFailed


async def main(reactor, socket):
    """Looks each second, for ever; what changed is printed."""
    master = LuxiClient.at(socket, reactor)
    before = None
    while True:
        try:
            now = dict(await master.query_jobs(None, ["id", "status"]))
            if now != before:
                counts = Counter(now.values())
                print(", ".join(f"{counts[status]} {status}" for status in sorted(counts)))
            known = now if before is None else before
            failed = [job for job in now if now[job] == "error" != known.get(job)]
            if failed:
                for job, summary, results in await master.query_jobs(failed, FIELDS):
                    print(f"Job {job} failed: {', '.join(summary)}: {results}")
            before = now
        except CallFailed as failure:  # as while it restarts
            print(failure)
        await deferLater(reactor, 1.0)


FIELDS = ["id", "summary", "opresult"]

if __name__ == "__main__":
    react(main, sys.argv[1:])
