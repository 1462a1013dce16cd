"""Scripts that simulated nodes run for real: hooks, allocators, restricted commands.

A node's hooks are in ``etc/ganeti/hooks`` below its own root; no process is started if there are
none. Allocators are those installed on this machine, as they only compute.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from ganeti_masterd.constants import HKR_FAIL, HKR_SKIP, HKR_SUCCESS
from ganeti_masterd.simulation.node import (
    Finished,
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
)
from ganeti_masterd.simulation.programs import executable

calls = Implementations()

HOOKS_DIR = "/etc/ganeti/hooks"
COMMANDS_DIR = "/etc/ganeti/restricted-commands"
ALLOCATOR_DIRS = ("/usr/local/lib/ganeti/iallocators", "/usr/lib/ganeti/iallocators")
REFUSAL_DELAY = 10.0
NAME = re.compile("^[a-zA-Z0-9_-]+$")

#: The environment that noded gives to every program in addition to what it was sent.
MINIMAL = {"LC_ALL": "C", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"}


def escaped(text: str) -> str:
    """Returns a script's output as one line of printable ASCII, as noded sends it."""
    known = {"\t": "\\t", "\n": "\\n", "\r": "\\'r"}
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(
        known.get(char) or (char if 32 <= ord(char) < 127 else f"\\x{ord(char):02x}")
        for char in plain
    )


@calls("hooks_runner")
def hooks_runner(
    node: SimulatedNode, path: str, phase: str, environment: Mapping[str, str]
) -> list[Any] | Deferred[list[Any]]:
    """Runs the scripts of a hook in order, one after the other."""
    if phase not in ("pre", "post"):
        raise NodeFailure(f"Unknown hooks phase '{phase}'")
    folder = f"{path}-{phase}.d"
    where = node.real_path(f"{HOOKS_DIR}/{folder}")
    if where is None:
        return []
    try:
        names = sorted(name for name in os.listdir(where) if not name.startswith("."))
    except OSError:
        return []
    return _run_hooks(node, folder, where, names, environment) if names else []


@inlineCallbacks
def _run_hooks(
    node: SimulatedNode,
    folder: str,
    where: str,
    names: Sequence[str],
    environment: Mapping[str, str],
) -> Any:
    rows: list[list[Any]] = []
    for name in names:
        script = os.path.join(where, name)
        if NAME.match(name) is None or not executable(script):
            rows.append([f"{folder}/{name}", HKR_SKIP, ""])
            continue
        ended: Finished = yield node.world.run([script], environment)
        try:
            output = ended.output.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            rows.append([f"{folder}/{name}", HKR_FAIL, escaped(f"Hook script error: {error}")])
            continue
        status = HKR_SUCCESS if ended.reason is None else HKR_FAIL
        rows.append([f"{folder}/{name}", status, escaped(output)])
    return rows


@calls("iallocator_runner")
def iallocator_runner(
    node: SimulatedNode, name: str, request: str, parameters: Mapping[str, str | None]
) -> Deferred[str]:
    """Runs an installed allocator with a request; returns its output."""
    places = [os.path.join(folder, name) for folder in ALLOCATOR_DIRS]
    program = next((place for place in places if executable(place)), None)
    if program is None or os.path.basename(name) != name:
        raise NodeFailure(f"iallocator module '{name}' not found in the search path")
    options = [
        f"--{key}" if value is None else f"--{key}={value}" for key, value in parameters.items()
    ]
    return _run_allocator(node, name, program, request, options)


@inlineCallbacks
def _run_allocator(
    node: SimulatedNode, name: str, program: str, request: str, options: Sequence[str]
) -> Any:
    with tempfile.NamedTemporaryFile("w", prefix="iallocator.", encoding="utf-8") as file:
        file.write(request)
        file.flush()
        ended: Finished = yield node.world.run([program, *options, file.name], MINIMAL)
    if ended.reason is not None:
        output = ended.output.decode("utf-8", "replace")
        raise NodeFailure(f"iallocator module '{name}' failed: {ended.reason}, output '{output}'")
    # What it has to say besides, it says on its standard error.
    return ended.stdout.decode("utf-8", "replace")


@calls("restricted_command")
def restricted_command(node: SimulatedNode, command: str) -> Deferred[str]:
    """Runs a command that the node's administrator has allowed; refuses others after 10 s."""
    where = node.real_path(f"{COMMANDS_DIR}/{command}")
    allowed = NAME.match(command) is not None and where is not None and executable(where)
    return _run_command(node, command, where if allowed else None)


@inlineCallbacks
def _run_command(node: SimulatedNode, command: str, program: str | None) -> Any:
    if program is None:
        yield node.world.wait(REFUSAL_DELAY)
        raise NodeFailure(f"Executing command '{command}' failed")
    ended: Finished = yield node.world.run([program], MINIMAL)
    output = ended.output.decode("utf-8", "replace")
    if ended.reason is not None:
        raise NodeFailure(
            f"Restricted command '{command}' failed: {ended.reason}; output: {output}"
        )
    return output


@calls("run_oob")
def run_oob(
    node: SimulatedNode, program: str, command: str, remote: str, timeout: float
) -> Deferred[Any]:
    """Runs the program that powers nodes on and off; returns its output, which is JSON."""
    where = node.real_path(program)
    if where is None or not executable(where):
        raise Unexpected(f"[Errno 2] No such file or directory: '{program}'")
    return _run_oob(node, where, program, command, remote)


@inlineCallbacks
def _run_oob(node: SimulatedNode, where: str, program: str, command: str, remote: str) -> Any:
    ended: Finished = yield node.world.run([where, command, remote], MINIMAL)
    output = ended.output.decode("utf-8", "replace")
    if ended.reason is not None:
        raise NodeFailure(
            f"'{program} {command} {remote}' failed with reason '{ended.reason}'; output: {output}"
        )
    if not output:
        return None
    try:
        return json.loads(output)
    except ValueError as error:
        raise Unexpected(str(error))
