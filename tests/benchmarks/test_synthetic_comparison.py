"""Comparison of searches seed by seed, and what the seeds are enough to tell."""

from __future__ import annotations

import math

import pytest
from benchmarks.search.synthetic_comparison import Comparison, comparison_figures, comparisons
from benchmarks.search.synthetic_runs import OURS, SyntheticRun

SEEDS = 10


def _run(method: str, seed: int, ratio: float | None, exponent: int = 6) -> SyntheticRun:
    return SyntheticRun(
        family="smooth", exponent=exponent, method=method, seed=seed, answered=True, found=ratio is not None,
        cost_over_optimum=math.nan if ratio is None else ratio, touched=1, items=8, seconds=1.0, wall_s=1.0, cpu_s=1.0,
        peak_mib=100.0, steps=1.0,
    )  # fmt: skip


def test_a_plan_wins_over_none_and_the_cheaper_plan_over_the_dearer_one() -> None:
    ours, theirs = (1.0, None, 1.2, 1.0, None), (None, 1.0, 1.0, 1.005, None)
    rows = [_run(OURS, seed, ratio) for seed, ratio in enumerate(ours)]
    rows += [_run("random", seed, ratio) for seed, ratio in enumerate(theirs)]
    assert comparisons(rows) == [Comparison("smooth", 6, "random", wins=1, losses=2, ties=2)]


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"), [(5, 0, 2 / 32), (6, 0, 2 / 64), (8, 1, 20 / 512), (3, 3, 1.0), (0, 0, 1.0)]
)
def test_the_sign_test_is_that_of_binomial_coefficients(wins: int, losses: int, p_value: float) -> None:
    comparison = Comparison("smooth", 6, "random", wins, losses, SEEDS - wins - losses)
    assert comparison.p_value == pytest.approx(p_value)
    assert comparison.better == (p_value <= 0.05)
    assert comparison.is_close == (p_value > 0.05 and wins + losses > 0)
    assert comparison.no_worse


def test_figures_count_families_and_sizes_and_name_those_that_are_worse_or_too_close_to_call() -> None:
    rows = []
    for exponent, ours, theirs in ((3, 1.0, 1.2), (6, 1.2, 1.0), (9, None, None)):
        for seed in range(SEEDS):
            rows += [_run(OURS, seed, ours, exponent), _run("random", seed, theirs, exponent)]
            rows.append(_run("Optuna TPE", seed, theirs if seed < 3 else ours, exponent))
    no_worse, better = comparison_figures(rows)
    assert (no_worse.value, better.value) == (pytest.approx(2 / 3), 0.0)  # 3:0 against Optuna may be chance
    assert "worse, wins:losses: smooth 10^6 random 0:10; smooth 10^6 Optuna TPE 0:3" in no_worse.note
    assert no_worse.note.endswith("beyond chance: smooth 10^6 random 0:10")
    assert "too close to call: smooth 10^3 Optuna TPE 3:0; smooth 10^6 Optuna TPE 0:3" in better.note
    assert better.note.endswith("no difference on any seed: smooth 10^9 random 0:0; smooth 10^9 Optuna TPE 0:0")
