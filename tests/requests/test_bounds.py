"""Requests that would keep everybody waiting: refused by a count, before they are worked on."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import LuxiError, OpPrereqError
from ganeti_masterd.filtertree import MAX_PATTERNS, MAX_TERMS, MalformedFilter, read_filter
from ganeti_masterd.luxi import messages
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.messages import (
    MAX_COMMAS,
    MAX_CONTAINERS,
    MAX_REQUEST,
    RequestBound,
    decode_request,
)
from ganeti_masterd.patterns import LONGEST
from ganeti_masterd.query.resources import MAX_FIELDS, select
from ganeti_masterd.requests.arguments import (
    MAX_DESCRIBED,
    MAX_JOB_IDS,
    MAX_JOBS,
    MAX_NAMES,
    MAX_OPCODES,
    MAX_OPCODES_OF_ALL,
)
from ganeti_masterd.requests.methods import size_bound
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.requests.wconfd import WCONFD_METHODS

LARGEST = size_bound(METHODS)


def message(method: Any, *args: Any) -> bytes:
    return json.dumps({"args": args, "method": method}).encode()


class WholeConfigurationTests(SynchronousTestCase):
    """Ganeti's own tools write the whole configuration back, however large the cluster is."""

    def test_any_number_of_values(self) -> None:
        """Values and containers aren't counted there; they are in every other request."""
        bounds = size_bound(WCONFD_METHODS)
        config = [[{}] * MAX_CONTAINERS, [1] * MAX_COMMAS, "x" * MAX_REQUEST]
        for name in WCONFD_METHODS:
            long = message(name, config)
            if name == "writeConfigAndUnlock":
                self.assertEqual(decode_request(long, bounds).method, name)
            else:
                error = self.assertRaises(OpPrereqError, decode_request, long, bounds)
                self.assertIn("may have", error.args[0])


class SizeTests(SynchronousTestCase):
    """How many bytes the requests of a method may have."""

    def test_by_method(self) -> None:
        """Each method is refused above its own size by name; submissions have no bound here."""
        for name, method in METHODS.items():
            bound = LARGEST(name).size
            self.assertEqual(LARGEST(name), RequestBound(method.largest))
            long = message(name, "x" * (bound or 2 * MAX_REQUEST))
            if bound is None:
                self.assertIn("Submit", name)
                self.assertEqual(decode_request(long, LARGEST).method, name)
                continue
            error = self.assertRaises(OpPrereqError, decode_request, long, LARGEST)
            self.assertEqual(
                error.args[0], f"{name}: the request has {len(long)} bytes, and may have {bound}"
            )

    def test_nothing_is_made_of_it(self) -> None:
        """What is too large for its method isn't decoded, wherever the method stands."""
        self.patch(messages, "parse_strictly", lambda _: self.fail("it was decoded"))
        for document in (
            {"method": "Query", "args": ["x" * MAX_REQUEST]},
            {"args": ["x" * MAX_REQUEST], "method": "Query"},
            {"method": "NoSuch", "args": ["x" * MAX_REQUEST]},
            {"args": ["x" * MAX_REQUEST]},
        ):
            long = json.dumps(document).encode()
            self.assertRaises(OpPrereqError, decode_request, long, LARGEST)

    def test_containers(self) -> None:
        """So isn't what has very many lists or objects, however small they are; others go on."""
        most = message("SubmitJob", [[]] * (MAX_CONTAINERS - 3))
        self.assertEqual(decode_request(most, LARGEST).method, "SubmitJob")
        self.patch(messages, "parse_strictly", lambda _: self.fail("it was decoded"))
        for item in ([], {}, [[]], "[{"):
            for method in ("SubmitManyJobs", "QueryJobs"):
                long = message(method, [item] * MAX_CONTAINERS)
                error = self.assertRaises(OpPrereqError, decode_request, long, LARGEST)
                self.assertIn("and may have", error.args[0])

    def test_nonsense(self) -> None:
        """What is large and no request ends the connection like what is small."""
        for nonsense in (b'"' * (MAX_REQUEST + 1), b"[" * (2 * MAX_REQUEST), b"\xff" * 2**21):
            self.assertRaises(ProtocolError, decode_request, nonsense, LARGEST)
        self.assertTrue(issubclass(ProtocolError, LuxiError))


