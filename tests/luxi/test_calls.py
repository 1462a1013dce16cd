"""LUXI's methods as Python methods: what each of them sends."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.calls import Calls
from ganeti_masterd.luxi.client import LuxiClient


class Recorded(Calls):
    """Sends nothing: a call's result is what would be sent."""

    def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        return [method, *args]


class CallsTests(SynchronousTestCase):
    """The methods of protocol/luxi.rst, Methods, and their arguments."""

    def test_sent(self) -> None:
        """Each method sends its request, with the arguments in their places."""
        master = Recorded()
        op = {"OP_ID": "OP_TEST_DELAY", "duration": 1}
        for sent, expected in (
            (master.submit_job([op]), ["SubmitJob", [op]]),
            (master.submit_job_to_drained_queue([op]), ["SubmitJobToDrainedQueue", [op]]),
            (master.submit_many_jobs([[op], [op]]), ["SubmitManyJobs", [[op], [op]]]),
            (
                master.wait_for_job_change(5, ["status"], ["running"], 3, 10),
                ["WaitForJobChange", 5, ["status"], ["running"], 3, 10],
            ),
            (
                master.wait_for_job_change(5, ["status"]),
                ["WaitForJobChange", 5, ["status"], None, None, 89],
            ),
            (master.query_jobs(None, ["id"]), ["QueryJobs", None, ["id"]]),
            (master.cancel_job(5), ["CancelJob", 5]),
            (master.cancel_job(5, kill=True), ["CancelJob", 5, True]),
            (master.change_job_priority(5, -10), ["ChangeJobPriority", 5, -10]),
            (master.archive_job(5), ["ArchiveJob", 5]),
            (master.auto_archive_jobs(-1, 60), ["AutoArchiveJobs", -1, 60]),
            (master.query("node", ["name"]), ["Query", "node", ["name"], None]),
            (
                master.query("job", ["id"], ["=", "id", 5]),
                ["Query", "job", ["id"], ["=", "id", 5]],
            ),
            (master.query_fields("node"), ["QueryFields", "node", None]),
            (master.query_nodes([], ["name"]), ["QueryNodes", [], ["name"], False]),
            (master.query_instances(["a"], ["os"]), ["QueryInstances", ["a"], ["os"], False]),
            (master.query_groups([], ["name"]), ["QueryGroups", [], ["name"], False]),
            (master.query_networks([], ["name"]), ["QueryNetworks", [], ["name"], False]),
            (master.query_exports([]), ["QueryExports", [], False]),
            (master.query_tags("cluster"), ["QueryTags", "cluster", ""]),
            (master.query_tags("node", "a"), ["QueryTags", "node", "a"]),
            (master.cluster_info(), ["QueryClusterInfo"]),
            (master.config_values(["cluster_name"]), ["QueryConfigValues", ["cluster_name"]]),
            (master.set_drain_flag(True), ["SetDrainFlag", True]),
            (master.set_watcher_pause(None), ["SetWatcherPause", None]),
            (master.query_filters(None, ["uuid"]), ["QueryFilters", None, ["uuid"]]),
            (
                master.replace_filter(None, 1, [["jobid", [">", "id", 1]]], "PAUSE"),
                ["ReplaceFilter", None, 1, [["jobid", [">", "id", 1]]], "PAUSE", ()],
            ),
            (master.delete_filter("u"), ["DeleteFilter", "u"]),
        ):
            self.assertEqual(sent, expected)

    def test_both_clients(self) -> None:
        """Both clients have them all."""
        for client in (BlockingClient, LuxiClient):
            self.assertTrue(issubclass(client, Calls))
            self.assertEqual(client.__abstractmethods__, frozenset())
