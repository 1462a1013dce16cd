"""Makes Grafana's dashboard: ``python -m tools.dashboard > deploy/grafana/ganeti.json``.

The tables below say all that is in it; the rest is what Grafana wants around that.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

#: Grafana 9.5 and later read this version, and newer ones migrate it.
SCHEMA = 38

#: Grafana puts the data source that was chosen on top of the page here.
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One panel: its title, what it says, and expressions with the names of their lines.

    ``unit`` is Grafana's; ``bad`` is the value from which a number is red, downwards if ``below``.
    """

    title: str
    about: str
    lines: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    bad: float | None = None
    below: bool = False


def number(
    title: str,
    about: str,
    expr: str,
    unit: str = "short",
    *,
    bad: float | None = None,
    below: bool = False,
) -> Panel:
    """Returns a panel with one number."""
    return Panel(title, about, ((expr, ""),), unit, "stat", 4, bad, below)


def _quantile(share: float, name: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    window = f'rate({name}_bucket{{instance=~"$instance"}}[$__rate_interval])'
    return f"histogram_quantile({share}, sum by ({labels}) ({window}))"


def _of(name: str, more: str = "") -> str:
    return f'{name}{{instance=~"$instance"{more}}}'


def _of_cluster(name: str) -> str:
    return f'{name}{{cluster="$cluster"}}'


def _rate(name: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({_of(name, more)}[$__rate_interval]))"


_JOB = ', job=~"$job"'
_RUNNING = ', job_status="running"'
_WAITING = ', job_status=~"queued|waiting"'

#: The rows of the page, each with its panels.
ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "What is wrong",
        (
            number(
                "Masters", "More than one is a split brain.", "count(ganeti_masterd_info)", bad=2
            ),
            number(
                "Configuration's faults",
                "gnt-cluster verify names them.",
                f"max({_of('ganeti_config_faults')})",
                bad=1,
            ),
            number(
                "Candidates out of date",
                "They couldn't take over without loss.",
                f"count({_of('ganeti_replica_current')} == 0) or vector(0)",
                bad=1,
            ),
            number(
                "Journal",
                "1 if the last commit succeeded.",
                f"min({_of('ganeti_journal_writable')})",
                bad=0.5,
                below=True,
            ),
            number(
                "First certificate expires in",
                "gnt-cluster renew-crypto makes new ones.",
                f"min({_of('ganeti_certificate_expiry_timestamp_seconds')}) - time()",
                "s",
                bad=30 * 86400,
                below=True,
            ),
            number(
                "Room for the queue",
                "Free share of its file system.",
                f"min({_of('ganeti_queue_disk_free_bytes')}"
                f" / {_of('ganeti_queue_disk_size_bytes')})",
                "percentunit",
                bad=0.05,
                below=True,
            ),
            number(
                "Queue drained",
                "1 if it takes no jobs.",
                f"max({_of('ganeti_queue_drained')})",
                bad=1,
            ),
            number(
                "Watcher pauses for",
                "gnt-cluster watcher continue ends it.",
                f"clamp_min(max({_of('ganeti_watcher_paused_until_timestamp_seconds')})"
                " - time(), 0)",
                "s",
                bad=1,
            ),
            number(
                "Offline nodes",
                "gnt-node list shows which.",
                _of_cluster("ganeti_cluster_offline_nodes"),
                bad=1,
            ),
            number(
                "Oldest running job",
                "Age since its start.",
                f"max({_of('ganeti_job_oldest_seconds', _RUNNING)})",
                "s",
                bad=6 * 3600,
            ),
            number(
                "Oldest waiting job",
                "gnt-luxi why ID says what for.",
                f"max({_of('ganeti_job_oldest_seconds', _WAITING)})",
                "s",
                bad=1800,
            ),
            number(
                "Longest wait for locks",
                "gnt-luxi why ID says who holds them.",
                f"max({_of('ganeti_lock_oldest_wait_seconds')})",
                "s",
                bad=3600,
            ),
        ),
    ),
    (
        "Jobs",
        (
            Panel(
                "Jobs by status",
                "Those that aren't archived.",
                ((_of_cluster("ganeti_cluster_jobs"), "{{job_status}}"),),
            ),
            Panel(
                "Jobs that end",
                "A second, by status.",
                ((_rate("ganeti_jobs_ended_total", "job_status"), "{{job_status}}"),),
                "ops",
            ),
            Panel(
                "Jobs that fail",
                "A second, by first opcode.",
                ((_rate("ganeti_jobs_ended_total", "op_id", ', job_status="error"'), "{{op_id}}"),),
                "ops",
            ),
            Panel(
                "Wait until the start",
                "From submission.",
                (
                    (_quantile(0.5, "ganeti_job_wait_seconds"), "median"),
                    (_quantile(0.95, "ganeti_job_wait_seconds"), "95 %"),
                ),
                "s",
            ),
            Panel(
                "Run time of opcodes",
                "95th percentile, without waits for locks.",
                ((_quantile(0.95, "ganeti_opcode_run_seconds", "op_id"), "{{op_id}}"),),
                "s",
            ),
            Panel(
                "Waits for locks",
                "95th percentile, by level.",
                ((_quantile(0.95, "ganeti_lock_wait_seconds", "level"), "{{level}}"),),
                "s",
            ),
            Panel(
                "Slots",
                "A job that waits for locks needs none.",
                (
                    (_of("ganeti_queue_slots_used"), "in use"),
                    (_of("ganeti_queue_slots"), "all"),
                    (_of("ganeti_queue_jobs_awaiting_locks"), "wait for locks"),
                ),
            ),
            Panel(
                "Errors",
                "Jobs a second, by class of the error.",
                ((_rate("ganeti_opcode_errors_total", "error"), "{{error}}"),),
                "ops",
            ),
            Panel(
                "Submissions",
                "A second.",
                (
                    (
                        f"sum(rate({_of('ganeti_jobs_submitted_total')}[$__rate_interval]))",
                        "submitted",
                    ),
                    (
                        f"sum(rate({_of('ganeti_jobs_archived_total')}[$__rate_interval]))",
                        "archived",
                    ),
                ),
                "ops",
            ),
        ),
    ),
    (
        "Nodes and instances",
        (
            Panel(
                "Instances and nodes",
                "As configured.",
                (
                    (_of_cluster("ganeti_cluster_instance_count"), "instances"),
                    (_of_cluster("ganeti_cluster_node_count"), "nodes"),
                ),
            ),
            Panel(
                "Instances by primary node",
                "As configured.",
                ((_of_cluster("ganeti_node_pinst_cnt"), "{{node}}"),),
            ),
            Panel(
                "Calls that fail",
                "A second, by node.",
                ((_rate("ganeti_node_errors_total", "node"), "{{node}}"),),
                "ops",
            ),
            Panel(
                "Time of calls",
                "95th percentile, by procedure.",
                ((_quantile(0.95, "ganeti_node_call_seconds", "procedure"), "{{procedure}}"),),
                "s",
            ),
            Panel(
                "Free memory",
                "Needs --monitoring-nodes.",
                ((_of_cluster("ganeti_node_mfree"), "{{node}}"),),
                "mbytes",
            ),
            Panel(
                "Free disk space",
                "Needs --monitoring-nodes.",
                ((_of_cluster("ganeti_node_dfree"), "{{node}}"),),
                "mbytes",
            ),
            Panel(
                "Virtual processors for each one",
                "Needs --monitoring-nodes.",
                (
                    (
                        f"{_of_cluster('ganeti_node_p_oper_vcpus')}"
                        f" / {_of_cluster('ganeti_node_ctotal')}",
                        "{{node}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Replication and journal",
        (
            Panel(
                "Files on their way",
                "To each master candidate.",
                ((_of("ganeti_replica_waiting_files"), "{{node}}"),),
            ),
            Panel(
                "Configuration is behind",
                "Serial numbers, of each master candidate.",
                ((_of("ganeti_replica_config_serial_lag"), "{{node}}"),),
            ),
            Panel(
                "Backlog",
                "Rows that Ganeti's files don't hold yet.",
                ((_of("ganeti_journal_backlog_rows"), "rows"),),
            ),
            Panel(
                "Commits",
                "A second.",
                (
                    (
                        f"rate({_of('ganeti_journal_commit_seconds_count')}[$__rate_interval])",
                        "commits",
                    ),
                    (f"rate({_of('ganeti_journal_rows_total')}[$__rate_interval])", "rows"),
                ),
                "ops",
            ),
            Panel(
                "Time of commits",
                "",
                (
                    (_quantile(0.5, "ganeti_journal_commit_seconds"), "median"),
                    (_quantile(0.99, "ganeti_journal_commit_seconds"), "99 %"),
                ),
                "s",
            ),
        ),
    ),
    (
        "The daemon",
        (
            Panel(
                "Reactor's latency",
                "How late timers run.",
                (
                    (_quantile(0.5, "ganeti_reactor_latency_seconds"), "median"),
                    (_quantile(0.99, "ganeti_reactor_latency_seconds"), "99 %"),
                ),
                "s",
            ),
            Panel(
                "Requests",
                "A second, by method.",
                ((_rate("ganeti_luxi_requests_total", "method"), "{{method}}"),),
                "ops",
            ),
            Panel(
                "Time of requests",
                "99th percentile, by method; waiting clients are meant to wait.",
                ((_quantile(0.99, "ganeti_luxi_request_seconds", "method"), "{{method}}"),),
                "s",
            ),
            Panel(
                "Clients",
                "",
                (
                    (_of("ganeti_luxi_connections"), "{{socket}}"),
                    (_of("ganeti_luxi_clients_waiting"), "wait for a job"),
                ),
            ),
            Panel(
                "Threads at work",
                "",
                (
                    (_of("ganeti_pool_threads_busy"), "{{pool}}"),
                    (_of("ganeti_pool_threads"), "{{pool}}, all"),
                ),
            ),
            Panel(
                "Memory", "", ((_of("process_resident_memory_bytes", _JOB), "resident"),), "bytes"
            ),
            Panel(
                "Processor",
                "",
                (
                    (
                        f"rate({_of('process_cpu_seconds_total', _JOB)}[$__rate_interval])",
                        "seconds a second",
                    ),
                ),
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it: without id, and with no data source's uid."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(_row(len(panels) + 1, title, y))
        y += 1
        x = height = 0
        for panel in row:
            if x + panel.width > 24:
                x, y = 0, y + height
            height = 4 if panel.kind == "stat" else 8
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            panels.append(_panel(len(panels) + 1, panel, place))
            x += panel.width
        y += height
    return {
        "annotations": {"list": []},
        "description": "A Ganeti cluster whose master runs gnt-masterd with --monitoring",
        "editable": True,
        "graphTooltip": 1,
        "links": [],
        "panels": panels,
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "tags": ["ganeti"],
        "templating": {"list": _variables()},
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "title": "Ganeti",
        "uid": None,
        "version": 1,
    }


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "current": {},
    }
    asked = (
        ("cluster", "Cluster", "label_values(ganeti_cluster_node_count, cluster)", False),
        ("job", "Job", 'label_values(ganeti_cluster_node_count{cluster="$cluster"}, job)', True),
        (
            "instance",
            "Master",
            'label_values(ganeti_cluster_node_count{cluster="$cluster"}, instance)',
            True,
        ),
    )
    return [source, *(_asked(*each) for each in asked)]


def _asked(name: str, label: str, query: str, everything: bool) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "includeAll": everything,
        "multi": everything,
        "regex": "",
        "options": [],
        "current": {"text": "All", "value": "$__all"} if everything else {},
    }


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": 24, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any]
    if panel.kind == "stat":
        first, then = ("red", "green") if panel.below else ("green", "red")
        steps: list[dict[str, Any]] = [{"color": first, "value": None}]
        if panel.bad is not None:
            steps.append({"color": then, "value": panel.bad})
        del defaults["min"]
        defaults |= {
            "color": {"mode": "thresholds"},
            "thresholds": {"mode": "absolute", "steps": steps},
        }
        options = {
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    else:
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": expr,
                "legendFormat": legend or "__auto",
                "range": True,
            }
            for index, (expr, legend) in enumerate(panel.lines)
        ],
    }


def text() -> str:
    """Returns the content of the dashboard's file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
