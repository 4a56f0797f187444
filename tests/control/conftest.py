"""Fixtures with the listening pipeline, profiled once per session."""

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
    """Return the listening pipeline with service times that do not depend on the machine."""
    return replace(measured_listening, profile=steady(measured_listening.profile))
