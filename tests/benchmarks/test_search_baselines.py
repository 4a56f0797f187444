"""Earlier methods terminate, answer with existing plans, are deterministic, and reach what they claim."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.baselines.search import (
    Exhaustive,
    OptunaConstrained,
    PaperStyle,
    RandomSearch,
    SuccessiveHalving,
    VulcanStyle,
)
from benchmarks.baselines.search.gaussian_process import GridProcess, expected_improvement
from benchmarks.baselines.search.item_clusters import clustered_order, k_means
from benchmarks.baselines.search.knob_encoding import knob_positions
from benchmarks.baselines.search.paper_style import Earlier
from benchmarks.search.arena import Arena
from benchmarks.search.meter import Answer, Meter, Searcher, judge
from benchmarks.search.slo_cases import Case, cases
from hypothesis import given
from hypothesis import strategies as st

from small_arenas import tiny_arena

ARENA = tiny_arena(np.random.default_rng(0), sizes=5)
METHODS: tuple[Searcher, ...] = (
    Exhaustive(),
    RandomSearch(4),
    SuccessiveHalving(survivors=2),
    VulcanStyle(),
    PaperStyle(),
    PaperStyle(earlier=Earlier.of(tiny_arena(np.random.default_rng(1), sizes=5))),
    OptunaConstrained(12),
)
EVERY = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def _answer(method: Searcher, arena: Arena, case: Case, seed: int = 0) -> tuple[Answer | None, Meter]:
    meter = Meter(arena, reuse_prefixes=method.reuse_prefixes)
    return method.search(case, meter, np.random.default_rng(seed)), meter


@EVERY
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_it_ends_and_answers_with_a_plan_that_exists(method: Searcher, direction: str) -> None:
    arena = tiny_arena(np.random.default_rng(2), sizes=5, direction=direction)
    for case in cases(arena, np.random.default_rng(0), 5):
        answer, meter = _answer(method, arena, case)
        assert 0 < meter.seconds <= float((arena.item_s[arena.space.rows].sum(axis=1) * arena.space.items).sum())
        if answer is not None:  # latency and cost are known exactly, so those limits are never broken
            at = answer.configuration, answer.placement
            assert meter.items[answer.configuration] > 0
            assert case.affordable(arena.latency_s[at], arena.cost_usd_per_h[at])


@EVERY
def test_the_same_randomness_gives_the_same(method: Searcher) -> None:
    case = cases(ARENA, np.random.default_rng(0), 5)[2]
    first, second = _answer(method, ARENA, case, 7), _answer(method, ARENA, case, 7)
    assert first[0] == second[0]
    assert first[1].items.tolist() == second[1].items.tolist()
    assert first[1].seconds == second[1].seconds


@EVERY
def test_what_nobody_can_keep_is_called_infeasible(method: Searcher) -> None:
    assert _answer(method, ARENA, Case(1e-6, 0.1, 100.0, 1.0))[0] is None
    assert _answer(method, ARENA, Case(100.0, 0.1, 1e-9, 1.0))[0] is None
    assert _answer(method, ARENA, Case(100.0, 1.01, 100.0, 1.0))[0] is None


@EVERY
def test_what_everything_keeps_is_found(method: Searcher) -> None:
    answer, meter = _answer(method, ARENA, Case(100.0, 0.01, 100.0, 1.0))
    assert judge(Case(100.0, 0.01, 100.0, 1.0), answer, ARENA, meter).found


@given(st.integers(0, 10_000), st.sampled_from(["maximize", "minimize"]))
def test_exhaustive_always_finds_the_optimum(seed: int, direction: str) -> None:
    rng = np.random.default_rng(seed)
    arena = tiny_arena(rng, direction=direction)
    for case in cases(arena, rng, 5):
        answer, meter = _answer(Exhaustive(), arena, case)
        verdict = judge(case, answer, arena, meter)
        assert verdict.right
        assert not verdict.feasible or verdict.cost_over_optimum == 1.0
        assert meter.seconds == pytest.approx(float(arena.item_s.sum() * arena.space.items))


def test_vulcan_style_profiles_whole_configurations_once() -> None:
    case = cases(ARENA, np.random.default_rng(0), 5)[1]
    _, meter = _answer(VulcanStyle(), ARENA, case)
    touched = meter.items > 0
    assert set(meter.items[touched].tolist()) == {ARENA.space.items}
    whole_s = ARENA.item_s[ARENA.space.rows].sum(axis=1) * ARENA.space.items
    assert meter.seconds == pytest.approx(float(whole_s[touched].sum()))
    assert meter.touched >= 5


def test_halving_measures_less_of_what_it_drops() -> None:
    _, meter = _answer(SuccessiveHalving(survivors=2), ARENA, Case(100.0, 0.5, 100.0, 1.0))
    assert meter.touched == len(meter.items)
    assert sorted(set(meter.items.tolist())) == [8, 16, 32, 40]
    assert (meter.items == 8).sum() == 7


def test_paper_style_stops_early_where_it_is_clear_and_goes_on_where_not() -> None:
    arena = tiny_arena(np.random.default_rng(0), items=200)
    clear = Case(100.0, 0.0, 100.0, 1.0)
    assert _answer(PaperStyle(), arena, clear)[1].items.max() == 30
    close = Case(100.0, float(arena.means[4]) + 1e-6, 100.0, 1.0)
    assert _answer(PaperStyle(), arena, close)[1].items[4] > 150


def test_paper_style_starts_from_the_frontier_of_the_similar_query() -> None:
    scores, cost = np.array([0.1, 0.5, 0.4, 0.9, 0.9]), np.array([1.0, 2.0, 3.0, 5.0, 4.0])
    assert Earlier(scores, cost, 1.0).frontier(np.arange(5)).tolist() == [0, 1, 4]
    assert Earlier(scores, cost, -1.0).frontier(np.arange(5)).tolist() == [0]
    assert Earlier(scores, cost, 1.0).frontier(np.array([2, 3])).tolist() == [2, 3]


def test_optuna_is_not_charged_for_what_it_tries_again() -> None:
    _, meter = _answer(OptunaConstrained(60), ARENA, Case(100.0, 0.5, 100.0, 1.0))
    assert meter.touched <= 15
    assert meter.seconds <= ARENA.item_s.sum() * ARENA.space.items + 1e-9


def test_clusters_hold_what_is_alike_and_beginnings_are_in_proportion() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(4), [40, 20, 30, 10], axis=0)
    labels = k_means(points, 4, rng)
    assert len({tuple(sorted(set(labels[points[:, c] > 0]))) for c in range(4)}) == len(set(labels)) == 4
    order = clustered_order(points, 8, rng)
    assert sorted(order.tolist()) == list(range(100))
    for length in (10, 20, 50):
        shares = points[order[:length]].sum(axis=0) - length * np.array([0.4, 0.2, 0.3, 0.1])
        assert np.abs(shares).max() <= 1.0
    assert sorted(clustered_order(np.zeros((5, 0)), 8, rng).tolist()) == list(range(5))


def test_knobs_as_positions() -> None:
    positions = knob_positions(ARENA.space.pipeline, ARENA.space.configurations)
    assert positions.shape == (15, 1 + 3)
    assert sorted(set(positions[:, 0])) == [0.0, 0.25, 0.5, 0.75, 1.0]
    models = np.unique(positions[:, 1:], axis=0)
    assert np.linalg.norm(models[0] - models[1]) == pytest.approx(1.0)


def test_the_process_goes_through_its_values_and_doubts_what_is_far() -> None:
    points = np.linspace(0, 1, 21)[:, None]
    seen = np.arange(0, 21, 2)
    values = np.sin(3 * points[:, 0])
    mean, std = GridProcess(points).posterior(seen, values[seen])
    assert mean[seen] == pytest.approx(values[seen], abs=0.01)
    assert np.abs(mean - values).max() < 0.02
    _, std = GridProcess(points).posterior(seen[:4], values[seen[:4]])
    assert (np.diff(std[6:]) > 0).all()


def test_expected_improvement_against_its_definition() -> None:
    draws = np.random.default_rng(0).normal(1.0, 0.5, 200_000)
    found = expected_improvement(np.array([1.0, 1.0]), np.array([0.5, 0.0]), 1.2)
    assert found[0] == pytest.approx(np.maximum(draws - 1.2, 0).mean(), rel=0.02)
    assert found[1] == 0.0
