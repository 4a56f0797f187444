"""First come, first served: individually planned queries, admitted while capacity lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.baselines.admission import FreeCapacity
from benchmarks.baselines.by_hand import FixedChoice, as_matching, fixed_plan
from benchmarks.baselines.vulcan_plans import vulcan_plan
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate
from circinus.matching import Matching, Rejection
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, QueryPlan, Specification

PlanOf = Callable[[Query], QueryPlan | None]
"""Plan of a query; None: it has none."""


def fixed(specification: Specification, profiles: Mapping[str, PipelineProfile], choice: FixedChoice) -> PlanOf:
    """Return the planner of a fixed choice."""
    assert specification.infrastructure is not None, "plans need an infrastructure"
    network = Network(specification.infrastructure)
    chosen = {name: choice.configuration(specification.pipelines[name], profile) for name, profile in profiles.items()}

    def plan_of(query: Query) -> QueryPlan:
        pipeline = specification.pipelines[query.pipeline]
        return fixed_plan(query, pipeline, chosen[query.pipeline], network, choice.nearest_first)

    return plan_of


def vulcan_style(specification: Specification, profiles: Mapping[str, PipelineProfile]) -> PlanOf:
    """Return the planner of the plan with the highest utility."""
    assert specification.infrastructure is not None, "plans need an infrastructure"
    network = Network(specification.infrastructure)
    return lambda query: vulcan_plan(query, specification.pipelines[query.pipeline], profiles[query.pipeline], network)


def first_come(specification: Specification, profiles: Mapping[str, PipelineProfile], plan_of: PlanOf) -> Matching:
    """Admit queries in the order of the specification.

    A query is admitted if the whole replicas that its deployments need at the target utilization fit on nodes, and
    links stay below their usable share; running replicas never move. So nothing is overloaded, which admission without
    a planner would not ensure. SLOs are checked only by `plan_of`.

    Args:
        specification: with an infrastructure.
        profiles: pipeline -> its profile.
        plan_of: plans each query in isolation.
    """
    infrastructure = specification.infrastructure
    assert infrastructure is not None, "plans need an infrastructure"
    network, capacity = Network(infrastructure), FreeCapacity(infrastructure)
    admitted: list[tuple[Query, PlanCandidate, Estimator]] = []
    rejections = []
    for query in specification.queries:
        plan = plan_of(query)
        if plan is None:
            rejections.append(Rejection(query.name, "no plan meets its SLOs", ("objectives",), None))
            continue
        configurations = profiles[query.pipeline].configurations
        profile = next(
            configuration for configuration in configurations if configuration.configuration == plan.configuration
        )
        estimator = Estimator(query, specification.pipelines[query.pipeline], profile, network)
        try:
            candidate = estimator.candidate(plan)
        except PlanningError as error:  # the traffic exceeds a link
            rejections.append(Rejection(query.name, str(error), ("links",), None))
            continue
        if capacity.admit(candidate):
            admitted.append((query, candidate, estimator))
        else:
            rejections.append(Rejection(query.name, "not enough capacity left", ("resources",), None))
    total_weight = sum(query.weight for query in specification.queries)
    return as_matching(admitted, rejections, capacity.demands, capacity.nodes, total_weight)
