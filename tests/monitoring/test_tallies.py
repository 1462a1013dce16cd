"""Tests of counters and histograms against prometheus-client's own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.monitoring.declarations import METRICS, SHORT, Declared
from ganeti_masterd.monitoring.tallies import Counter, Histogram
from tests.examples import examples

EXAMPLES = examples(50, 1000)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(families: list[Metric]) -> Samples:
    """Returns values by name and labels, without the times at which series began."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in families
        for each in family.samples
        if not each.name.endswith("_created")
    }


class CounterTests(SynchronousTestCase):
    """Counters."""

    def test_without_labels_it_begins_at_zero(self) -> None:
        """A counter without labels is exported before it counts anything, so that rates work."""
        counter = Counter(Declared("things_total", "counter", "Things."))
        self.assertEqual(samples([counter.family()]), {("things_total", ()): 0})

    def test_series(self) -> None:
        """Each set of label values has its own count, increased by any amount."""
        counter = Counter(Declared("things_total", "counter", "Things.", ("kind",)))
        self.assertEqual(samples([counter.family()]), {})
        counter.add("a")
        counter.add("b", by=2**60)
        counter.add("a")
        self.assertEqual(
            samples([counter.family()]),
            {
                ("things_total", (("kind", "a"),)): 2,
                ("things_total", (("kind", "b"),)): 2**60,
            },
        )


class HistogramTests(SynchronousTestCase):
    """Histograms."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["a", 'quote " and \\ and \n']),
                st.one_of(st.floats(0, 100), st.sampled_from(SHORT)),
            ),
            max_size=30,
        )
    )
    def test_as_the_real_one(self, observed: list[tuple[str, float]]) -> None:
        """Buckets, count and sum are those of prometheus-client, also at the bounds."""
        registry = CollectorRegistry()
        theirs = TheirHistogram("h", "H.", ["kind"], buckets=SHORT, registry=registry)
        ours = Histogram(Declared("h", "histogram", "H.", ("kind",), SHORT))
        for kind, seconds in observed:
            theirs.labels(kind).observe(seconds)
            ours.observe(seconds, kind)
        self.assertEqual(samples([ours.family()]), samples(list(theirs.collect())))

    def test_without_labels_it_begins_empty(self) -> None:
        """All its samples are exported from the start."""
        histogram = Histogram(Declared("h", "histogram", "H.", bounds=(1.0,)))
        found = samples([histogram.family()])
        self.assertEqual(found[("h_count", ())], 0)
        self.assertEqual(found[("h_bucket", (("le", "+Inf"),))], 0)

    def test_time_that_went_backwards(self) -> None:
        """A negative time counts as 0, so that the sum never decreases."""
        histogram = Histogram(Declared("h", "histogram", "H.", bounds=(1.0,)))
        histogram.observe(-5.0)
        found = samples([histogram.family()])
        self.assertEqual(found[("h_sum", ())], 0)
        self.assertEqual(found[("h_bucket", (("le", "1.0"),))], 1)


class DeclarationTests(SynchronousTestCase):
    """The table of metrics."""

    def test_names(self) -> None:
        """Names follow Prometheus's conventions: counters end in _total, durations in _seconds."""
        for name, declared in METRICS.items():
            self.assertEqual(name, declared.name)
            self.assertTrue(name.startswith("ganeti_"), name)
            self.assertEqual(name.endswith("_total"), declared.kind == "counter", name)
            self.assertTrue(name.endswith("_seconds") or declared.kind != "histogram", name)
            self.assertEqual(bool(declared.bounds), declared.kind == "histogram", name)
            self.assertEqual(list(declared.bounds), sorted(set(declared.bounds)), name)
            self.assertTrue(declared.text.endswith("."), name)

    def test_no_job_ids(self) -> None:
        """No label has a job's id, because the number of time series would be unbounded."""
        labels = {label for declared in METRICS.values() for label in declared.labels}
        self.assertEqual(
            labels,
            {
                "cluster",
                "error",
                "file",
                "instance",
                "job_operation",
                "job_status",
                "level",
                "method",
                "node",
                "op_id",
                "outcome",
                "pool",
                "procedure",
                "socket",
                "thread",
                "version",
            },
        )

    def test_the_exporters_names(self) -> None:
        """Metrics that ganeti/prometheus-ganeti-exporter has too keep its names and labels."""
        theirs = {
            "ganeti_cluster_node_count": ("cluster",),
            "ganeti_cluster_offline_nodes": ("cluster",),
            "ganeti_cluster_instance_count": ("cluster",),
            "ganeti_cluster_jobs": ("cluster", "job_status"),
            "ganeti_node_pinst_cnt": ("cluster", "node"),
            "ganeti_node_sinst_cnt": ("cluster", "node"),
        }
        for name, labels in theirs.items():
            self.assertEqual((METRICS[name].kind, METRICS[name].labels), ("gauge", labels))

    def test_text_for_prometheus(self) -> None:
        """Label values with quotes and newlines survive the text format."""

        class One:
            def collect(self) -> list[Metric]:
                return [Declared("g", "gauge", "G.", ("a",)).family({('x"\n\\',): 1})]

        registry = CollectorRegistry()
        registry.register(One())
        (family,) = text_string_to_metric_families(generate_latest(registry).decode())
        self.assertEqual(family.samples[0].labels, {"a": 'x"\n\\'})
