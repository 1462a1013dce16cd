"""Where simulated clusters of one machine meet: what one sends to another lies in a folder.

A transfer between clusters is known by its magic, which both ends have. The sending end lays down
a file, the receiving one takes it away and leaves a receipt. Each is there as a whole or not at
all, as a rename makes it so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

import msgspec
from msgspec import Struct


class Parcel(Struct, frozen=True):
    """A disk on its way: its size in MiB and its content."""

    size: int
    content: tuple[str, ...]


class MeetingPlace:
    """A folder in which clusters meet; it is made when something is sent."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def send(self, magic: str, parcel: Parcel) -> None:
        """Lays a parcel down."""
        self._write(self._path(magic, "sent"), msgspec.json.encode(parcel))

    def withdraw(self, magic: str) -> None:
        """Takes a parcel back that nobody has taken, or a receipt that was seen."""
        for kind in ("sent", "taken"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(magic, kind))

    def take(self, magic: str) -> Parcel | None:
        """Takes a parcel and leaves a receipt; None if there is none."""
        path = self._path(magic, "sent")
        try:
            with open(path, "rb") as file:
                parcel = msgspec.json.decode(file.read(), type=Parcel)
        except FileNotFoundError:
            return None
        self._write(self._path(magic, "taken"), b"")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return parcel

    def taken(self, magic: str) -> bool:
        """Whether there is a receipt."""
        return os.path.exists(self._path(magic, "taken"))

    def _path(self, magic: str, kind: str) -> str:
        name = hashlib.sha256(magic.encode()).hexdigest()
        return os.path.join(self._folder, f"{name}.{kind}")

    def _write(self, path: str, content: bytes) -> None:
        os.makedirs(self._folder, exist_ok=True)
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.replace(path + ".new", path)
