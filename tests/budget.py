"""Test levels: the share of seeds and random examples that a run takes.

`CIRCINUS_TEST_LEVEL` selects one: `quick` before a commit, `daily` in `make test` and CI, `thorough` at night.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

_SHARES = {"quick": 0.1, "daily": 0.25, "thorough": 1.0}

LEVEL = os.environ.get("CIRCINUS_TEST_LEVEL", "daily")
if LEVEL not in _SHARES:
    raise ValueError(f"CIRCINUS_TEST_LEVEL must be one of {', '.join(_SHARES)}, got {LEVEL!r}")

HANG_LIMIT_S = 240.0
"""Time limit for a wait that only a hang can exceed, on a machine of any speed."""


def share_of(count: int) -> int:
    """Return the part of `count` repetitions that the level takes, at least 1."""
    return max(1, math.ceil(count * _SHARES[LEVEL]))


def half_share_of(count: int) -> int:
    """Return half of `share_of(count)`, for repetitions that take long; all of `count` at the level `thorough`."""
    return count if LEVEL == "thorough" else share_of(math.ceil(count / 2))


def seeds(count: int) -> range:
    """Return the first seeds of `count` that the level takes; `thorough` takes all."""
    return range(share_of(count))


def examples(count: int) -> int:
    """Return `max_examples` of a Hypothesis test that takes `count` at the level `thorough`."""
    return share_of(count)


def daily_tests(*names: str) -> Callable[[type], type]:
    """Return a decorator of a class that inherits tests of every engine: others take place at the level `thorough`."""

    def select(tests: type) -> type:
        assert not set(names) - set(dir(tests))
        for name in dir(tests) if LEVEL != "thorough" else ():
            if name.startswith("test_") and name not in names:
                setattr(tests, name, None)  # a mark would be that of the tests of all engines
        return tests

    return select
