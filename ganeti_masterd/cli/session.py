"""One run of the command: where the daemon is, the connection to it, how results are printed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import click

from ganeti_masterd.cli.output import Output
from ganeti_masterd.cli.where import ClusterPlace, find
from ganeti_masterd.luxi.blocking import BlockingClient


class Session:
    """What every command is given. Nothing is looked up or connected before it is needed."""

    def __init__(
        self,
        root: str | None,
        socket: str | None,
        timeout: float,
        *,
        json: bool = False,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.out = Output(json=json)
        self.timeout = timeout
        self._root = root
        self._socket = socket
        self._environment = environment

    @cached_property
    def place(self) -> ClusterPlace:
        """Where the daemon is looked for; raises ``ConfigurationError``."""
        return find(self._root, self._socket, self._environment)

    @cached_property
    def client(self) -> BlockingClient:
        """The connection, made at the first call."""
        return BlockingClient(self.place.socket, timeout=self.timeout)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if "client" in self.__dict__:
            self.client.close()

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the daemon."""
        return self.client.call(method, *args)


#: Gives a command the session as its first argument.
pass_session = click.make_pass_decorator(Session)
