"""Listings of resources with a daemon that answers from a table."""

from __future__ import annotations

import json
from typing import Any

from ganeti_masterd.cli import output
from ganeti_masterd.cli.cells import CellWriting, Head
from ganeti_masterd.cli.listings import LISTINGS
from ganeti_masterd.errors import ParameterError, prereq
from ganeti_masterd.query.resources import RESOURCES, describe
from tests.cli.doubles import FAILED_ROW, NOW, OK_ROW, CommandCase, job_answers

#: Values of a node, by field.
NODE = {
    "name": [0, "node1"],
    "role": [0, "M"],
    "group": [0, "default"],
    "dtotal": [0, 2097152],
    "dfree": [3, None],
    "mtotal": [0, 1536],
    "mfree": [4, None],
    "pinst_cnt": [0, 3],
    "sinst_cnt": [0, 0],
    "offline": [0, False],
    "ctime": [0, NOW + 0.5],
    "tags": [0, ["a", "b\x1b"]],
    "pinst_list": [0, []],
    "ndparams": [0, {"spindle_count": 1}],
    "bootid": [2, None],
    "hv_state": [0, None],
}


class ListingCase(CommandCase):
    """A daemon with two nodes that differ only in their names, which records queries."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon.answers.update(Query=self.query, QueryFields=self.fields)

    def query(self, what: str, fields: list[str], wanted: Any) -> Any:
        first = [NODE.get(name, [1, None]) for name in fields]
        second = [[0, "node2"] if name == "name" else NODE.get(name, [1, None]) for name in fields]
        return {"fields": describe(what, fields), "data": [first, second]}

    def fields(self, what: str, names: list[str] | None) -> Any:
        return {"fields": describe(what, names)}

    def asked(self) -> list[Any]:
        """The arguments of the last query."""
        return [args for method, args in self.daemon.heard if method == "Query"][-1]


class LineTests(ListingCase):
    """Output without a terminal."""

    def test_usual_fields(self) -> None:
        """Lines have values separated by tabs, with sizes as numbers of MiB."""
        self.assertEqual(
            self.run_ok("nodes"),
            "node1\tM\tdefault\t2097152\t-\t1536\t*\t3\t0\n"
            "node2\tM\tdefault\t2097152\t-\t1536\t*\t3\t0\n",
        )
        self.assertIsNone(self.asked()[2])

    def test_every_kind(self) -> None:
        """Flags, times, lists, objects, nulls and control characters are formatted."""
        fields = "name,offline,ctime,tags,pinst_list,ndparams,bootid,hv_state"
        self.assertEqual(
            self.run_ok("nodes", "-o", fields).splitlines()[0].split("\t"),
            [
                *("node1", "N", "2026-01-02 03:04:05", "a,b\\x1b", ""),
                *('{"spindle_count":1}', "?", "-"),
            ],
        )

    def test_who_waits_for_a_lock(self) -> None:
        """Waiting jobs are listed in order; a value of another form is shown as it is."""
        head = Head("pending", "Pending", "other")
        for value, shown in (
            ([["exclusive", ["4"]], ["shared", ["5", "6"]]], "exclusive:4, shared:5|6"),
            ([], "-"),
            ([[1, 2]], "[[1,2]]"),
        ):
            self.assertEqual(CellWriting().cell(head, 0, value), shown)

    def test_fields_added(self) -> None:
        """A plus adds fields to the default ones."""
        self.run_ok("nodes", "-o", "+uuid, ctime")
        self.assertEqual(self.asked()[1][-3:], ["sinst_cnt", "uuid", "ctime"])

    def test_options(self) -> None:
        """The options for titles, separator, units and words work."""
        fields = ("-o", "name,mtotal,dtotal,mfree,dfree")
        self.assertEqual(
            self.run_ok("nodes", *fields, "--headers", "--separator", " | ", "--units", "h", "-v"),
            "Node | MTotal | DTotal | MFree | DFree\n"
            "node1 | 1.5G | 2.0T | (offline) | (unavailable)\n"
            "node2 | 1.5G | 2.0T | (offline) | (unavailable)\n",
        )
        for units, shown in (("m", "1536\t2097152"), ("g", "1.5\t2048.0"), ("t", "0.0\t2.0")):
            text = self.run_ok("nodes", *fields, "--units", units)
            self.assertEqual(text.splitlines()[0], f"node1\t{shown}\t*\t-")

    def test_json(self) -> None:
        """JSON has an object for each row, with the reason for what is missing."""
        rows = self.run_json("nodes", "-o", "name,mtotal,mfree,bootid")
        missing = {"mfree": "offline", "bootid": "no data"}
        self.assertEqual(
            rows[0],
            {"name": "node1", "mtotal": 1536, "mfree": None, "bootid": None} | {"missing": missing},
        )
        self.assertEqual(self.run_json("nodes", "-o", "name")[1], {"name": "node2"})


class TerminalTests(ListingCase):
    """Output on a terminal."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(output, "on_terminal", lambda: True)

    def test_table(self) -> None:
        """A terminal shows a table with titles, and sizes in suitable units."""
        lines = self.run_ok("nodes", "-o", "name,mtotal").splitlines()
        self.assertEqual(
            [line.split() for line in lines[:2]], [["Node", "MTotal"], ["node1", "1.5G"]]
        )
        lines = self.run_ok("nodes", "-o", "name,mtotal", "--no-headers").splitlines()
        self.assertEqual([line.split() for line in lines], [["node1", "1.5G"], ["node2", "1.5G"]])

    def test_separator(self) -> None:
        """With a separator lines are printed, as without a terminal."""
        text = self.run_ok("nodes", "-o", "name,mtotal", "--separator", ":")
        self.assertEqual(text, "node1:1536\nnode2:1536\n")


