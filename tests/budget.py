"""Test levels: the share of seeds and random examples that a run takes.

`CIRCINUS_TEST_LEVEL` selects one: `quick` before a commit, `daily` in `make test` and CI, `thorough` at night.
"""

from __future__ import annotations

import math
import os

_SHARES = {"quick": 0.1, "daily": 0.25, "thorough": 1.0}

LEVEL = os.environ.get("CIRCINUS_TEST_LEVEL", "daily")
if LEVEL not in _SHARES:
    raise ValueError(f"CIRCINUS_TEST_LEVEL must be one of {', '.join(_SHARES)}, got {LEVEL!r}")

HANG_LIMIT_S = 240.0
"""Time limit for a wait that only a hang can exceed, on a machine of any speed."""


def share_of(count: int) -> int:
    """Return the part of `count` repetitions that the level takes, at least 1."""
    return max(1, math.ceil(count * _SHARES[LEVEL]))


def seeds(count: int) -> range:
    """Return the first seeds of `count` that the level takes; `thorough` takes all."""
    return range(share_of(count))


def examples(count: int) -> int:
    """Return `max_examples` of a Hypothesis test that takes `count` at the level `thorough`."""
    return share_of(count)
