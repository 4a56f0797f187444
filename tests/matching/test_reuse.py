"""What frontiers lose when plans share, and what plans on running deployments win back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, half_share_of, share_of
from circinus.errors import PlanningError
from circinus.estimation import Estimator
from circinus.matching import Matching, MatchSettings, match
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.plan_estimates import PlanEstimates
from circinus.planning import Frontier, SearchSettings, plan_queries
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Specification
from circinus.testing.random_instances import random_specification
from planning_instances import Instance, all_plans
from random_matchings import candidate, deployment, infrastructure, reestimate, use

EXACT = SearchSettings(tolerance=0.0, max_plans=1_000_000)
PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)
REUSE = replace(PATIENT, considers_all_plans=False, divides_requests=False, fits_targets=False)
SEEDS = (2, 1, 3, 4, 5, 6, 7, 0, *range(8, 20))
"""Of the first ten those with the numbers 0, 1 and 5 lose something."""


def all_frontiers(specification: Specification, profiles: dict[str, PipelineProfile]) -> dict[str, Frontier]:
    """Every plan that promises its query's objectives, beaten or not."""
    assert specification.infrastructure is not None
    network = Network(specification.infrastructure)
    found = {}
    for query in specification.queries:
        pipeline, profile = specification.pipelines[query.pipeline], profiles[query.pipeline]
        estimators = {c.configuration: Estimator(query, pipeline, c, network) for c in profile.configurations}
        plans = []
        for plan in all_plans(Instance(query, pipeline, profile, network)):
            try:
                candidate = estimators[plan.configuration].candidate(plan)
            except PlanningError:  # a link that the query alone would fill
                continue
            if not candidate.estimate.violations(query.slos):
                plans.append(candidate)
        found[query.name] = Frontier(query, tuple(plans), {}, (), (), "none")
    return found


def goodness(found: Matching) -> tuple[float, float]:
    return round(found.satisfied_weight, 6), -round(found.cost_usd_per_h, 7)


@pytest.mark.slow
def test_most_matchings_of_frontiers_are_best_and_reuse_wins_back_half_of_what_is_lost() -> None:
    """Reuse is never worse than frontiers, and never better than all plans."""
    count, lost, still_lost = half_share_of(len(SEEDS)), 0, 0
    for seed in SEEDS[:count]:
        specification, profiles = random_specification(seed)
        infrastructure = specification.infrastructure
        assert infrastructure is not None
        plans = PlanEstimates(specification, profiles)
        frontiers = plan_queries(specification, profiles, EXACT)
        matchings = [
            match(offered, infrastructure, plans.reestimate, source=source, settings=REUSE)
            for offered, source in (
                (frontiers, None),
                (frontiers, plans),
                (all_frontiers(specification, profiles), None),
            )
        ]
        assert matchings[0].optimal
        assert matchings[2].optimal
        of_frontiers, reuse, everything = map(goodness, matchings)
        assert of_frontiers <= reuse <= everything
        lost += of_frontiers < everything
        still_lost += reuse < everything
    assert 0 < lost < count / 2
    assert still_lost <= lost / 2


@settings(max_examples=half_share_of(24))
@example(seed=1, queries=4, max_plans=1)
@given(seed=st.integers(0, 10_000), queries=st.integers(1, 4), max_plans=st.integers(1, 3))
def test_a_matching_proved_optimal_is_the_best_of_all_plans(seed: int, queries: int, max_plans: int) -> None:
    """Frontiers list fewer plans than there are, and leave out those that pay on shared deployments only."""
    specification, profiles = random_specification(seed, queries=queries)
    infrastructure = specification.required_infrastructure
    plans = PlanEstimates(specification, profiles)
    listed = plan_queries(specification, profiles, replace(EXACT, max_plans=max_plans, near_misses=0))
    everything = all_frontiers(specification, profiles)
    for frontier in everything.values():
        enumerated = plans.all_plans([frontier.query], lambda: False)
        assert enumerated is not None
        assert {c.plan for c in enumerated[frontier.query.name]} == {c.plan for c in frontier.candidates}
    every_plan = replace(REUSE, considers_all_plans=True)
    found = match(listed, infrastructure, plans.reestimate, source=plans, settings=every_plan)
    best = match(everything, infrastructure, plans.reestimate, settings=PATIENT)
    assert best.optimal
    assert found.optimal
    assert goodness(found) == goodness(best)
    assert found.weight_bound == pytest.approx(best.satisfied_weight)


