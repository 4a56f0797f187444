"""The box with the lowest reservation cost is opened next; without a plan, the one that soonest contains one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.sampler.reservation_index import (
    CandidateBeliefs,
    Pursuit,
    StoppingRule,
    expected_items_to_decide,
    select_configuration,
)
from circinus.planning.sampler.surrogate import Belief

STOPPING = StoppingRule(
    saving=0.05,
    probability=0.05,
    probability_without_plan=0.01,
    probability_of_first_plan=0.01,
    expected_saving_share=0.2,
)
SAVING_S = 10.0


def _random(seed: int) -> tuple[CandidateBeliefs, np.ndarray]:
    """Return beliefs and (6, 8) draws of costs."""
    rng = np.random.default_rng(seed)
    count, draws = 6, 8
    begun = rng.random(count) < 0.5
    usd = rng.uniform(1, 3, (count, draws))
    usd[rng.random((count, draws)) < 0.2] = np.inf
    usd[begun] = usd[begun, :1]
    keeps = rng.random(count)
    sure, look_s, settle_s = begun & (rng.random(count) < 0.3), rng.uniform(1, 5, count), rng.uniform(1, 50)
    return CandidateBeliefs(keeps, sure, begun, look_s, np.full(count, settle_s)), usd


def _gain(prospects: CandidateBeliefs, usd_per_h: np.ndarray, number: int, plan: float, usd_per_s: float) -> float:
    """Return the gain of opening a box with a plan in hand, by definition."""
    settle = prospects.settle_s[number]
    look = 0.0 if prospects.is_measured[number] else usd_per_s * prospects.look_s[number]
    saved = np.maximum(plan - usd_per_h[number] - usd_per_s * settle / prospects.feasibility[number], 0.0)
    return float(prospects.feasibility[number] * saved.mean() - look)


@given(st.integers(0, 10_000))
def test_what_most_likely_misses_its_slo_is_not_worthwhile_at_any_cost(seed: int) -> None:
    prospects, usd_per_h = _random(seed)
    unlikely = np.where(np.arange(6) < 3, prospects.feasibility * STOPPING.min_feasibility, prospects.feasibility)
    prospects = replace(prospects, feasibility=unlikely)
    with_costs = select_configuration(prospects, usd_per_h, STOPPING, SAVING_S)
    uncosted = (np.arange(6) < 3) & ~prospects.is_certain
    without = select_configuration(prospects, np.where(uncosted[:, None], np.inf, usd_per_h), STOPPING, SAVING_S)
    assert without.configuration == with_costs.configuration
    np.testing.assert_array_equal(without.is_worthwhile, with_costs.is_worthwhile)
    assert not without.is_worthwhile[:3].any()


@given(st.integers(0, 10_000))
def test_by_brute_force(seed: int) -> None:
    prospects, usd_per_h = _random(seed)
    found = select_configuration(prospects, usd_per_h, STOPPING, SAVING_S)
    sure = usd_per_h[prospects.is_certain]
    best = float(sure.min(initial=np.inf))
    has_plan = bool(np.isfinite(best))
    cheaper = usd_per_h < 0.95 * best if has_plan else np.isfinite(usd_per_h)
    feasibility = np.where(prospects.is_certain, 0.0, prospects.feasibility)
    chance = feasibility * cheaper.mean(axis=1)
    saved = feasibility * np.where(cheaper, 1.0 - usd_per_h / best, 0.0).mean(axis=1) if has_plan else chance
    open_ = (chance > 0.05) | (saved > 0.01) if has_plan else chance > 0.01
    assert found.probability == pytest.approx(chance)
    assert found.is_worthwhile.tolist() == open_.tolist()
    if not open_.any():
        assert found.configuration is None
        return
    assert found.configuration is not None
    assert open_[found.configuration]
    assert found.gain == pytest.approx(saved)
    if not has_plan:
        looks_s = np.where(prospects.is_measured, 0.0, prospects.look_s)
        expected_s = (looks_s + prospects.settle_s)[open_] / chance[open_]
        assert np.flatnonzero(open_)[expected_s.argmin()] == found.configuration
        return
    usd_per_s = STOPPING.saving * best / SAVING_S
    costs = []
    for number in np.flatnonzero(open_):
        low, high = 0.0, 1e6
        for _ in range(80):
            middle = (low + high) / 2
            worth = _gain(prospects, usd_per_h, int(number), middle, usd_per_s) > 1e-12
            low, high = (low, middle) if worth else (middle, high)
        costs.append(high)
    chosen = np.flatnonzero(open_).tolist().index(found.configuration)
    assert costs[chosen] <= min(costs) * (1 + 1e-6) + 1e-9


def test_of_two_alike_the_one_begun_is_pursued_and_a_cheap_unknown_one_is_looked_at() -> None:
    usd = np.array([[2.0] * 4, [2.0] * 4, [1.0, 2.0, 2.0, 3.0], [4.0] * 4])
    begun, sure = np.array([False, True, False, True]), np.array([False, False, False, True])
    alike = CandidateBeliefs(np.array([0.5, 0.5, 0.5, 1.0]), sure, begun, np.full(4, 1.0), np.full(4, 5.0))
    assert select_configuration(alike, usd, STOPPING, 1000.0).configuration == 2
    assert (
        select_configuration(alike, usd, STOPPING, 0.05).configuration == 1
    )  # expensive time favours measured configurations


@pytest.mark.parametrize(
    ("pursuit", "feasibility", "expected"),
    [
        (Pursuit.SOONEST, [0.1, 0.45, 0.6, 0.3], 0),  # soon rejected
        (Pursuit.MOST_PROBABLE, [0.1, 0.45, 0.6, 0.3], 2),
        (Pursuit.MOST_PROBABLE, [0.1, 0.5, 0.6, 0.3], 1),  # similar, and decided sooner
        (Pursuit.SETTLE, [0.1, 0.5, 0.6, 0.3], 3),
        (Pursuit.SETTLE, [0.1, 0.45, 0.6, 0.04], 2),  # not worth settling
    ],
)
def test_without_a_plan_the_order_is_that_of_the_pursuit(
    pursuit: Pursuit, feasibility: list[float], expected: int
) -> None:
    measured, none = np.array([False, False, False, True]), np.zeros(4, dtype=bool)
    settle_s = np.array([5.0, 50.0, 100.0, 90.0])
    beliefs = CandidateBeliefs(np.array(feasibility), none, measured, np.ones(4), settle_s)
    assert select_configuration(beliefs, np.ones((4, 3)), STOPPING, 1.0, pursuit).configuration == expected


def test_with_a_plan_begun_configurations_are_settled_before_cheaper_ones_are_begun() -> None:
    usd, certain = np.array([[1.0], [2.0], [3.0]]), np.array([False, False, True])
    measured, ones = np.array([False, True, True]), np.ones(3)
    beliefs = CandidateBeliefs(np.array([0.5, 0.5, 1.0]), certain, measured, ones, ones)
    assert select_configuration(beliefs, usd, STOPPING, 1000.0, Pursuit.MOST_PROBABLE).configuration == 0
    assert select_configuration(beliefs, usd, STOPPING, 1000.0, Pursuit.SETTLE).configuration == 1


def test_a_plan_that_saves_much_is_worthwhile_though_improbable_and_a_certain_small_saving_is_not() -> None:
    usd, sure, ones = np.array([[2.9], [3.0], [0.1]]), np.array([False, True, False]), np.ones(3)
    found = select_configuration(
        CandidateBeliefs(np.array([1.0, 1.0, 0.04]), sure, sure, ones, ones), usd, STOPPING, 1000.0
    )
    assert found.configuration == 2
    assert found.gain == pytest.approx([0.0, 0.0, 0.04 * 2.9 / 3])
    assert found.is_worthwhile.tolist() == [False, False, True]
    assert found.probability[2] == 0.04


def test_nothing_is_pursued_that_hardly_keeps_the_objective() -> None:
    usd = np.ones((2, 3))
    nobody, begun = np.zeros(2, dtype=bool), np.ones(2, dtype=bool)
    found = select_configuration(
        CandidateBeliefs(np.array([0.009, 0.0]), nobody, begun, usd[:, 0], usd[:, 0]), usd, STOPPING, 1.0
    )
    assert found.configuration is None
    assert found.probability == pytest.approx([0.009, 0.0])


def test_items_until_settled_grow_towards_the_threshold_and_end_at_all() -> None:
    belief = Belief(np.array([0.5, 0.6, 0.9]), np.full(3, 0.001))
    items = expected_items_to_decide(belief, np.array([0.5, 1.0, 1.0]), 0.5, 0.04, 1.0, 1e-3, 300)
    assert items[0] > items[1] > items[2]
    assert (items <= 300).all()
    hopeless = expected_items_to_decide(belief, np.zeros(3), 0.5, 0.04, 1.0, 1e-3, 300)
    assert (hopeless < items).all()  # rejection takes fewer items than certainty
