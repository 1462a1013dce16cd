"""The table of calls has all of noded's, and refuses unknown names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.declarations import (
    DAY,
    FAST,
    FOUR_HOURS,
    MANY,
    NORMAL,
    ONE,
    SLOW,
    URGENT,
    ArgumentForm,
    Call,
    CallTable,
)

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "noded_rpc.json").read_text())


class TableTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """All 108 calls are in the table, under their own names."""
        self.assertEqual(len(CALLS), 108)
        for call in CALLS:
            self.assertIs(CALLS[call.name], call)
            self.assertIn(call.name, CALLS)

    def test_unknown(self) -> None:
        """An unknown name is a programming error."""
        for name in ("", "no_such_call", "/version", "Version"):
            self.assertRaises(ProgrammerError, CALLS.__getitem__, name)
            self.assertNotIn(name, CALLS)

    def test_twice(self) -> None:
        """A call can't be declared twice."""
        table = CallTable()
        call = table.declare("version", URGENT, MANY)
        self.assertRaises(ProgrammerError, table.declare, "version", URGENT, MANY)
        self.assertEqual(list(table), [call])

    def test_constants(self) -> None:
        """Each call has a constant with its name, and there are no others."""
        constants = {name: one for name, one in vars(calls).items() if isinstance(one, Call)}
        self.assertEqual({name.lower() for name in constants}, {call.name for call in CALLS})
        for name, call in constants.items():
            self.assertIs(call, CALLS[name.lower()])

    def test_annotations(self) -> None:
        """The annotated payload type of each constant is the one used for conversion.

        A call whose payload nothing reads is annotated with ``Any``.
        """
        annotations = get_type_hints(calls)
        for call in CALLS:
            annotation = annotations[call.name.upper()]
            self.assertIs(get_origin(annotation), Call, call.name)
            (payload,) = get_args(annotation)
            self.assertEqual(payload, Any if call.result is None else call.result, call.name)

    def test_timeouts(self) -> None:
        """The time-outs are those of the classes in the specification."""
        expected = {
            "version": URGENT,
            "node_info": URGENT,
            "jobqueue_update": URGENT,
            "os_diagnose": FAST,
            "export_list": FAST,
            "node_verify": NORMAL,
            "instance_start": NORMAL,
            "hooks_runner": NORMAL,
            "instance_migrate": SLOW,
            "restricted_command": SLOW,
            "node_ssh_keys_renew": FOUR_HOURS,
            "instance_os_add": DAY,
        }
        for name, seconds in expected.items():
            self.assertEqual(CALLS[name].timeout, seconds, name)

    def test_own_timeout(self) -> None:
        """The time-out of a delay is its duration plus five seconds, rounded down."""
        self.assertEqual(CALLS["test_delay"].seconds([0.7]), 5.0)
        self.assertEqual(CALLS["test_delay"].seconds([100]), 105.0)
        self.assertEqual(CALLS["version"].seconds([]), 60.0)
        timeless = [call.name for call in CALLS if call.timeout is None]
        self.assertEqual(timeless, ["test_delay"])

    def test_offline(self) -> None:
        """Only two calls are sent to nodes that are marked offline."""
        names = {call.name for call in CALLS if call.offline_too}
        self.assertEqual(names, {"version", "node_powercycle"})

    def test_bare(self) -> None:
        """Only the call for consoles has its argument as the whole body."""
        self.assertEqual([c.name for c in CALLS if c.bare], ["instance_console_info"])

    def test_whole(self) -> None:
        """A call to disks is whole unless it only looks; so are two that change what runs."""
        looking = {
            "blockdev_find",
            "blockdev_getdimensions",
            "blockdev_getmirrorstatus",
            "blockdev_getmirrorstatus_multi",
            "drbd_helper",
            "drbd_needs_activation",
            "drbd_wait_sync",
        }
        kinds = ("blockdev_", "drbd_", "file_storage_dir_")
        changing = {call.name for call in CALLS if call.name.startswith(kinds)} - looking
        whole = {call.name for call in CALLS if call.whole}
        self.assertEqual(whole, changing | {"hotplug_device", "instance_balloon_memory"})

    def test_reach(self) -> None:
        """Each call declares whether it is for several nodes."""
        self.assertIs(CALLS["node_info"].reach, MANY)
        self.assertIs(CALLS["instance_start"].reach, ONE)

    def test_forms(self) -> None:
        """Paths, contents and secrets are declared as such."""

        def forms(name: str) -> list[ArgumentForm]:
            return [argument.form for argument in CALLS[name].arguments]

        self.assertEqual(forms("jobqueue_update"), [ArgumentForm.PATH, ArgumentForm.CONTENT])
        self.assertEqual(forms("jobqueue_rename"), [ArgumentForm.PATHS])
        self.assertEqual(forms("upload_file"), [ArgumentForm.UPLOAD])
        self.assertEqual(forms("upload_file_single")[:2], [ArgumentForm.PATH, ArgumentForm.CONTENT])
        self.assertEqual(forms("node_verify")[0], ArgumentForm.FILELIST)
        self.assertEqual(forms("instance_start")[0], ArgumentForm.OBJECT)
        self.assertEqual(forms("os_validate")[3], ArgumentForm.SECRET)
        self.assertEqual(forms("hooks_runner")[2], ArgumentForm.SECRET)

    def test_arguments(self) -> None:
        """A wrong number of arguments is a programming error."""
        CALLS["node_info"].check([None, None])
        for wrong in ([], [None], [None, None, None]):
            self.assertRaises(ProgrammerError, CALLS["node_info"].check, wrong)

    def test_recorded(self) -> None:
        """Each recorded call is in the table and has as many arguments."""
        for _, name, arguments, _ in RECORDED:
            CALLS[name].check(arguments)