@pytest.mark.parametrize("seed", [1, 5][: share_of(2)])
def test_bounds_hold_for_all_plans(seed: int) -> None:
    """Dearer and lighter matchings of the candidates that are listed are proved optimal among them only."""
    specification, profiles = random_specification(seed)
    infrastructure = specification.required_infrastructure
    plans = PlanEstimates(specification, profiles)
    listed = plan_queries(specification, profiles, replace(EXACT, max_plans=2))
    few = {name: replace(f, candidates=f.candidates[-1:]) for name, f in listed.items()}
    found = match(few, infrastructure, plans.reestimate, source=CandidateSource(), settings=PATIENT)
    everything = match(all_frontiers(specification, profiles), infrastructure, plans.reestimate, settings=PATIENT)
    assert goodness(found) < goodness(everything)
    assert not found.optimal
    assert found.weight_bound >= everything.satisfied_weight
    if found.satisfied_weight == everything.satisfied_weight:
        assert found.cost_bound_usd_per_h <= everything.cost_usd_per_h


def test_composed_plans_use_running_deployments_and_keep_the_objectives() -> None:
    specification, profiles = random_specification(4)
    assert specification.infrastructure is not None
    plans = PlanEstimates(specification, profiles)
    frontiers = plan_queries(specification, profiles, EXACT)
    running = {use.deployment for f in frontiers.values() for plan in f.candidates[:3] for use in plan.deployments}
    composed = 0
    for query in specification.queries:
        for plan in plans.on_deployments(query, sorted(running, key=lambda deployment: deployment.name)):
            composed += 1
            assert {use.deployment for use in plan.deployments} <= running
            assert not plan.estimate.violations(query.slos)
    assert composed
    assert not plans.on_deployments(specification.queries[0], [])


def test_composed_plans_respect_tiers_pools_of_other_sites_and_utilization_targets() -> None:
    specification, profiles = random_specification(4)
    (pipeline,) = specification.pipelines.values()
    frontiers = plan_queries(specification, profiles, EXACT)
    running = sorted(
        {use.deployment for f in frontiers.values() for plan in f.candidates for use in plan.deployments},
        key=lambda deployment: deployment.name,
    )
    pinned = pipeline.model_copy(
        update={"operators": tuple(o.model_copy(update={"allowed_tiers": ()}) for o in pipeline.operators)}
    )
    nowhere = replace(specification, pipelines={pipeline.name: pinned})
    plans = PlanEstimates(nowhere, profiles)
    assert all(not plans.on_deployments(query, running) for query in specification.queries)
    infrastructure = specification.infrastructure
    assert infrastructure is not None
    pools = tuple(pool.model_copy(update={"private": pool.site != "device"}) for pool in infrastructure.pools)
    private = infrastructure.model_copy(update={"pools": pools})
    alone = PlanEstimates(replace(specification, infrastructure=private), profiles)
    at_home = {pool.name for pool in private.pools if pool.site == "device"}
    for query in specification.queries:
        for plan in alone.on_deployments(query, running):
            assert {pool for _, pool in plan.plan.placement} <= at_home
    for limit, usable in ((0.7, True), (0.3, False)):
        limited = infrastructure.model_copy(update={"utilization_targets": (limit,), "max_utilization": limit})
        plans = PlanEstimates(replace(specification, infrastructure=limited), profiles)
        assert any(plans.on_deployments(query, running) for query in specification.queries) == usable


def test_a_deployments_memory_is_one_number_in_these_instances() -> None:
    """Otherwise the comparison above would compare prices, too."""
    _, profiles = random_specification(0)
    (profile,) = profiles.values()
    seen: dict[tuple[str, object], float] = {}
    for found in profile.configurations:
        for name, operator in found.operators.items():
            known = seen.setdefault((name, found.configuration[name]), operator.peak_memory_bytes)
            assert np.isclose(known, operator.peak_memory_bytes)


def test_bounds_are_reached_despite_rounding() -> None:
    """The bound sums up a query without a plan, the satisfied weight does not."""
    infra = infrastructure([("edge", 4, 8.0, 64.0, 0.0)])
    weights = (0.2, 0.3, 0.7, 0.7, 0.1, 0.1, 0.7, 0.7, 0.1)
    queries = [
        Query(name=f"q{index}", pipeline="p", source="home", rate_per_s=1.0, weight=weight)
        for index, weight in enumerate(weights)
    ]
    plans = {q.name: (candidate(q.name, [use(deployment("a", 0, "edge"), 0.1, infra)]),) for q in queries}
    plans["q2"] = ()
    frontiers = {q.name: Frontier(q, plans[q.name], {}, (), (), "none") for q in queries}
    found = match(frontiers, infra, reestimate, source=CandidateSource(), settings=PATIENT)
    assert found.optimal
    assert found.weight_bound == found.satisfied_weight
