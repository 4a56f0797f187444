"""Rejected queries that a simulation of the answer as sized would have kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import circinus as c
from benchmarks.promises.applications import Application, with_query
from circinus.api.profiling_service import load_profiles
from circinus.estimation import PlanCandidate, merge_loads
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Assignment
from circinus.matching.simulation_check import simulation_inputs
from circinus.profiling import PipelineProfile
from circinus.simulation import simulate
from circinus.specification import Network, SloKind

_MAX_PLANS = 3
"""Number of plans of a rejected query that are simulated, the fastest first."""
_REQUESTS = 4000.0
"""Simulated requests of the rejected query."""
_LARGE_S = 1e6


@dataclass(frozen=True)
class Rejected:
    """A rejected query on the deployments of the answer."""

    query: str
    composed: int
    """Number of its plans on running deployments, accurate enough, at any latency."""
    keeps: bool
    """True if a simulation of all queries keeps all SLOs beyond chance, on hardware of the declared speed."""
    keeps_cautiously: bool
    """True if it also does with the allowance for few items that a promise has."""


def simulated_rejections(application: Application, plan: c.Plan) -> Iterator[Rejected]:
    """Simulate each rejected query together with those served, on the deployments as sized."""
    specification = application.specification
    if not plan or not plan.rejected:
        return
    names = sorted({query.pipeline for query in specification.queries})
    profiles = load_profiles(specification, names, application.store, seed=0)
    for query in specification.queries:
        if query.name in plan.rejected:
            yield _simulated(specification, profiles, plan, query)


def _simulated(
    specification: c.Specification, profiles: Mapping[str, PipelineProfile], plan: c.Plan, query: c.Query
) -> Rejected:
    slos, deployments = query.slos, plan.matching.deployments
    wide = slos if slos.latency is None else slos.replaced(SloKind.LATENCY, slos.latency.with_limit(_LARGE_S))
    unlimited = query.model_copy(update={"slos": wide.without_cost})
    estimates = PlanEstimates(with_query(specification, unlimited), profiles)
    composed = estimates.on_deployments(unlimited, [sized.deployment for sized in deployments])
    fastest = sorted(composed, key=lambda candidate: candidate.estimate.latency_s.value)[:_MAX_PLANS]
    affordable = [candidate for candidate in fastest if _is_affordable(plan, query, candidate)]
    results = [_keeps(specification, profiles, plan, query, candidate, estimates) for candidate in affordable]
    return Rejected(query.name, len(composed), any(keeps for keeps, _ in results), any(both for _, both in results))


def _is_affordable(plan: c.Plan, query: c.Query, candidate: PlanCandidate) -> bool:
    """Return whether the query's share of the deployments, by busy replicas, meets its cost SLO."""
    if query.slos.cost is None:
        return True
    cost_usd_per_h = candidate.transfer_cost_usd_per_h
    sized = {entry.deployment: entry.replicas * entry.demand.cost_usd_per_h for entry in plan.matching.deployments}
    for use in candidate.deployments:
        others = [
            other.busy_replicas
            for assignment in plan.matching.assignments
            for other in assignment.chosen.deployments
            if other.deployment == use.deployment
        ]
        cost_usd_per_h += sized[use.deployment] * use.busy_replicas / (use.busy_replicas + sum(others))
    return query.slos.cost.is_met_by(cost_usd_per_h)


def _allowance(estimates: PlanEstimates, plan: c.Plan, candidate: PlanCandidate) -> float:
    """Return the factor on the latency for few items of the candidate's promise on the deployments as sized.

    It is larger than in isolation: the less of the latency is waits, the more of it is few measured service times.
    """
    served = [estimates.estimate_of(item.query, item.chosen.plan) for item in plan.matching.assignments]
    replicas = {sized.deployment: sized.replicas for sized in plan.matching.deployments}
    latency_s = estimates.reestimate(candidate, merge_loads([*served, candidate], replicas)).estimate.latency_s
    return latency_s.upper / latency_s.value


def _keeps(
    specification: c.Specification,
    profiles: Mapping[str, PipelineProfile],
    plan: c.Plan,
    query: c.Query,
    candidate: PlanCandidate,
    estimates: PlanEstimates,
) -> tuple[bool, bool]:
    """Return whether all queries keep their latency SLOs in a simulation, and whether also with the allowance."""
    added = Assignment(query.name, candidate, reason="simulated")
    together = replace(plan.matching, assignments=(*plan.matching.assignments, added))
    duration_s = _REQUESTS / query.rate_per_s
    report = simulate(
        simulation_inputs(specification, profiles, together),
        {sized.deployment: sized.replicas for sized in plan.matching.deployments},
        Network(specification.required_infrastructure),
        duration_s=duration_s,
        warm_up_s=duration_s / 10,
    )
    latency = query.slos.latency
    kept = all(
        outcome.slos.latency is None or outcome.slos.latency.is_met_by(outcome.at_percentile_s.upper)
        for outcome in report.queries
    )
    if latency is None or not kept:
        return kept, kept
    upper_s = next(outcome for outcome in report.queries if outcome.query == query.name).at_percentile_s.upper
    return True, latency.is_met_by(upper_s * _allowance(estimates, plan, candidate))
