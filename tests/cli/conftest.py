"""The starter application for the tests of verbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_runner import run_circinus
from prepared import Starter, prepared_starter


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Starter:
    """Return the result of `init`, `profile` and `plan`."""
    return prepared_starter(tmp_path_factory)


@pytest.fixture
def application(starter: Starter, tmp_path: Path) -> Iterator[Path]:
    """Yield a copy of the starter that a test may change. Its engine ends with the test."""
    folder = starter.copy(tmp_path / "application")
    yield folder
    run_circinus("destroy", cwd=folder)
