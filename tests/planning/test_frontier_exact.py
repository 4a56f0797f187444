"""The search against listing every plan, on random small instances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from listing import EXACT, Listed, listed, point_of, small_seeds, undominated

from circinus.planning import Frontier, plan_query
from circinus.planning.settings import SearchSettings
from instances import random_instance

SEEDS = small_seeds(320, 400)
LARGER = tuple(seed for seed in small_seeds(360, 4000) if seed not in SEEDS)[:12]


def _plan(seed: int, settings: SearchSettings = EXACT) -> Frontier:
    instance = random_instance(seed)
    return plan_query(instance.query, instance.pipeline, instance.profile, instance.network, settings)


def _promised(seed: int) -> list[Listed]:
    slos = random_instance(seed).query.slos
    return [plan for plan in listed(seed) if not plan.violations(slos)]


def _assert_same_points(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    for point in expected:
        assert np.isclose(found, point, rtol=1e-7, atol=1e-12).all(axis=1).any()


@pytest.mark.parametrize("seed", [*SEEDS, *LARGER])
def test_the_frontier_is_that_of_all_plans(seed: int) -> None:
    frontier = _plan(seed)
    instance = random_instance(seed)
    found = [point_of(instance, candidate) for candidate in frontier.candidates]
    assert None not in found
    expected = [plan.point for plan in undominated(_promised(seed))]
    _assert_same_points(np.array(found), np.array(expected))
    assert bool(frontier.reason) == (not frontier.candidates)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_candidate_is_promised_and_they_are_sorted_by_cost(seed: int) -> None:
    frontier = _plan(seed, SearchSettings())
    assert all(not c.estimate.violations(frontier.query.slos) for c in frontier.candidates)
    costs = [c.estimate.cost_usd_per_h.upper for c in frontier.candidates]
    assert costs == sorted(costs)


@pytest.mark.parametrize("seed", SEEDS[:160])
def test_tolerance_loses_only_plans_near_the_limit(seed: int) -> None:
    """Each operator may lose the tolerance twice: among its options and among the labels behind it."""
    instance = random_instance(seed)
    latency = instance.query.slos.latency
    tolerance = 0.02
    if latency is None:
        return
    share = 1 - 2 * tolerance * len(instance.pipeline.operators) - 1e-5
    settings = replace(EXACT, tolerance=tolerance)
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, settings)
    points = [point_of(instance, candidate) for candidate in frontier.candidates]
    for plan in _promised(seed):
        if plan.latency_s <= latency.limit_s * share:
            ceiling = np.array(plan.point) * (1 + 1e-6)
            assert any((np.array(point) <= ceiling).all() for point in points)
