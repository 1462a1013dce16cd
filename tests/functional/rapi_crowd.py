"""Clients of the remote API at once on a real cluster, each with an instance of its own.

All clients are threads of one process of Debian's Python with Debian's client; each request is
answered by a process of ganeti-rapi of its own, as always.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from tests.functional.conftest import do_without, need_peer
from tests.functional.realcluster import NET, RealCluster, real_cluster
from tests.functional.remoteapi import SYSTEM_PYTHON
from tests.functional.waiting import until

USERS = "tester secret write\n"

#: Each client makes an instance, starts, asks, changes, stops and removes it; it waits for each
#: job by the API's own call that waits. Prints a JSON object, see :class:`CrowdResult`.
_SCRIPT = """
import json, sys, threading, time
from ganeti.rapi import client
clients, host = int(sys.argv[1]), sys.argv[2]
done, errors, jobs, lock = [0], [], [], threading.Lock()
longest, dropped = [0.0, ""], [0]
client.pycurl.global_init(client.pycurl.GLOBAL_ALL)

def life(number):
    rapi = client.GanetiRapiClient(host, username="tester", password="secret")
    name = "crowd%d" % number
    def ask(method, *args, **named):
        asked = time.monotonic()
        while True:
            try:
                answer = getattr(rapi, method)(*args, **named)
                break
            except Exception as error:
                # Of a handshake that fails ganeti-rapi has seen no request.
                again = "handshake() failed" in str(error) and time.monotonic() < asked + 60
                with lock:
                    if again:
                        dropped[0] += 1
                        continue
                    errors.append("%s %s: %s" % (name, method, error))
                raise
        took = time.monotonic() - asked
        with lock:
            done[0] += 1
            if method != "WaitForJobChange":
                longest[:] = max(longest, [took, method])
        return answer
    def work(method, *args, **named):
        job = ask(method, *args, **named)
        status, before = None, None
        while status not in ("success", "error", "canceled"):
            seen = ask("WaitForJobChange", job, ["status"], before, -1)
            if seen is not None:
                before = seen["job_info"]
                status = before[0]
        with lock:
            jobs.append(status)
            if status != "success":
                errors.append("%s %s: job %s: %s" % (name, method, job, status))
    try:
        work("CreateInstance", "create", name, "diskless", [], [], os="noop", pnode="node%d"
             % (number % 3 + 1), name_check=False, ip_check=False, start=False)
        work("StartupInstance", name)
        ask("GetInstance", name)
        ask("GetInstances", bulk=True)
        work("ModifyInstance", name, beparams={"vcpus": 2})
        ask("GetNodes", bulk=True)
        work("ShutdownInstance", name, timeout=0)
        work("DeleteInstance", name)
    except Exception:
        pass

threads = [threading.Thread(target=life, args=(number,)) for number in range(clients)]
begun = time.monotonic()
for each in threads:
    each.start()
for each in threads:
    each.join()
json.dump({"requests": done[0], "jobs": len(jobs), "errors": errors,
           "seconds": time.monotonic() - begun, "longest": longest,
           "dropped": dropped[0]}, sys.stdout)
"""

#: Jobs of each client.
JOBS_EACH = 5


class CrowdResult(Struct, frozen=True):
    """What a crowd did: requests that were answered, jobs that ended, what went wrong, how long.

    ``longest`` is the longest wait for an answer, seconds, and the method; those that wait for a
    job don't count. ``dropped`` counts handshakes of TLS that failed, as they do on a busy machine,
    before ganeti-rapi had read a request; the clients tried again.
    """

    requests: int
    jobs: int
    errors: list[str]
    seconds: float
    longest: tuple[float, str]
    dropped: int

    @property
    def jobs_rate(self) -> float:
        """Jobs a second, from the request that submits one to the answer that it has ended."""
        return self.jobs / self.seconds

    def __str__(self) -> str:
        rate = self.requests / self.seconds
        return (
            f"{self.requests} requests and {self.jobs} jobs in {self.seconds:.1f} s:"
            f" {rate:.1f} requests/s, {self.jobs_rate:.2f} jobs/s,"
            f" longest answer {self.longest[0]:.1f} s ({self.longest[1]}),"
            f" {self.dropped} handshakes tried again"
        )


@contextlib.contextmanager
def crowded_cluster() -> Iterator[RealCluster]:
    """A real cluster, luxid its master daemon, whose remote API takes the crowd's user."""
    need_peer()
    found = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import ganeti.rapi.client"], check=False, capture_output=True
    )
    if found.returncode != 0:
        do_without("no ganeti.rapi.client (Debian's package python3-ganeti-rapi)")
    with real_cluster() as made:
        _admit(made)
        yield made


def _admit(cluster: RealCluster) -> None:
    """Lets the crowd's user in; waits until the remote API knows it."""
    users = cluster.folder / "node1/var/lib/ganeti/rapi/users"
    users.parent.mkdir(exist_ok=True)
    users.write_text(USERS, encoding="utf-8")
    users.chmod(0o644)
    (cluster.folder / "crowd.py").write_text(_SCRIPT, encoding="utf-8")
    cluster.daemon_util("stop ganeti-rapi").checked()
    cluster.daemon_util("start ganeti-rapi").checked()
    until(
        "the remote API listens",
        lambda: cluster.run(f"exec 3<>/dev/tcp/{NET}.10/5080").code,
        lambda code: code == 0,
    )


def crowd(cluster: RealCluster, clients: int, limit: float = 600.0) -> CrowdResult:
    """Runs so many clients to their end, and returns what they did."""
    command = f"{SYSTEM_PYTHON} {cluster.folder}/crowd.py {clients} {NET}.10"
    ran = cluster.run(command, limit=limit).checked()
    return msgspec.convert(json.loads(ran.out), CrowdResult)


def went_well(cluster: RealCluster, clients: int, result: CrowdResult) -> None:
    """Checks that all requests were answered and all jobs succeeded, and that nothing is left."""
    assert result.errors == []
    assert result.jobs == clients * JOBS_EACH
    assert cluster.run("gnt-instance list --no-headers -o name").checked().out == ""
    assert cluster.run("gnt-job list --no-headers --running").checked().out == ""
