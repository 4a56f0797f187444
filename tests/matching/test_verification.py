"""Plans held against a simulation where formulas have doubts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from specifications import random_specification

from circinus.matching import Matching, plan_all
from circinus.matching.matcher import _without
from circinus.matching.planned import planned_queries
from circinus.matching.verification import verified
from circinus.planning import plan_queries
from circinus.profiling import PipelineProfile
from circinus.simulation import simulate
from circinus.spec import BurstyArrivals, LatencySlo, Network, Specification


def _bursty(seed: int) -> tuple[Specification, dict[str, PipelineProfile], Matching]:
    """Queries with mild bursts, that something can be promised for."""
    specification, profiles = random_specification(seed, queries=4)
    arrivals = BurstyArrivals(peak=1.5, burst_s=2.0, every_s=8.0)
    queries = tuple(query.model_copy(update={"arrivals": arrivals}) for query in specification.queries)
    specification = replace(specification, queries=queries)
    matching, _ = plan_all(specification, profiles)
    return specification, dict(profiles), matching


@pytest.mark.parametrize("seed", range(8))
def test_what_formulas_doubt_is_simulated_and_kept(seed: int) -> None:
    specification, profiles, matching = _bursty(seed)
    assert specification.infrastructure is not None
    slos = {query.name: query.slos for query in specification.queries}
    planned = planned_queries(specification, profiles, matching)
    for assignment in matching.assignments:
        estimate = assignment.chosen.estimate
        assert estimate.doubts
        if estimate.simulated:
            assert "latency" not in estimate.violations(slos[assignment.query])
    if planned:
        report = simulate(
            planned,
            {sized.deployment: sized.replicas for sized in matching.deployments},
            Network(specification.infrastructure),
            duration_s=5000.0,
            seed=seed + 100,
        )
        simulated = {query.query: query for query in report.queries}
        for assignment in matching.assignments:
            if assignment.chosen.estimate.simulated:
                again = simulated[assignment.query].at_percentile_s.value
                assert assignment.chosen.estimate.latency_s.value == pytest.approx(again, rel=0.25)


def test_some_are_simulated() -> None:
    assert any(a.chosen.estimate.simulated for seed in range(8) for a in _bursty(seed)[2].assignments)


def test_without_doubts_nothing_changes() -> None:
    specification, profiles = random_specification(1, queries=4)
    matching, _ = plan_all(specification, profiles)
    assert specification.infrastructure is not None
    calm = replace(
        matching,
        assignments=tuple(
            replace(a, chosen=replace(a.chosen, estimate=replace(a.chosen.estimate, doubts=())))
            for a in matching.assignments
        ),
    )
    planned = planned_queries(specification, profiles, calm)
    found = verified(calm, planned, Network(specification.infrastructure))
    assert found.matching is calm
    assert not found.missed


def test_a_plan_that_the_simulation_finds_too_slow_is_missed_and_no_longer_offered() -> None:
    specification, profiles, matching = next(
        found for found in map(_bursty, range(8)) if any(a.chosen.estimate.simulated for a in found[2].assignments)
    )
    assert specification.infrastructure is not None
    first = next(a for a in matching.assignments if a.chosen.estimate.simulated)
    least = LatencySlo(percentile=95.0, limit_s=first.chosen.estimate.latency_s.value / 2)
    queries = tuple(
        q.model_copy(update={"slos": q.slos.model_copy(update={"latency": least})}) if q.name == first.query else q
        for q in specification.queries
    )
    planned = planned_queries(replace(specification, queries=queries), profiles, matching)
    found = verified(matching, planned, Network(specification.infrastructure))
    assert dict(found.missed) == {first.query: first.chosen.plan}
    frontier = plan_queries(specification, profiles)[first.query]
    left = _without(frontier, first.chosen.plan)
    assert first.chosen.plan not in [candidate.plan for candidate in left.candidates]
    if first.chosen.plan in [candidate.plan for candidate in frontier.candidates]:
        assert left.near_misses[0].candidate.plan == first.chosen.plan