class CountTests(SynchronousTestCase):
    """How many of each thing a request may have."""

    def refused(self, method: str, *args: Any) -> str:
        """What the method's arguments are refused with."""
        error = self.assertRaises(OpPrereqError, METHODS[method].read, args)
        return str(error.args[0])

    def test_filters(self) -> None:
        """The terms of a filter are counted at every depth, before anything is made of them."""
        leaf = ["?", "offline"]
        read_filter(["|", *[leaf] * (MAX_TERMS - 1)], "filter")
        for document in (
            ["|", *[leaf] * MAX_TERMS],
            ["&", *[["|", *[["!", leaf]] * 9]] * (MAX_TERMS // 19 + 1)],
        ):
            error = self.assertRaises(MalformedFilter, read_filter, document, "filter")
            self.assertEqual(str(error), f"filter: it has more than {MAX_TERMS} terms")

    def test_patterns(self) -> None:
        """Regular expressions are counted by themselves, and so are their characters."""
        leaf = ["=~", "name", "^a.*"]
        read_filter(["|", *[leaf] * MAX_PATTERNS], "filter")
        for document, text in (
            (["|", *[leaf] * MAX_PATTERNS, ["!", leaf]], "100 regular expressions"),
            (["|", leaf, ["=~", "name", "a" * LONGEST]], "expressions have more than 10000 char"),
        ):
            error = self.assertRaises(MalformedFilter, read_filter, document, "filter")
            self.assertIn("filter: it", str(error))
            self.assertIn(text, str(error))
        # A lone one has its own error.
        error = self.assertRaises(
            MalformedFilter, read_filter, ["=~", "name", "a" * (LONGEST + 1)], "filter"
        )
        self.assertIn("10,001 characters", str(error))

    def test_entries(self) -> None:
        """A list or an object that is a parameter has so many entries, whatever the opcode."""
        for value in (["a"] * (MAX_NAMES + 1), {str(n): 1 for n in range(MAX_NAMES + 1)}):
            for ops in (
                [{"OP_ID": "OP_TAGS_SET", "tags": value}],
                [{"OP_ID": "OP_NO", "x": value}],
            ):
                self.assertIn(
                    f"it has {MAX_NAMES + 1} entries, and may have {MAX_NAMES}",
                    self.refused("SubmitJob", ops),
                )
        tags = {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": ["a"] * MAX_NAMES}
        METHODS["SubmitJob"].read([[tags]])

    def test_described(self) -> None:
        """Of instances, disks and NICs that an opcode describes fewer are taken than of names."""
        for name, value in {
            "instances": [{"instance_name": "a"}] * (MAX_DESCRIBED + 1),
            "disks": [["add", 0, {}]] * (MAX_DESCRIBED + 1),
            "nics": [{}] * (MAX_DESCRIBED + 1),
        }.items():
            self.assertIn(
                f"it has {MAX_DESCRIBED + 1} entries, and may have {MAX_DESCRIBED}",
                self.refused("SubmitJob", [{"OP_ID": "OP_INSTANCE_SET_PARAMS", name: value}]),
            )
        named = {"OP_ID": "OP_INSTANCE_QUERY_DATA", "instances": ["a"] * MAX_NAMES}
        METHODS["SubmitJob"].read([[named]])

    def test_values(self) -> None:
        """What has very many values isn't decoded; commas in texts count."""
        decode_request(message("SubmitJob", [1] * MAX_COMMAS), LARGEST)
        self.patch(messages, "parse_strictly", lambda _: self.fail("it was decoded"))
        for value in ([1] * (MAX_COMMAS + 2), "," * (MAX_COMMAS + 1)):
            error = self.assertRaises(
                OpPrereqError, decode_request, message("SubmitJob", value), LARGEST
            )
            self.assertIn(f"values, and may have {MAX_COMMAS}", error.args[0])

    def test_fields(self) -> None:
        """A million field names are refused by their number."""
        select("node", ["name"] * MAX_FIELDS)
        error = self.assertRaises(OpPrereqError, select, "node", ["name"] * 1_000_000)
        self.assertIn("1000000 are asked for, and may be 1000", error.args[0])

    def test_names(self) -> None:
        """So is a list of names, with its method and argument."""
        METHODS["QueryNodes"].read([["a"] * MAX_NAMES, [], False])
        self.assertEqual(
            self.refused("QueryNodes", ["a"] * (MAX_NAMES + 1), [], False),
            f"QueryNodes: argument names: it has {MAX_NAMES + 1} items, and may have {MAX_NAMES}",
        )

    def test_job_ids(self) -> None:
        """As many jobs may be asked for as a full queue has."""
        METHODS["QueryJobs"].read([list(range(MAX_JOB_IDS)), []])
        self.assertIn(
            f"it has {MAX_JOB_IDS + 1} ids, and may have {MAX_JOB_IDS}",
            self.refused("QueryJobs", ["1"] * (MAX_JOB_IDS + 1), []),
        )

    def test_opcodes(self) -> None:
        """A job's opcodes, a request's jobs and their opcodes in all."""
        self.assertIn(
            f"{MAX_OPCODES + 1} opcodes, and", self.refused("SubmitJob", [{}] * (MAX_OPCODES + 1))
        )
        self.assertIn(
            f"{MAX_JOBS + 1} jobs, and", self.refused("SubmitManyJobs", [[]] * (MAX_JOBS + 1))
        )
        many = [[{}] * MAX_OPCODES] * (MAX_OPCODES_OF_ALL // MAX_OPCODES) + [[{}]]
        self.assertIn("opcodes in all", self.refused("SubmitManyJobs", many))
