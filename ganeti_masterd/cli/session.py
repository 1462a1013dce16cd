"""The state of one run of the command: the daemon's place, the connection, the output."""

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
    """The context passed to every command. It looks up and connects only when needed."""

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
        """Where to find the daemon; raises ``ConfigurationError`` like :func:`.where.find`."""
        return find(self._root, self._socket, self._environment)

    @cached_property
    def client(self) -> BlockingClient:
        """The client; it connects on the first call."""
        return BlockingClient(self.place.socket, timeout=self.timeout)

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if "client" in self.__dict__:
            self.client.close()

    def call(self, method: str, *args: Any) -> Any:
        """Calls a LUXI method and returns its result."""
        return self.client.call(method, *args)


#: A decorator that passes the session to a command as its first argument.
pass_session = click.make_pass_decorator(Session)
