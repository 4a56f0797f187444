"""Deployments and replicas that a simulation of all queries shows to be spare."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from benchmarks.workloads.recorded import recorded

from budget import HANG_LIMIT_S, share_of
from circinus.matching import Incumbent, Matching, MatchSettings, plan_all_queries
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.consolidation import consolidate
from circinus.matching.simulation_check import simulation_inputs
from circinus.planning import Frontier
from circinus.profiling import PipelineProfile
from circinus.simulation import simulate
from circinus.specification import Infrastructure, Network, Query, SloKind, Specification
from circinus.testing.random_instances import random_specification

PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S, divides_requests=False)
SEEDS = (3, 1)[: share_of(2)]


@cache
def _instance(
    seed: int,
) -> tuple[Specification, dict[str, PipelineProfile], Matching, dict[str, Frontier], Matching]:
    """Return queries, their plans at utilization targets, and the same queries' plans after consolidation."""
    specification, profiles = random_specification(seed, queries=8)
    at_targets = replace(PATIENT, fits_targets=False)
    before, frontiers = plan_all_queries(specification, profiles, settings=at_targets, explain_rejections=())
    planner = AdmissionPlanner.of(specification, profiles, before)
    return (
        specification,
        profiles,
        before,
        dict(frontiers),
        consolidate(planner, frontiers, PATIENT, opens=True).matching,
    )


def test_the_same_queries_cost_less() -> None:
    instances = [_instance(seed) for seed in SEEDS]
    assert all(after.served == before.served for _, _, before, _, after in instances)
    assert all(after.cost_usd_per_h <= before.cost_usd_per_h for _, _, before, _, after in instances)
    assert any(after.cost_usd_per_h < 0.9 * before.cost_usd_per_h for _, _, before, _, after in instances)


def test_queries_that_are_too_slow_alone_share_cheap_replicas() -> None:
    trace, truth = recorded("meeting")
    shared = {"site": "home", "tier": "edge", "nodes": 4, "cpus": 8, "memory": "16GiB"}
    pools = [
        shared | {"name": name, "price": price, "hardware": {"class": name, "relative_speed": speed}}
        for name, speed, price in (("slow", 0.5, 0.1), ("fast", 1.0, 1.0))
    ]
    slos = {"latency": {"percentile": 95, "limit": 0.5}}
    queries = [
        Query.model_validate({"name": f"q{n}", "pipeline": "meeting", "source": "home", "rate": 0.25, "slos": slos})
        for n in range(8)
    ]
    places = Infrastructure.model_validate({"name": "places", "sites": ["home"], "pools": pools})
    specification, profiles = Specification({"meeting": trace.pipeline}, places, tuple(queries)), {"meeting": truth}
    at_targets = replace(PATIENT, fits_targets=False)
    before, frontiers = plan_all_queries(specification, profiles, settings=at_targets, explain_rejections=())
    assert _pools_of(before) == {"slow", "fast"}
    planner = AdmissionPlanner.of(specification, profiles, before)
    assert _pools_of(consolidate(planner, frontiers, PATIENT, opens=False).matching) == {"slow", "fast"}
    after = consolidate(planner, frontiers, PATIENT, opens=True).matching
    assert (_pools_of(after), after.served) == ({"slow"}, before.served)
    assert not [a.query for a in after.assignments if a.chosen.estimate.violations(queries[0].slos, sized=True)]


def _pools_of(matching: Matching) -> set[str]:
    return {sized.deployment.pool for sized in matching.deployments}


@pytest.mark.parametrize("seed", SEEDS)
def test_all_promises_hold_in_another_simulation(seed: int) -> None:
    specification, profiles, _, _, after = _instance(seed)
    slos = {query.name: query.slos for query in specification.queries}
    assert not [a.query for a in after.assignments if a.chosen.estimate.violations(slos[a.query], sized=True)]
    replicas = {sized.deployment: sized.replicas for sized in after.deployments}
    planned = simulation_inputs(specification, profiles, after)
    network = Network(specification.required_infrastructure)
    report = simulate(planned, replicas, network, duration_s=1_000.0, warm_up_s=None, seed=99)
    late = [query.query for query in report.queries if not query.slos_met[SloKind.LATENCY] and query.is_significant]
    assert not late


@pytest.mark.parametrize("seed", SEEDS)
def test_plans_stay_when_all_queries_are_planned_again(seed: int) -> None:
    specification, profiles, _, _, after = _instance(seed)
    dear = Incumbent.of(after, change_usd_per_h=1e6)
    again, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=(), incumbent=dear)
    plans = {assignment.query: assignment.chosen.plan for assignment in again.assignments}
    assert {a.query: plans.get(a.query) for a in after.assignments} == {
        a.query: a.chosen.plan for a in after.assignments
    }
