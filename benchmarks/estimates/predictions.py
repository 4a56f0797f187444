"""What is predicted of a plan under a load, and what an engine needs to run it: a matching of one query."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.estimates.real_plans import RealPlan
from circinus.errors import PlanningError
from circinus.estimation import Estimate, Estimator, MergedLoad, PlanCandidate, merge_loads
from circinus.matching import Matching, SizedDeployment
from circinus.matching.plan_set import Assignment
from circinus.matching.simulation_check import check_by_simulation
from circinus.profiling import ConfigurationProfile
from circinus.queueing.arrivals import arrival_process
from circinus.simulation import PlannedQuery
from circinus.specification import Query

_MOST_LINK_SHARE = 0.99
"""The load is given: nothing is left free for others."""
_HARDLY_EVER = 1e-6
"""Share of a plan's rate at which nobody waits for anybody."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one plan under one load."""

    matching: Matching
    """The plan alone, its estimate among it."""
    planned: PlannedQuery
    utilization: float
    """Of the busiest deployment or link."""

    @property
    def estimate(self) -> Estimate:
        """Formulas', or of a simulation where these have doubts."""
        return self.matching.assignments[0].chosen.estimate


def prediction(real: RealPlan, query: Query, profile: ConfigurationProfile) -> Prediction | None:
    """As planning makes it: formulas, and a simulation where these have doubts; None: something is always busy.

    Args:
        real: the plan.
        query: its load.
        profile: of its configuration.
    """
    estimator = Estimator(query, real.pipeline, profile, real.network, usable_link_share=_MOST_LINK_SHARE)
    try:
        alone = estimator.candidate(real.plan)
        conditions = merge_loads([alone], real.replicas)
    except PlanningError:
        return None
    matching = _matching(real, estimator.candidate(real.plan, conditions), conditions)
    planned = planned_query(real, query, profile)
    busy = [load.utilization for load in conditions.deployments.values()]
    utilization = max(*busy, *(traffic.offered_load for traffic in conditions.links.values()))
    return Prediction(check_by_simulation(matching, [planned], real.network).matching, planned, utilization)


def without_queueing_s(real: RealPlan, query: Query, profile: ConfigurationProfile) -> float:
    """The same percentile of service and transfers alone: what a request takes to which nobody else comes."""
    rare = query.model_copy(update={"rate_per_s": query.rate_per_s * _HARDLY_EVER})
    estimator = Estimator(rare, real.pipeline, profile, real.network)
    conditions = merge_loads([estimator.candidate(real.plan)], real.replicas)
    return estimator.candidate(real.plan, conditions).estimate.latency_s.value


def service_s(real: RealPlan, profile: ConfigurationProfile) -> float:
    """Mean seconds of all operators together, each for an item alone, on the hardware of the plan."""
    pools = dict(real.plan.placement)
    return sum(
        float(operator.service_s.mean()) / real.infrastructure.pool(pools[name]).hardware.speed
        for name, operator in profile.operators.items()
    )


def planned_query(real: RealPlan, query: Query, profile: ConfigurationProfile) -> PlannedQuery:
    """For a simulation."""
    return PlannedQuery(query, real.pipeline, real.plan, profile, arrival_process(query))


def _matching(real: RealPlan, chosen: PlanCandidate, conditions: MergedLoad) -> Matching:
    sized = tuple(
        SizedDeployment(
            deployment=use.deployment,
            demand=use.demand,
            nodes=(0,) * real.replicas[use.deployment],
            utilization=conditions.deployments[use.deployment].utilization,
        )
        for use in chosen.deployments
    )
    cost = sum(d.demand.cost_usd_per_h * d.replicas for d in sized) + chosen.transfer_cost_usd_per_h
    return Matching(
        assignments=(Assignment(chosen.query, chosen, "chosen by the benchmark"),),
        rejections=(),
        deployments=sized,
        satisfied_weight=1.0,
        total_weight=1.0,
        cost_usd_per_h=cost,
        weight_bound=1.0,
        optimal=False,
        cost_bound_usd_per_h=0.0,
    )
