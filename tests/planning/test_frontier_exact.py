"""The search against listing every plan, on random small instances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from listing import EXACT, Listed, list_plans, listed, point_of, roomy_point, small_seeds, unbeaten, undominated

from circinus.estimation import Candidate
from circinus.planning import Frontier, plan_query
from circinus.planning.settings import SearchSettings
from instances import corrected, everywhere, measured_there, random_instance, slower

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


@pytest.mark.parametrize("seed", [*SEEDS[:120], *LARGER[:4]])
def test_no_plan_that_has_more_margin_than_those_that_take_less_is_lost(seed: int) -> None:
    frontier, instance = _plan(seed), random_instance(seed)
    slos = instance.query.slos
    found = [roomy_point(c, point_of(instance, c) or (), slos) for c in frontier.plans]
    for point in unbeaten([roomy_point(plan.candidate, plan.point, slos) for plan in _promised(seed)]):
        assert np.isclose(found, point, rtol=1e-7, atol=1e-12).all(axis=1).any()
    assert len({c.plan for c in frontier.plans}) == len(frontier.plans)
    assert all(not c.estimate.violations(slos) for c in frontier.with_margin)


@pytest.mark.parametrize("max_plans", [2, 5])
def test_the_cap_keeps_the_fastest_and_the_most_accurate_plan(max_plans: int) -> None:
    capped_somewhere = False
    for seed in SEEDS[:60]:
        everything = _plan(seed)
        slos = everything.query.slos
        if not everything.candidates or (slos.latency is None and slos.accuracy is None):
            continue
        capped = _plan(seed, replace(EXACT, max_margin_plans=max_plans))
        assert len(capped.with_margin) <= max_plans
        assert capped.candidates == everything.candidates
        capped_somewhere |= len(capped.with_margin) < len(everything.with_margin)
        for place in (-2, -1):  # latency, accuracy
            best = min(roomy_point(c, (), slos)[place] for c in everything.plans)
            assert min(roomy_point(c, (), slos)[place] for c in capped.plans) == best
    assert capped_somewhere


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


@pytest.mark.parametrize("seed", SEEDS[:80])
def test_the_frontier_is_that_of_all_plans_where_service_times_are_corrected(seed: int) -> None:
    instance = corrected(random_instance(seed))
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, EXACT)
    found = [point_of(instance, candidate) for candidate in frontier.candidates]
    promised = [plan for plan in list_plans(instance) if not plan.violations(instance.query.slos)]
    _assert_same_points(np.array(found), np.array([plan.point for plan in undominated(promised)]))


@pytest.mark.parametrize("seed", SEEDS[:80])
def test_the_frontier_is_that_of_all_plans_where_speeds_were_measured(seed: int) -> None:
    instance = measured_there(random_instance(seed))
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, EXACT)
    found = [point_of(instance, candidate) for candidate in frontier.candidates]
    promised = [plan for plan in list_plans(instance) if not plan.violations(instance.query.slos)]
    _assert_same_points(np.array(found), np.array([plan.point for plan in undominated(promised)]))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_correction_is_as_if_all_had_been_measured_to_take_so_long(factor: float) -> None:
    changed = 0
    for seed in SEEDS[:40]:
        instance = random_instance(seed)
        corrections = everywhere(instance.pipeline, instance.network.infrastructure, factor)
        profiles = corrections.applied_to(instance.profile, instance.pipeline), slower(instance.profile, factor)
        found, expected = (
            plan_query(instance.query, instance.pipeline, profile, instance.network).plans for profile in profiles
        )
        assert [c.plan for c in found] == [c.plan for c in expected]
        assert [_said(c) for c in found] == [pytest.approx(_said(c), rel=1e-9) for c in expected]
        changed += found != _plan(seed, SearchSettings()).plans
    assert changed > 10


def _said(candidate: Candidate) -> list[float]:
    """What an estimate says of latency and cost, but for rounding."""
    latency_s, cost = candidate.estimate.latency_s, candidate.estimate.cost_usd_per_h
    return [latency_s.lower, latency_s.value, latency_s.upper, cost.lower, cost.value, cost.upper]
