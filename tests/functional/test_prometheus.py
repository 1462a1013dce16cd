"""A real Prometheus scrapes the daemon and answers the queries that people have for it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.waiting import job_is, until
from tests.test_deploy import RULES, alerts

CLUSTER = '{cluster="$cluster"}'

#: The expressions of ganeti/prometheus-ganeti-exporter's dashboards, "overview" and "details".
EXPORTERS = (
    "count(count by (cluster) (ganeti_cluster_node_count))",
    "sum(ganeti_cluster_node_count)",
    "sum(ganeti_node_mtotal)",
    "sum(ganeti_node_ctotal)",
    "sum(ganeti_node_dtotal)",
    "sum(ganeti_cluster_instance_count)",
    "sum(ganeti_instance_oper_ram)",
    "sum(ganeti_instance_oper_vcpus)",
    f"ganeti_cluster_node_count{CLUSTER}",
    f"sum(ganeti_cluster_offline_nodes{CLUSTER})",
    f"ganeti_cluster_instance_count{CLUSTER}",
    f"sum(ganeti_node_ctotal{CLUSTER})",
    f"sum(ganeti_node_mtotal{CLUSTER})",
    f"sum(ganeti_node_dtotal{CLUSTER})",
    f"avg(ganeti_instance_oper_vcpus{CLUSTER})",
    f"avg(ganeti_instance_oper_ram{CLUSTER})",
    f"sum(ganeti_instance_oper_vcpus{CLUSTER}) / sum(ganeti_node_ctotal{CLUSTER})",
    f"sum(ganeti_instance_oper_ram{CLUSTER})",
    f"sum(ganeti_instance_oper_vcpus{CLUSTER})",
    'ganeti_cluster_jobs{cluster="$cluster", job_status="error"}',
    f"avg(ganeti_job_wait_time{CLUSTER})",
    'ganeti_job_run_time{cluster="$cluster", job_operation="OP_INSTANCE_START"}',
    'ganeti_job_run_time{cluster="$cluster", job_operation="OP_INSTANCE_CREATE"}',
    'avg(ganeti_job_run_time{cluster="$cluster", job_operation=~"OP_CLUSTER_VERIFY_GROUP"})'
    ' + avg(ganeti_job_run_time{cluster="$cluster", job_operation=~"OP_CLUSTER_VERIFY"})'
    ' + avg(ganeti_job_run_time{cluster="$cluster", job_operation=~"OP_CLUSTER_VERIFY_CONFIG"})',
    f"sum(ganeti_node_mfree{CLUSTER})",
    f"sum(ganeti_node_dfree{CLUSTER})",
    f"ganeti_node_pinst_cnt{CLUSTER}",
    f"ganeti_node_sinst_cnt{CLUSTER}",
    f"ganeti_node_mfree{CLUSTER}",
    f"ganeti_node_dfree{CLUSTER}",
    f"ganeti_node_p_oper_vcpus{CLUSTER} / ganeti_node_ctotal{CLUSTER}",
    f"ganeti_cluster_jobs{CLUSTER}",
    f"avg by(job_operation) (ganeti_job_run_time{CLUSTER})",
)

#: Panels of our own dashboard that are empty as long as all is well.
QUIET = {"Jobs that fail", "Errors", "Calls that fail", "Waits for locks"}


def free_port() -> int:
    """Returns a port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Prometheus:
    """A server that scrapes the daemon each second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, page: str, **values: str) -> Any:
        """Returns the data of an answer, None while the server isn't there."""
        try:
            with urlopen(f"{self._url}{page}?{urlencode(values)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except URLError:
            return None

    def query(self, expression: str) -> list[Any]:
        """Returns the series of an expression."""
        found = self.ask("query", query=expression)
        return [] if found is None else list(found["result"])


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """Runs a server below the folder, with our rules."""
    program = require("prometheus", "prometheus")
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n"
        f"rule_files: [{RULES}]\n"
        f"scrape_configs:\n"
        f"  - {{job_name: ganeti, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n"
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        process.kill()
        process.wait()


def test_queries(make_daemon: Callable[..., DaemonProcess], folder: Path) -> None:
    """The exporter's dashboards and our own have data, no rule fails, and nothing is wrong."""
    target = free_port()
    daemon = make_daemon(f"--monitoring=tcp:{target}", "--monitoring-nodes=10")
    daemon.start()
    client = daemon.client()
    create = {
        "OP_ID": "OP_INSTANCE_CREATE",
        "instance_name": "web1",
        "mode": "create",
        "disk_template": "plain",
        "disks": [{"size": 128}],
        "nics": [],
        "pnode": "node1",
        "os_type": "noop",
        "ip_check": False,
        "name_check": False,
        "wait_for_sync": True,
        "start": False,
        "beparams": {"maxmem": 128, "minmem": 128, "vcpus": 1},
    }
    steps = (
        [create],
        [{"OP_ID": "OP_INSTANCE_STARTUP", "instance_name": "web1"}],
        [{"OP_ID": "OP_CLUSTER_VERIFY"}],
        [{"OP_ID": "OP_TEST_DELAY", "duration": 0.01}],
    )
    for ops in steps:
        job_is(client, client.submit_job(ops), "success")
    with prometheus(folder, target) as server:
        until("two scrapes", lambda: server.query("count_over_time(up[1m]) > 2"))
        cluster = client.config_values(["cluster_name"])[0]
        for expression in EXPORTERS:
            # Ganeti has no OP_INSTANCE_START; the exporter's panel is empty beside it, too.
            asked = expression.replace("OP_INSTANCE_START", "OP_INSTANCE_STARTUP")
            asked = asked.replace("$cluster", cluster)
            until(f"data for {asked}", lambda asked=asked: server.query(asked), limit=30)
        _dashboard(server, cluster)
        groups = server.ask("rules")["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        assert {rule["name"] for rule in found} == set(alerts())
        assert {rule["lastError"] for rule in found if "lastError" in rule} <= {""}
        firing = [rule["name"] for rule in found if rule["state"] == "firing"]
        assert firing == [], firing


def _dashboard(server: Prometheus, cluster: str) -> None:
    path = RULES.parents[1] / "grafana" / "ganeti.json"
    variables = {"cluster": cluster, "job": ".*", "instance": ".*", "__rate_interval": "1m"}
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            asked = re.sub(r"\$(\w+)", lambda found: variables[found[1]], target["expr"])
            answer = server.ask("query", query=asked)
            assert answer is not None, asked
            if panel["title"] not in QUIET:
                until(f"data for {asked}", lambda asked=asked: server.query(asked), limit=30)
