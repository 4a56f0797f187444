"""First come, first served: queries that were each planned by themselves, let in as long as there is room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from benchmarks.baselines.by_hand import UTILIZATION_TARGET, FixedChoice, Nodes, as_matching, fixed_plan
from benchmarks.baselines.vulcan_plans import vulcan_plan
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, ReplicaDemand, replicas_for
from circinus.matching import Matching, Rejection
from circinus.planning.settings import DEFAULT_SETTINGS
from circinus.profiling import PipelineProfile
from circinus.specification import Deployment, DirectedLink, Network, Query, QueryPlan, Specification

PlanOf = Callable[[Query], QueryPlan | None]
"""The one plan of a query; None: it has none."""


def fixed(specification: Specification, profiles: Mapping[str, PipelineProfile], choice: FixedChoice) -> PlanOf:
    """The same for everybody."""
    assert specification.infrastructure is not None, "plans need machines"
    network = Network(specification.infrastructure)
    chosen = {name: choice.configuration(specification.pipelines[name], found) for name, found in profiles.items()}

    def plan_of(query: Query) -> QueryPlan:
        pipeline = specification.pipelines[query.pipeline]
        return fixed_plan(query, pipeline, chosen[query.pipeline], network, choice.nearest_first)

    return plan_of


def vulcan_style(specification: Specification, profiles: Mapping[str, PipelineProfile]) -> PlanOf:
    """Each the plan of its greatest utility."""
    assert specification.infrastructure is not None, "plans need machines"
    network = Network(specification.infrastructure)
    return lambda query: vulcan_plan(query, specification.pipelines[query.pipeline], profiles[query.pipeline], network)


def first_come(specification: Specification, profiles: Mapping[str, PipelineProfile], plan_of: PlanOf) -> Matching:
    """Let queries in, in the order of the specification.

    A query is let in when as many whole replicas as its deployments need for all their requests, at the usual
    utilisation, find room on nodes, and links are no fuller than plans may make them; what is there is never moved. So
    nothing is overloaded, which is more than admission without a planner would see to. Whether objectives will hold is
    nobody's question but `plan_of`'s.

    Args:
        specification: with an infrastructure.
        profiles: pipeline -> what was measured of it.
        plan_of: how each query would be planned alone.
    """
    infrastructure = specification.infrastructure
    assert infrastructure is not None, "plans need machines"
    network, room = Network(infrastructure), _Room(Nodes(infrastructure))
    admitted: list[tuple[Query, PlanCandidate, Estimator]] = []
    rejections = []
    for query in specification.queries:
        plan = plan_of(query)
        if plan is None:
            rejections.append(Rejection(query.name, "no plan keeps its objectives", ("objectives",), None))
            continue
        known = profiles[query.pipeline].configurations
        profile = next(found for found in known if found.configuration == plan.configuration)
        estimator = Estimator(query, specification.pipelines[query.pipeline], profile, network)
        try:
            candidate = estimator.candidate(plan)
        except PlanningError as error:  # more traffic than a link can take
            rejections.append(Rejection(query.name, str(error), ("links",), None))
            continue
        if room.let_in(candidate):
            admitted.append((query, candidate, estimator))
        else:
            rejections.append(Rejection(query.name, "no room left", ("resources",), None))
    total_weight = sum(query.weight for query in specification.queries)
    return as_matching(admitted, rejections, room.demands, room.nodes, total_weight)


class _Room:
    """What is left of nodes and links."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.demands: dict[Deployment, ReplicaDemand] = {}
        self._busy: defaultdict[Deployment, float] = defaultdict(float)
        self._sent_per_s: defaultdict[DirectedLink, float] = defaultdict(float)

    def let_in(self, candidate: PlanCandidate) -> bool:
        """Make room for one more, or change nothing."""
        share = DEFAULT_SETTINGS.usable_link_share
        for crossing in candidate.links:
            link = crossing.link
            if self._sent_per_s[link] + crossing.bytes_per_s > share * link.bandwidth_bytes_per_s:
                return False
        missing: dict[Deployment, int] = {}
        demands: dict[Deployment, ReplicaDemand] = {}
        for use in candidate.deployments:
            wanted = replicas_for(self._busy[use.deployment] + use.busy_replicas, UTILIZATION_TARGET)
            missing[use.deployment] = max(0, wanted - len(self.nodes.placed.get(use.deployment, ())))
            demands[use.deployment] = use.demand
        if not self.nodes.place_all(demands, missing):
            return False
        self.demands |= demands
        for use in candidate.deployments:
            self._busy[use.deployment] += use.busy_replicas
        for crossing in candidate.links:
            self._sent_per_s[crossing.link] += crossing.bytes_per_s
        return True
