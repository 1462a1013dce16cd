"""What is shipped for Prometheus and Grafana fits the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.monitoring.declarations import METRICS, Declared
from tools import dashboard

PROJECT = Path(__file__).resolve().parents[1]
PROMETHEUS = PROJECT / "deploy" / "prometheus"
RULES = PROMETHEUS / "ganeti.rules.yml"

PROMTOOL = shutil.which("promtool")

#: Labels that Prometheus puts on what it scrapes, and that of histograms' buckets.
TARGET = {"job", "instance"}
_NAME = re.compile(r"\b(?:ganeti|process)_[a-z0-9_]+\b")
_SELECTOR = re.compile(r"\b((?:ganeti|process)_[a-z0-9_]+)\{([^}]*)\}")
_LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")

#: An expression of the rules: a line, or a block that is indented more.
_EXPRESSION = re.compile(r"^ {8}expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", re.MULTILINE)

#: What prometheus-client tells of the process.
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


def alerts() -> dict[str, str]:
    """Returns the expression of each alert."""
    text = RULES.read_text("utf-8")
    names = re.findall(r"^ {6}- alert: (\w+)$", text, re.MULTILINE)
    found = [block or line for block, line in _EXPRESSION.findall(text)]
    return dict(zip(names, found, strict=True))


def declared(name: str) -> Declared | None:
    """Returns the metric that a series belongs to."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    metric = METRICS.get(base)
    return metric if metric is not None and metric.kind == "histogram" else METRICS.get(name)


def faults(expression: str, legend: str = "") -> Iterator[str]:
    """Yields what an expression, or the name of its lines, names that isn't there."""
    names = set(_NAME.findall(expression))
    there = set(TARGET)
    for name in names:
        metric = declared(name)
        if metric is not None:
            there |= {*metric.labels, *(["le"] if name.endswith("_bucket") else [])}
        elif name not in PROCESS:
            yield f"no metric {name}"
    for name, selected in _SELECTOR.findall(expression):
        metric = declared(name)
        own = TARGET | (set() if metric is None else set(metric.labels))
        yield from (
            f"{name} has no {label}" for label in _LABEL.findall(selected) if label not in own
        )
    for group in _GROUPED.findall(expression):
        for label in filter(None, map(str.strip, group.split(","))):
            if label not in there:
                yield f"no label {label} in {expression}"
    yield from (f"no label {label}" for label in _LEGEND.findall(legend) if label not in there)


class RulesTests(SynchronousTestCase):
    """``deploy/prometheus``."""

    @skipUnless(PROMTOOL, "promtool is not installed (Debian's package prometheus)")
    def test_promtool(self) -> None:
        """The rules are right for promtool; each alert fires when it should and not before."""
        assert PROMTOOL is not None
        tests = sorted(each.name for each in PROMETHEUS.glob("*.test.yml"))
        self.assertEqual(len(tests), 2)
        for command in (["check", "rules", RULES.name], ["test", "rules", *tests]):
            run = subprocess.run(
                [PROMTOOL, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False
            )
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_metrics(self) -> None:
        """Every metric and label that an alert names is declared."""
        self.assertGreater(len(alerts()), 20)
        for name, expression in alerts().items():
            self.assertEqual(list(faults(expression)), [], name)
            self.assertTrue(_NAME.search(expression), name)

    def test_each_is_tested(self) -> None:
        """Each alert is tested, in silence and when it fires."""
        text = "".join(each.read_text("utf-8") for each in PROMETHEUS.glob("*.test.yml"))
        for name in alerts():
            quoted = re.escape(f'"{name}"')
            counts = re.findall(rf"{quoted}.*\n.*\n\s*exp_samples: \[{{value: (\d)}}\]", text)
            self.assertEqual(set(counts), {"0", "1"}, name)

    def test_documented(self) -> None:
        """Each alert has a section of its own in the documentation, in the same order."""
        text = (PROJECT / "docs" / "alerts.rst").read_text("utf-8")
        sections = re.findall(r"^(Ganeti\w+)\n(~+)$", text, re.MULTILINE)
        self.assertEqual([name for name, _ in sections], list(alerts()))
        self.assertEqual([len(line) for _, line in sections], [len(name) for name in alerts()])

    def test_finds_faults(self) -> None:
        """What these tests look with finds a metric, a selector and a group that don't exist."""
        found = list(
            faults(
                'sum by (nobody) (ganeti_nothing) + ganeti_queue_slots{op_id="x"}'
                " + ganeti_job_wait_seconds",
                "{{somebody}}",
            )
        )
        self.assertEqual(len(found), 4, found)


class DashboardTests(SynchronousTestCase):
    """``deploy/grafana``."""

    def setUp(self) -> None:
        text = (PROJECT / "deploy" / "grafana" / "ganeti.json").read_text("utf-8")
        self.text = text
        self.board: dict[str, Any] = json.loads(text)
        self.panels = [each for each in self.board["panels"] if each["type"] != "row"]

    def test_made(self) -> None:
        """The file is what the generator makes."""
        self.assertEqual(self.text, dashboard.text())

    def test_metrics(self) -> None:
        """Every metric and label that a panel or a variable names is declared."""
        self.assertGreater(len(self.panels), 30)
        for panel in self.panels:
            for target in panel["targets"]:
                found = list(faults(target["expr"], target["legendFormat"]))
                self.assertEqual(found, [], panel["title"])
        for variable in self.board["templating"]["list"][1:]:
            self.assertEqual(list(faults(variable["definition"])), [])

    def test_import(self) -> None:
        """Any Grafana can import it: no id, and no data source but the one that is chosen."""
        self.assertIsNone(self.board["uid"])
        self.assertNotIn("id", self.board)
        self.assertIsInstance(self.board["schemaVersion"], int)
        self.assertEqual(self.board["templating"]["list"][0]["type"], "datasource")
        self.assertEqual(
            set(re.findall(r'"uid": (.*?)[,\n]', self.text)), {'"${datasource}"', "null"}
        )
        ids = [each["id"] for each in self.board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    def test_variables(self) -> None:
        """Expressions use only variables that the page has, or that Grafana knows."""
        known = {each["name"] for each in self.board["templating"]["list"]} | {"__rate_interval"}
        used = set(re.findall(r"\$\{?(\w+)", self.text)) - {"__all"}
        self.assertLessEqual(used, known)

    def test_places(self) -> None:
        """Panels don't cover one another and stay on the page."""
        taken: set[tuple[int, int]] = set()
        for panel in self.board["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertEqual(taken & cells, set(), panel["title"])
            taken |= cells
