"""What pytest needs to run trial's test cases as trial does."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase


@pytest.fixture(scope="session")
def trial_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which trial's ``mktemp`` makes its own."""
    return tmp_path_factory.mktemp("trial")


@pytest.fixture(autouse=True)
def _in_trial_folder(
    request: pytest.FixtureRequest, trial_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps the files of trial's test cases out of the folder where pytest was started."""
    if isinstance(request.instance, SynchronousTestCase):
        monkeypatch.chdir(trial_folder)