class ChoiceTests(ListingCase):
    """Which rows are asked for."""

    def test_names(self) -> None:
        """Names are sent in order, patterns as regular expressions."""
        self.run_ok("nodes", "node2", "node1")
        self.assertEqual(self.asked()[2], ["|", ["=", "name", "node2"], ["=", "name", "node1"]])
        self.run_ok("nodes", "node?")
        self.assertEqual(self.asked()[2], ["|", ["=~", "name", r"^node[^.](\..*)?$"]])
        self.run_ok("exports", "-o", "node", "node2")
        self.assertEqual(self.asked(), ["export", ["node"], ["|", ["=", "node", "node2"]]])

    def test_filter(self) -> None:
        """A filter is sent as nested lists."""
        self.run_ok("nodes", "-F", 'not master and "x" in tags')
        self.assertEqual(self.asked()[2], ["&", ["!", ["?", "master"]], ["=[]", "tags", "x"]])

    def test_bad_filter(self) -> None:
        """An invalid filter is reported with the place of the fault, and nothing is sent."""
        result = self.run_failing("nodes", "-F", "a ==", code=2)
        self.assertIn("Expected a number or a quoted text, but the filter ends", result.stderr)
        self.assertTrue(result.stderr.endswith("  a ==\n      ^\n"), result.stderr)
        self.assertEqual(self.daemon.heard, [])

    def test_names_and_filter(self) -> None:
        """Names together with a filter are refused, with a hint how to combine them."""
        result = self.run_failing("nodes", "node1", "-F", "master", code=2)
        self.assertIn('name == "node1"', result.stderr)

    def test_errors_of_the_daemon(self) -> None:
        """The daemon's refusals are shown in its words."""
        self.daemon.answers["Query"] = prereq("Node name x not found", "unknown_entity")
        result = self.run_failing("nodes", "x")
        self.assertEqual(
            result.stderr, "gnt-luxi: OpPrereqError (unknown_entity): Node name x not found\n"
        )
        self.daemon.answers["Query"] = ParameterError("Invalid types in comparison")
        result = self.run_failing("nodes", "-F", "name < 5")
        self.assertEqual(result.stderr, "gnt-luxi: ParameterError: Invalid types in comparison\n")

    def test_unknown_fields(self) -> None:
        """An unknown field is an error that suggests similar ones."""
        result = self.run_failing("nodes", "-o", "name,mfre,zzzzz")
        self.assertEqual(result.stdout, "")
        self.assertEqual(
            result.stderr,
            "gnt-luxi: No such fields: 'mfre' (is it mfree?), 'zzzzz'. "
            "To list all: gnt-luxi fields nodes\n",
        )

    def test_no_fields(self) -> None:
        """A list of fields with an empty name is refused."""
        for fields in ("", "name,,role", "+"):
            self.run_failing("nodes", "-o", fields, code=2)

    def test_answer_that_makes_no_sense(self) -> None:
        """A malformed answer is reported as such."""
        self.daemon.answers["Query"] = {"fields": 5}
        result = self.run_failing("nodes")
        self.assertIn("can't be understood", result.stderr)


