"""Prediction for a plan under a load, and the matching of one query that an engine runs."""

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

_RARE = 1e-6
"""Share of a plan's rate at which requests never queue."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for one plan under one load."""

    matching: Matching
    """Matching of the plan alone, with its estimate."""
    planned: PlannedQuery
    utilization: float
    """Utilization of the busiest deployment or link."""

    @property
    def estimate(self) -> Estimate:
        """Estimate of the formulas, or of a simulation where formulas have caveats."""
        return self.matching.assignments[0].chosen.estimate


def prediction(real: RealPlan, query: Query, profile: ConfigurationProfile) -> Prediction | None:
    """Predict as planning does: by formulas, and by simulation where these have caveats; None if overloaded.

    Args:
        real: plan.
        query: query with the load.
        profile: profile of the configuration.
    """
    estimator = Estimator(query, real.pipeline, profile, real.network)
    try:
        candidate = estimator.candidate(real.plan)
        conditions = merge_loads([candidate], real.replicas)
    except PlanningError:
        return None
    matching = _matching(real, estimator.candidate(real.plan, conditions), conditions)
    planned = planned_query(real, query, profile)
    utilizations = [load.utilization for load in conditions.deployments.values()]
    utilization = max(*utilizations, *(traffic.offered_load for traffic in conditions.links.values()))
    return Prediction(check_by_simulation(matching, [planned], real.network).matching, planned, utilization)


def without_queueing_s(real: RealPlan, query: Query, profile: ConfigurationProfile) -> float:
    """Return the percentile of service and transfers alone, without queueing."""
    rare = query.model_copy(update={"rate_per_s": query.rate_per_s * _RARE})
    estimator = Estimator(rare, real.pipeline, profile, real.network)
    conditions = merge_loads([estimator.candidate(real.plan)], real.replicas)
    return estimator.candidate(real.plan, conditions).estimate.latency_s.value


def service_s(real: RealPlan, profile: ConfigurationProfile) -> float:
    """Return the mean service time of all operators together, unbatched, on the hardware of the plan."""
    pools = dict(real.plan.placement)
    return sum(
        float(operator.service_s.mean()) / real.infrastructure.pool(pools[name]).hardware.speed
        for name, operator in profile.operators.items()
    )


def planned_query(real: RealPlan, query: Query, profile: ConfigurationProfile) -> PlannedQuery:
    """Return the query as input of a simulation."""
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
