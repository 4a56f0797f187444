"""First come, first served: individually planned queries, admitted while capacity lasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from benchmarks.baselines.by_hand import UTILIZATION_TARGET, FixedChoice, Nodes, as_matching, fixed_plan
from benchmarks.baselines.vulcan_plans import vulcan_plan
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, ReplicaDemand, replicas_for
from circinus.matching import Matching, Rejection
from circinus.profiling import PipelineProfile
from circinus.specification import Deployment, DirectedLink, Network, Query, QueryPlan, Specification

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
    network, capacity = Network(infrastructure), _FreeCapacity(Nodes(infrastructure), infrastructure.usable_link_share)
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


class _FreeCapacity:
    """Remaining capacity of nodes and links."""

    def __init__(self, nodes: Nodes, usable_link_share: float) -> None:
        self.nodes, self._link_share = nodes, usable_link_share
        self.demands: dict[Deployment, ReplicaDemand] = {}
        self._busy: defaultdict[Deployment, float] = defaultdict(float)
        self._sent_per_s: defaultdict[DirectedLink, float] = defaultdict(float)

    def admit(self, candidate: PlanCandidate) -> bool:
        """Admit a query if it fits; return whether it does."""
        for crossing in candidate.links:
            link = crossing.link
            if self._sent_per_s[link] + crossing.bytes_per_s > self._link_share * link.bandwidth_bytes_per_s:
                return False
        missing: dict[Deployment, int] = {}
        demands: dict[Deployment, ReplicaDemand] = {}
        for use in candidate.deployments:
            replicas = replicas_for(self._busy[use.deployment] + use.busy_replicas, UTILIZATION_TARGET)
            missing[use.deployment] = max(0, replicas - len(self.nodes.placed.get(use.deployment, ())))
            demands[use.deployment] = use.demand
        if not self.nodes.place_all(demands, missing):
            return False
        self.demands |= demands
        for use in candidate.deployments:
            self._busy[use.deployment] += use.busy_replicas
        for crossing in candidate.links:
            self._sent_per_s[crossing.link] += crossing.bytes_per_s
        return True