class EveryListingTests(ListingCase):
    """All the commands."""

    def test_usual_fields_exist(self) -> None:
        """The default fields and the field of names exist."""
        for listing in LISTINGS:
            known = RESOURCES[listing.resource].fields
            self.assertLessEqual({*listing.shown, listing.key} - {None}, set(known))
            self.run_ok(listing.command)
            self.assertEqual(self.asked(), [listing.resource, list(listing.shown), None])

    def test_every_resource_has_one(self) -> None:
        """Every resource has a command."""
        self.assertEqual({*(one.resource for one in LISTINGS), "job"}, set(RESOURCES))

    def test_cluster_has_no_names(self) -> None:
        """The cluster's command takes no names."""
        self.run_failing("cluster", "x", code=2)


class FieldsTests(ListingCase):
    """``fields``."""

    def test_all(self) -> None:
        """All fields of a resource are listed, with kind, title and description."""
        lines = self.run_ok("fields", "jobs").splitlines()
        self.assertEqual(len(lines), len(RESOURCES["job"].fields))
        self.assertEqual(lines[0].split("\t")[:3], ["archived", "bool", "Archived"])
        self.assertEqual(self.run_json("fields", "jobs"), describe("job", None))

    def test_named(self) -> None:
        """Named fields are listed in that order; an unknown one is an error."""
        lines = self.run_ok("fields", "nodes", "role", "name").splitlines()
        self.assertEqual([line.split("\t")[0] for line in lines], ["role", "name"])
        result = self.run_failing("fields", "nodes", "zzz")
        self.assertEqual(
            result.stderr,
            "gnt-luxi: No such field: 'zzz'. To list all: gnt-luxi fields nodes\n",
        )
        self.run_failing("fields", "nosuch", code=2)


class JobsTests(CommandCase):
    """``jobs`` with fields and filters."""

    def setUp(self) -> None:
        super().setUp()
        rows = {row["id"]: row for row in (OK_ROW, FAILED_ROW)}

        def query(what: str, fields: list[str], wanted: Any) -> Any:
            self.assertEqual(what, "job")
            ids = [7, 8]
            if wanted == ["==", "status", "error"]:
                ids = [8]
            elif wanted is not None:
                self.assertEqual(wanted[0], "|")
                ids = [value for _, _, value in wanted[1:]]
            cells = [[[0, rows[job][name]] for name in fields] for job in ids]
            return {"fields": describe("job", fields), "data": cells}

        self.daemon.answers.update(
            Query=query,
            QueryFields=lambda what, names: {"fields": describe(what, names)},
            QueryJobs=job_answers(OK_ROW, FAILED_ROW),
        )

    def test_filter(self) -> None:
        """A filter selects jobs for the default list."""
        text = self.run_ok("jobs", "-F", 'status == "error"')
        self.assertEqual([line.split("\t")[:2] for line in text.splitlines()], [["8", "error"]])

    def test_fields(self) -> None:
        """Fields replace the default list, for the jobs that the other options select."""
        self.assertEqual(
            self.run_ok("jobs", "-o", "id,status", "--headers", "--separator", ":"),
            "ID:Status\n7:success\n8:error\n",
        )
        self.assertEqual(self.run_ok("jobs", "-o", "id", "--status", "error"), "8\n")
        self.assertEqual(self.run_ok("jobs", "-o", "id", "--limit", "1"), "8\n")
        rows = self.run_json("jobs", "-o", "+priority", "-F", 'status == "error"')
        self.assertEqual(
            rows, [{"id": 8, "status": "error", "summary": ["TEST_DELAY(1.0)"], "priority": 0}]
        )

    def test_archived(self) -> None:
        """With --archived the filter also applies to the archive."""
        self.run_ok("jobs", "--archived", "-F", 'status == "error"')
        asked = [args for method, args in self.daemon.heard if method == "Query"]
        self.assertEqual(asked[0][1], ["id", "status", "archived"])

    def test_no_job(self) -> None:
        """If no job passes, nothing is shown."""
        self.assertEqual(self.run_ok("jobs", "-o", "id", "--status", "queued"), "")
        self.assertEqual(
            json.loads(self.run_ok("--json", "jobs", "-o", "id", "--status", "queued")), []
        )
