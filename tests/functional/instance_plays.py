"""Plays groups of recorded commands on a cluster, and says how much is as it was recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from tests.functional.gnt import Gnt, Said
from tests.functional.instance_transcripts import (
    AFTERWARDS,
    BEFORE,
    RecordedOnInstances,
    recorded_on_instances,
)
from tests.functional.waiting import equal_to, until

#: Seconds after which a command is given up.
LIMIT = 150.0


class Result(Struct, frozen=True):
    """A command that was played, and what it said."""

    recorded: RecordedOnInstances
    said: Said
    same_code: bool
    same_output: bool

    @property
    def wrong(self) -> str | None:
        """What isn't as it was recorded and not listed as different; None if all is."""
        each, said = self.recorded, self.said
        if said.code == each.expected_code and (self.same_output or each.only_code):
            return None
        return (
            f"{each.name}\ninstead of {each.code}:\n{each.out}{each.err}\n{said.code}:\n"
            f"{said.out}{said.err}"
        )


class Agreement(Struct, frozen=True):
    """How many commands of a group end, and print, as recorded.

    ``counted`` are all of them but those that 3.0.2 gets plainly wrong.
    """

    commands: int
    counted: int
    codes: int
    outputs: int


def play(group: str, run: Gnt, folders: Mapping[str, str]) -> list[Result]:
    """Runs the commands of a group, each when the one before and its jobs have ended.

    The cluster has no instances. ``folders`` are paths, and what the recording has instead.
    """

    def pending() -> str:
        return run("gnt-job list --no-headers -o id --pending --running").out

    if group in BEFORE:
        run(BEFORE[group])
    results = []
    for each in recorded_on_instances(group):
        said = run(each.played)
        same_code = said.code == each.code
        same_output = same_code and each.same_output(said, folders)
        results.append(Result(each, said, same_code, same_output))
        if each.place in AFTERWARDS:
            run(AFTERWARDS[each.place])
        if each.leaves_jobs:
            until("no job is left", pending, equal_to(""), LIMIT)
    return results


def agreement(results: Sequence[Result]) -> Agreement:
    """Counts what is as it was recorded."""
    counted = [result for result in results if not result.recorded.aside]
    return Agreement(
        len(results),
        len(counted),
        sum(result.same_code for result in counted),
        sum(result.same_output for result in counted),
    )


def shell(environment: Mapping[str, str], prefix: Sequence[str] = ()) -> Callable[[str], Said]:
    """Returns the function that runs a command line of the shell in this environment."""

    def run(command: str) -> Said:
        try:
            done = subprocess.run(
                [*prefix, "bash", "-c", command],
                env={**environment, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT,
                check=False,
                start_new_session=True,  # the tools would ask on the terminal
            )
        except subprocess.TimeoutExpired:
            return Said(-1, "", f"not ended within {LIMIT:g} s")
        return Said(done.returncode, done.stdout, done.stderr)

    return run
