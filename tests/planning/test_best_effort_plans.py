"""Best-effort plans of queries without a guaranteed plan, against exhaustive enumeration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from listing import EXACT, list_plans, small_instance

from budget import seeds
from circinus.estimation import Estimator, PlanCandidate
from circinus.planning import Frontier, SearchSettings, plan_query
from circinus.specification import AccuracySlo, LatencySlo, Slos
from circinus.statistics.interval import Interval
from planning_instances import Instance

POPULATION = 400


def _little_known(seed: int) -> Instance:
    """Return an instance with wide accuracy bounds and few measured items, so that little is guaranteed."""
    instance = small_instance(seed)
    wide = tuple(
        replace(found, accuracy=Interval(found.accuracy.value, 0.0, 1.0)) for found in instance.profile.configurations
    )
    profile = replace(instance.profile, configurations=wide, dataset_items=POPULATION)
    slos = instance.query.slos
    if slos.accuracy is None:
        slos = slos.model_copy(update={"accuracy": AccuracySlo(threshold=0.65)})
    return replace(instance, profile=profile, query=instance.query.model_copy(update={"slos": slos}))


def _frontier(instance: Instance, settings: SearchSettings = EXACT) -> Frontier:
    return plan_query(instance.query, instance.pipeline, instance.profile, instance.network, settings)


def _odds(candidate: PlanCandidate) -> float:
    assert candidate.estimate.slo_probability is not None
    return candidate.estimate.slo_probability.joint


def _all_odds(instance: Instance) -> list[tuple[float, float]]:
    """Return (probability, dedicated cost) of every plan that fits."""
    found = []
    for plan in list_plans(instance):
        profile = next(
            c for c in instance.profile.configurations if c.configuration == plan.candidate.plan.configuration
        )
        estimator = Estimator(instance.query, instance.pipeline, profile, instance.network, population=POPULATION)
        candidate = estimator.candidate(plan.candidate.plan)
        found.append((_odds(candidate), candidate.estimate.cost_usd_per_h.upper))
    return found


def test_hardly_any_plan_is_likelier_than_the_best_so_far() -> None:
    """No plan is more probable by more than the risk, as a cheaper plan with a guaranteed latency is preferred."""
    found = 0
    for seed in seeds(60):
        instance = _little_known(seed)
        if len(instance.profile.configurations[0].items) < 8:
            continue
        frontier = _frontier(instance)
        assert not frontier.candidates
        everything = _all_odds(instance)
        best = max((odds for odds, _ in everything), default=0.0)
        if frontier.best_effort is None:
            assert best < 0.02
            continue
        found += 1
        shown = frontier.best_effort
        assert shown.probability == _odds(shown.candidate)
        assert shown.probability >= best - instance.query.risk - 0.01
        assert (shown.items, shown.population) == (len(instance.profile.configurations[0].items), POPULATION)
        cost = instance.query.slos.cost
        assert cost is None or shown.candidate.estimate.cost_usd_per_h.lower <= cost.limit_usd_per_h * (1 + 1e-9)
    assert found


def test_a_plan_that_surely_fails_is_none_to_speak_of() -> None:
    instance = small_instance(0)
    slos = instance.query.slos.model_copy(update={"latency": LatencySlo(limit=1e-6)})
    query = instance.query.model_copy(update={"slos": slos})
    assert _frontier(replace(instance, query=query)).best_effort is None


@pytest.mark.parametrize("seed", seeds(40))
def test_what_is_promised_is_at_least_as_likely_as_promised_and_the_query_needs_no_other(seed: int) -> None:
    instance = small_instance(seed)
    frontier = _frontier(instance, SearchSettings())
    assert not frontier.candidates or frontier.best_effort is None
    for candidate in frontier.plans:
        odds = candidate.estimate.slo_probability
        assert odds is not None
        assert min(odds.latency, odds.accuracy) >= 1 - instance.query.risk
        assert odds.cost == 1.0
        assert odds.joint == pytest.approx(odds.latency * odds.accuracy)
        assert np.isfinite(odds.joint)


def test_requests_to_come_may_need_more_items_than_there_are() -> None:
    found = 0
    for seed in seeds(40):
        instance = small_instance(seed)
        best = max(measured.accuracy.lower for measured in instance.profile.configurations)
        slos = instance.query.slos.model_copy(update={"accuracy": AccuracySlo(threshold=best + 0.01)})
        query = instance.query.model_copy(update={"slos": slos})
        for stands_for in ("requests", "items"):
            profile = replace(instance.profile, stands_for=stands_for)
            frontier = _frontier(replace(instance, query=query, profile=profile))
            assert not frontier.candidates
            shown = frontier.best_effort
            if shown is None or shown.candidate.estimate.accuracy.value < best + 0.01:
                continue
            assert shown.candidate.estimate.slo_probability is not None
            probability = shown.candidate.estimate.slo_probability.accuracy
            assert (probability < 1) == (stands_for == "requests")
            assert (shown.more_items is not None) == (stands_for == "requests")
            found += shown.more_items is not None
    assert found


@pytest.mark.parametrize("step", [0.01, -0.01])
def test_of_equally_likely_plans_the_one_nearest_to_a_guarantee_is_the_best(step: float) -> None:
    instance = next(found for seed in range(40) if len((found := small_instance(seed)).profile.configurations) > 2)
    configurations = tuple(
        replace(measured, scores=np.full(len(measured.items), 0.9), accuracy=Interval(0.9, 0.6 + step * position, 1.0))
        for position, measured in enumerate(instance.profile.configurations)
    )
    profile = replace(instance.profile, configurations=configurations, dataset_items=POPULATION)
    query = instance.query.model_copy(update={"slos": Slos(accuracy=AccuracySlo(threshold=0.8))})
    best = _frontier(replace(instance, profile=profile, query=query)).best_effort
    assert best is not None
    assert best.candidate.estimate.accuracy.lower == max(measured.accuracy.lower for measured in configurations)
