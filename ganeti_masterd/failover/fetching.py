"""Reads another candidate's files over SSH, as Ganeti's own tools reach other nodes.

noded has no call for that. Between nodes of a cluster SSH as root works unless ``modify_ssh_setup``
is off; host keys are checked against the cluster's own known_hosts file. Blocking.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import ssconf_values
from ganeti_masterd.startup.paths import Paths

#: Seconds for the connection, and for the whole command.
CONNECT = 10
PATIENCE = 120.0

#: Reads files, named as on this node, from another node and returns their contents by path. Raises
#: :class:`FetchFailed`.
Fetch = Callable[[Snapshot, Node, Sequence[str]], Mapping[str, bytes]]

#: Runs a command with input; returns exit code, standard output and standard error.
Run = Callable[[Sequence[str], bytes], tuple[int, bytes, bytes]]


class FetchFailed(Exception):
    """Files can't be read from a node; the message says why."""


def run(command: Sequence[str], given: bytes) -> tuple[int, bytes, bytes]:
    """See :data:`Run`; raises :class:`FetchFailed` if it takes longer than :data:`PATIENCE`."""
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise FetchFailed(f"{command[0]} has not ended within {PATIENCE:g} s") from None
    except OSError as error:
        raise FetchFailed(f"{command[0]} can't be run: {error.strerror}") from None
    return done.returncode, done.stdout, done.stderr


class OverSSH:
    """A :data:`Fetch` that runs ``ssh`` and ``tar``."""

    def __init__(self, paths: Paths, run: Run = run) -> None:
        self._paths = paths
        self._run = run

    def __call__(self, snapshot: Snapshot, node: Node, wanted: Sequence[str]) -> dict[str, bytes]:
        """See :data:`Fetch`; raises also if a single file is missing."""
        data = self._paths.data
        names = {os.path.relpath(path, data): path for path in wanted}
        given = "".join(f"{name}\n" for name in names).encode()
        code, out, err = self._run(self.command(snapshot, node), given)
        if code != 0:
            text = err.decode("utf-8", "replace").strip().replace("\n", "; ")
            raise FetchFailed(
                f"ssh to {node.name} failed (exit code {code}): {text or 'no reason given'}"
            )
        found = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(out), mode="r:") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is not None and member.name in names:
                        found[names[member.name]] = content.read()
        except tarfile.TarError as error:
            raise FetchFailed(f"ssh to {node.name} gave no files: {error}") from None
        missing = sorted(set(wanted) - set(found))
        if missing:
            raise FetchFailed(f"ssh to {node.name} did not give {missing[0]}")
        return found

    def command(self, snapshot: Snapshot, node: Node) -> list[str]:
        """Returns the command, which reads the names of files from its standard input."""
        cluster = snapshot.cluster
        ports = dict(line.split("=") for line in ssconf_values(snapshot)["ssh_ports"])
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT),
            "StrictHostKeyChecking": "yes",
            "GlobalKnownHostsFile": f"{self._paths.data}/known_hosts",
            "UserKnownHostsFile": "/dev/null",
            "HostKeyAlias": cluster.cluster_name,
            "CheckHostIP": "no",
            "LogLevel": "ERROR",
            "Port": ports[node.name],
        }
        settings = [f"-o{name}={value}" for name, value in options.items()]
        folder = shlex.quote(self._folder(node))
        return ["ssh", *settings, f"root@{node.primary_ip}", f"tar -C {folder} -cf - -T -"]

    def _folder(self, node: Node) -> str:
        """Returns the node's data folder; roots of virtual nodes are in the same parent folder."""
        if not self._paths.root:
            return self._paths.data
        beside = os.path.join(os.path.dirname(self._paths.root), node.name)
        return Paths(beside).data
