"""Increments go on where their overhead is large for what they measure."""

from __future__ import annotations

from circinus.profiling.race.increment_pace import IncrementPace
from circinus.profiling.settings import PROFILING

SIZES = (8, 16, 24, 96, 480)


def _target(overheads_s: list[float], item_s: float) -> int:
    pace = IncrementPace()
    for overhead_s in overheads_s:
        pace.add(overhead_s)
    return pace.target(SIZES, lambda size: size * item_s)


def test_the_first_size_at_which_the_overhead_is_a_small_share_ends_an_increment() -> None:
    overhead_s = 8e-3 * PROFILING.overhead_share
    assert [_target([overhead_s] * 3, item_s) for item_s in (1e-3, 0.9e-3, 1e-4, 1e-6)] == [8, 16, 96, 480]


def test_without_overhead_each_analysis_ends_an_increment() -> None:
    assert _target([], 1e-6) == _target([0.0], 1e-6) == _target([0.0], 0.0) == 8


def test_one_slow_increment_among_many_makes_no_difference() -> None:
    assert _target([1e-6, 60.0, 1e-6], 1e-3) == 8
