"""What the tests that start a real daemon share: roots, daemons, tools that must be there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.realcluster import PROGRAMS

#: Set where a missing peer or tool is a failure, as in CI.
REQUIRE_PEER = os.environ.get("GANETI_MASTERD_REQUIRE_PEER") == "1"

# Debian's tools are where only root's path looks.
os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/sbin", "/sbin"))


def do_without(missing: str) -> NoReturn:
    """Skips the test, as something is missing that it needs; fails it in CI."""
    if REQUIRE_PEER:
        pytest.fail(missing)
    pytest.skip(missing)


def need_root(why: str) -> None:
    """Skips the test where it isn't run by root; fails it there in CI."""
    if os.getuid() != 0:
        do_without(why)


def require(program: str, package: str) -> str:
    """Returns the path of a program; without it the test is skipped, or fails in CI."""
    found = shutil.which(program)
    if found is None:
        do_without(f"{program} is not installed (Debian's package {package})")
    return found


def need_peer() -> None:
    """Skips where a real cluster can't be brought up; fails there in CI."""
    for program, package in PROGRAMS.items():
        require(program, package)
    need_root("a real cluster needs root")


def _folder() -> Iterator[Path]:
    # Not pytest's own, whose path may be too long for a socket below it.
    folder = Path(tempfile.mkdtemp(prefix="gnt-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder with a short path."""
    yield from _folder()


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """A new folder with a short path, for all tests of a module."""
    yield from _folder()


@pytest.fixture
def make_daemon(folder: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Makes daemons below the folder, named node1 unless told; all are killed at the end."""
    made: list[DaemonProcess] = []

    def make(*options: str, name: str = "node1", **settings: object) -> DaemonProcess:
        made.append(DaemonProcess(folder / name, *options, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for daemon in made:
        daemon.__exit__()
