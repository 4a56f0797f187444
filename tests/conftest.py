"""Settings of all tests."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator
from dataclasses import replace

import pytest
from hypothesis import settings

from budget import LEVEL, half_share_of
from circinus.matching.settings import MATCHING
from circinus.specification import Infrastructure, Query

# Engines that a developer's shell names must not be touched by tests.
for variable in ("CIRCINUS_RUN_DIR", "CIRCINUS_ENGINE", "CIRCINUS_HTTP_TOKENS", "RAY_ADDRESS", "RAY_AUTH_MODE"):
    os.environ.pop(variable, None)

# Keys of tests are no keys of the developer; the workers of pytest-xdist share one.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _STATE = tempfile.TemporaryDirectory(prefix="circinus-state-")
    os.environ["XDG_STATE_HOME"] = _STATE.name

# No deadline: the time that an example takes depends on the machine.
settings.register_profile("circinus", deadline=None, max_examples=half_share_of(200))
settings.load_profile("circinus")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Freeze what is loaded for all tests: 300,000 objects, of which each full garbage collection takes 0.3 s."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests whose marks the level leaves out."""
    left_out = {"quick": ("slow", "thorough"), "daily": ("thorough",), "thorough": ()}[LEVEL]
    for item in items:
        for mark in left_out:
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"{mark}: not at the level {LEVEL}"))


@pytest.fixture
def few_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Match at listed targets only: at the final sizes, formulas would admit q5 of seed 101."""

    def listed(query: Query, infrastructure: Infrastructure, running: object = None) -> tuple[float, ...]:
        return infrastructure.utilization_targets

    monkeypatch.setattr("circinus.planning.search_space.utilization_targets", listed)
    monkeypatch.setattr("circinus.matching.rebuilding.MATCHING", replace(MATCHING, max_rebuilt_queries=0))
