"""The pipeline that hears words, profiled once for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from drift_scenario import Listening, steady
from drift_scenario import listening as _listening


@pytest.fixture(scope="session")
def measured_listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    yield from _listening(tmp_path_factory.mktemp("listening"))


@pytest.fixture(scope="session")
def listening(measured_listening: Listening) -> Listening:
    """The same with service times that depend on no machine, unlike those that are recorded."""
    return replace(measured_listening, profile=steady(measured_listening.profile))
