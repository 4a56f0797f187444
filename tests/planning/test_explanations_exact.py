"""Near misses and relaxations against listing every plan, on random small instances."""

from __future__ import annotations

import pytest
from listing import EXACT, Listed, listed, small_seeds

from circinus.planning import Frontier, plan_query
from instances import random_instance

SEEDS = small_seeds(320, 400)


def _plan(seed: int) -> Frontier:
    instance = random_instance(seed)
    return plan_query(instance.query, instance.pipeline, instance.profile, instance.network, EXACT)


def _missing_at_most(seed: int, slo: str) -> list[Listed]:
    """The plans that keep every objective but perhaps this one."""
    slos = random_instance(seed).query.slos
    return [plan for plan in listed(seed) if set(plan.violations(slos)) <= {slo}]


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_are_the_tightest(seed: int) -> None:
    frontier = _plan(seed)
    if frontier.candidates:
        assert frontier.relaxations == ()
        return
    slos = frontier.query.slos
    expected = {}
    for slo, given, best in (
        ("latency", slos.latency, lambda plans: min(plan.latency_s for plan in plans)),
        ("accuracy", slos.accuracy, lambda plans: max(plan.accuracy for plan in plans)),
        ("cost", slos.cost, lambda plans: min(plan.shared_cost for plan in plans)),
    ):
        plans = _missing_at_most(seed, slo)
        if given is not None and plans:
            expected[slo] = best(plans)
    assert {r.slo: r.limit for r in frontier.relaxations} == pytest.approx(expected)
    for relaxation in frontier.relaxations:
        assert relaxation.candidate.estimate.violations(slos) == (relaxation.slo,)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_near_miss_is_the_best_plan_of_its_configuration(seed: int) -> None:
    frontier = _plan(seed)
    slos = frontier.query.slos
    for miss in frontier.near_misses:
        estimate = miss.candidate.estimate
        (slo,) = miss.violations
        assert estimate.violations(slos) == (slo,)
        alike = [p for p in listed(seed) if p.candidate.plan.configuration == miss.candidate.plan.configuration]
        others = [p for p in alike if p.violations(slos) == (slo,)]
        if slo == "accuracy":
            assert estimate.cost_usd_per_h.upper == pytest.approx(min(p.alone_cost for p in others))
        if slo == "latency":
            assert estimate.latency_s.upper == pytest.approx(min(p.latency_s for p in others))
        if slo == "cost":
            assert estimate.cost_usd_per_h.lower == pytest.approx(min(p.shared_cost for p in others))
        assert miss.reason


@pytest.mark.parametrize("seed", SEEDS[:160])
def test_every_configuration_that_misses_the_accuracy_alone_is_a_near_miss(seed: int) -> None:
    slos = random_instance(seed).query.slos
    expected = {p.candidate.plan.configuration for p in listed(seed) if p.violations(slos) == ("accuracy",)}
    found = {m.candidate.plan.configuration for m in _plan(seed).near_misses if m.violations == ("accuracy",)}
    assert found == expected


@pytest.mark.parametrize("seed", SEEDS[:160])
def test_a_configuration_is_never_both_a_candidate_and_too_slow(seed: int) -> None:
    frontier = _plan(seed)
    chosen = {candidate.plan.configuration for candidate in frontier.candidates}
    assert not chosen & {m.candidate.plan.configuration for m in frontier.near_misses if m.violations == ("latency",)}
