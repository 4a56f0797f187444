"""Complete profiling runs that several tests use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from planning.sampler.two_operators import Whole, measured, recorded, two_queries


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Whole]:
    """Profiling runs of `recorded(seed)` for `two_queries()`, by seed."""

    @cache
    def made(seed: int) -> Whole:
        store = tmp_path_factory.mktemp("whole") / "store"
        return Whole(*measured(recorded(seed), two_queries(), store), store)

    return made
