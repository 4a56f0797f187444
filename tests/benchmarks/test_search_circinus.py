"""The product's search in the arena: guaranteed answers, and predictions from similar configurations."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.search.circinus_search import USUAL, Circinus
from benchmarks.search.meter import Meter, judge
from benchmarks.search.prefix_prediction import PrefixTimes
from benchmarks.search.slo_cases import cases

from budget import seeds
from small_arenas import tiny_arena


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_answers_hold_and_are_near_the_optimum(direction: str) -> None:
    found = close = feasible = broken = infeasible = recognised = 0
    for seed in seeds(8):
        rng = np.random.default_rng(seed)
        arena = tiny_arena(rng, items=80, direction=direction).drawn(rng)
        for case in cases(arena, rng, 6):
            meter = Meter(arena, reuse_prefixes=True)
            verdict = judge(case, Circinus().search(case, meter, rng), arena, meter)
            feasible += verdict.feasible
            infeasible += not verdict.feasible
            found += verdict.found
            close += verdict.found and verdict.cost_over_optimum <= 1.05
            broken += verdict.answered and not verdict.found
            recognised += not verdict.feasible and not verdict.answered
    assert broken <= 1  # at a risk of 0.05 a run
    assert recognised == infeasible
    assert found >= 0.9 * feasible
    assert close >= 0.8 * feasible


def test_whoever_wants_less_measures_no_more_on_the_whole() -> None:
    seconds = {Circinus().name: 0.0, Circinus(stopping=USUAL).name: 0.0}
    assert len(seconds) == 2
    for seed in seeds(8):
        rng = np.random.default_rng(seed)
        arena = tiny_arena(rng, items=80).drawn(rng)
        for case in cases(arena, rng, 5):
            for searcher in (Circinus(), Circinus(stopping=USUAL)):
                meter = Meter(arena, reuse_prefixes=True)
                searcher.search(case, meter, rng)
                seconds[searcher.name] += meter.seconds
    # Both end where nothing is worthwhile: less is wanted, but fewer measurements can also mislead a little longer.
    assert seconds[Circinus(stopping=USUAL).name] <= 1.1 * seconds[Circinus().name]


def test_known_prefixes_are_exact_and_others_are_guessed_from_them() -> None:
    arena = tiny_arena(np.random.default_rng(0), items=20)
    space = arena.space
    numbers = np.arange(len(space.configurations))
    service_s = np.full(len(arena.service_s), np.nan)
    service_s[space.rows[:3]] = arena.service_s[space.rows[:3]]
    median, deviation = PrefixTimes(space, numbers).predict(service_s, [None] * space.rows.shape[1])
    measured = ~np.isnan(service_s[space.rows])
    np.testing.assert_array_equal(median[measured], service_s[space.rows][measured])
    assert (deviation[measured] == 0).all()
    assert (deviation[~measured] > 0).all()
    elsewhere, certainty = PrefixTimes(space, numbers, arena.service_s * 2.0).predict(
        service_s, [None] * median.shape[1]
    )
    truth = arena.service_s[space.rows]
    off = np.abs(np.log(elsewhere / truth))[~measured]
    assert off.mean() < np.abs(np.log(median / truth))[~measured].mean()
    assert (off <= 4 * certainty[~measured]).all()
