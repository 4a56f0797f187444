"""Manual choice: one configuration and one tier for all queries, first come, first served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

from circinus.errors import PlanningError
from circinus.estimation import Estimator, MergedLoad, PlanCandidate, ReplicaDemand, merge_loads, replicas_for
from circinus.matching import Assignment, Matching, Rejection, SizedDeployment
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import (
    Allocation,
    Deployment,
    Infrastructure,
    Network,
    Pipeline,
    Query,
    QueryPlan,
    Specification,
)

UTILIZATION_TARGET = 0.7


@dataclass(frozen=True)
class FixedChoice:
    """A choice that is the same for every query."""

    name: str
    configuration: Callable[[Pipeline, PipelineProfile], ConfigurationProfile]
    nearest_first: bool
    """True to place operators on their nearest allowed tier, False on the farthest."""


def _most_accurate(pipeline: Pipeline, profile: PipelineProfile) -> ConfigurationProfile:
    """Return the most accurate configuration by confidence bound, as means of few items are mostly noise."""
    rising = pipeline.metric.direction == "maximize"
    return max(
        profile.configurations,
        key=lambda c: (c.accuracy.lower if rising else -c.accuracy.upper, -_busy_s(c)),
    )


def _least_work(pipeline: Pipeline, profile: PipelineProfile) -> ConfigurationProfile:
    return min(profile.configurations, key=_busy_s)


def _busy_s(configuration: ConfigurationProfile) -> float:
    return sum(float(operator.service_s.mean()) for operator in configuration.operators.values())


BEST_IN_THE_CLOUD = FixedChoice("everything best in the cloud", _most_accurate, nearest_first=False)
CHEAPEST_ON_THE_DEVICE = FixedChoice("everything cheapest on the device", _least_work, nearest_first=True)


def fixed_matching(
    specification: Specification, profiles: Mapping[str, PipelineProfile], choice: FixedChoice
) -> Matching:
    """Deploy `choice` for each query that fits, in the order of the specification, and size the deployments.

    A query fits if one replica of each of its deployments does. Replicas are then added where utilization is highest,
    until all meet the target or the pool is full. SLOs are not checked.
    """
    assert specification.infrastructure is not None
    network = Network(specification.infrastructure)
    nodes = Nodes(specification.infrastructure)
    admitted: list[tuple[Query, PlanCandidate, Estimator]] = []
    rejections = []
    demands: dict[Deployment, ReplicaDemand] = {}
    for query in specification.queries:
        pipeline = specification.pipelines[query.pipeline]
        profile = choice.configuration(pipeline, profiles[query.pipeline])
        plan = fixed_plan(query, pipeline, profile, network, choice.nearest_first)
        estimator = Estimator(query, pipeline, profile, network)
        try:
            candidate = estimator.candidate(plan)
        except PlanningError as error:  # the traffic exceeds a link
            rejections.append(Rejection(query.name, str(error), ("links",), None))
            continue
        new = {use.deployment: use.demand for use in candidate.deployments if use.deployment not in demands}
        if nodes.place_all(new):
            demands |= new
            admitted.append((query, candidate, estimator))
        else:
            rejections.append(Rejection(query.name, "not enough capacity left", ("resources",), None))
    _fill_up([candidate for _, candidate, _ in admitted], demands, nodes)
    return as_matching(admitted, rejections, demands, nodes, sum(query.weight for query in specification.queries))


def fixed_plan(
    query: Query, pipeline: Pipeline, profile: ConfigurationProfile, network: Network, nearest: bool
) -> QueryPlan:
    """Return a plan with each operator on its nearest, or farthest, allowed tier."""
    infrastructure = network.infrastructure
    pools = sorted(network.pools_for(query.source), key=lambda pool: infrastructure.tiers.index(pool.tier))
    placement, allocations = [], []
    for operator in sorted(pipeline.operators, key=lambda operator: operator.name):
        allowed = [pool for pool in pools if operator.allowed_tiers is None or pool.tier in operator.allowed_tiers]
        placement.append((operator.name, (allowed[0] if nearest else allowed[-1]).name))
        allocations.append((operator.name, Allocation(min(operator.cpus), 1, UTILIZATION_TARGET)))
    return QueryPlan(pipeline.name, profile.configuration, tuple(placement), tuple(allocations))


class Nodes:
    """First-fit packing of whole replicas on nodes."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        self._free = {
            pool.name: [[pool.cpus, pool.memory_bytes, pool.gpus, pool.gpu_memory_bytes] for _ in range(pool.nodes)]
            for pool in infrastructure.pools
        }
        self.placed: dict[Deployment, list[int]] = {}

    def copied(self) -> Nodes:
        """Return a copy with the same replicas."""
        other = copy(self)
        other._free = {pool: [list(node) for node in nodes] for pool, nodes in self._free.items()}
        other.placed = {deployment: list(nodes) for deployment, nodes in self.placed.items()}
        return other

    def place(self, deployment: Deployment, demand: ReplicaDemand) -> bool:
        """Place a replica on the first node with enough capacity; return whether one has it."""
        amounts = (demand.cpus, demand.memory_bytes, demand.gpus, demand.gpu_memory_bytes)
        for index, free in enumerate(self._free[deployment.pool]):
            if all(amount <= free_amount + 1e-9 for amount, free_amount in zip(amounts, free, strict=True)):
                for resource, amount in enumerate(amounts):
                    free[resource] -= amount
                self.placed.setdefault(deployment, []).append(index)
                return True
        return False

    def room(self, pool: str, demand: ReplicaDemand) -> int:
        """Return the number of replicas that still fit into a pool."""
        amounts = (demand.cpus, demand.memory_bytes, demand.gpus, demand.gpu_memory_bytes)
        return sum(
            min(int(left / amount + 1e-9) for amount, left in zip(amounts, free, strict=True) if amount > 0)
            for free in self._free[pool]
        )

    def place_all(
        self, demands: Mapping[Deployment, ReplicaDemand], replicas: Mapping[Deployment, int] | None = None
    ) -> bool:
        """Place replicas of each deployment, by default one, or none at all; return whether all fit."""
        before = self.copied()
        if all(
            self.place(deployment, demand)
            for deployment, demand in demands.items()
            for _ in range(1 if replicas is None else replicas[deployment])
        ):
            return True
        self._free, self.placed = before._free, before.placed
        return False


def _fill_up(candidates: Sequence[PlanCandidate], demands: Mapping[Deployment, ReplicaDemand], nodes: Nodes) -> None:
    busy: dict[Deployment, float] = {}
    for candidate in candidates:
        for use in candidate.deployments:
            busy[use.deployment] = busy.get(use.deployment, 0.0) + use.busy_replicas
    short = {d for d in demands if len(nodes.placed[d]) < replicas_for(busy[d], UTILIZATION_TARGET)}
    while short:
        deployment = max(short, key=lambda d: (busy[d] / len(nodes.placed[d]), d.name))
        placed = nodes.place(deployment, demands[deployment])
        if not placed or len(nodes.placed[deployment]) >= replicas_for(busy[deployment], UTILIZATION_TARGET):
            short.discard(deployment)


class PlanEstimator(Protocol):
    """Estimator of the plan of a query."""

    def candidate(self, plan: QueryPlan, conditions: MergedLoad | None = None) -> PlanCandidate:
        """Return the estimate of a plan, under the merged load if there is one."""


def as_matching(
    admitted: Sequence[tuple[Query, PlanCandidate, PlanEstimator]],
    rejections: Sequence[Rejection],
    demands: Mapping[Deployment, ReplicaDemand],
    nodes: Nodes,
    total_weight: float,
) -> Matching:
    """Return the matching of admitted queries, with estimates under the merged load.

    Args:
        admitted: (query, its plan in isolation, its estimator).
        rejections: rejections of all other queries.
        demands: demand of one replica of each deployment in use.
        nodes: nodes of the replicas.
        total_weight: weight of all queries.
    """
    replicas = {deployment: len(nodes.placed[deployment]) for deployment in demands}
    conditions: MergedLoad | None
    try:
        conditions = merge_loads([candidate for _, candidate, _ in admitted], replicas)
    except PlanningError:  # overloaded: without a steady state, only estimates in isolation exist
        conditions = None
    assignments, busy = [], dict.fromkeys(demands, 0.0)
    for query, candidate, estimator in admitted:
        final = estimator.candidate(candidate.plan, conditions) if conditions is not None else candidate
        assignments.append(Assignment(query.name, final, "the fixed choice of all queries"))
        for use in candidate.deployments:
            busy[use.deployment] += use.busy_replicas
    sized = tuple(
        SizedDeployment(
            deployment, demand, tuple(sorted(nodes.placed[deployment])), busy[deployment] / replicas[deployment]
        )
        for deployment, demand in demands.items()
    )
    cost = sum(d.demand.cost_usd_per_h * d.replicas for d in sized)
    cost += sum(candidate.transfer_cost_usd_per_h for _, candidate, _ in admitted)
    served = sum(query.weight for query, _, _ in admitted)
    return Matching(
        assignments=tuple(assignments),
        rejections=tuple(rejections),
        deployments=sized,
        satisfied_weight=served,
        total_weight=total_weight,
        cost_usd_per_h=cost,
        weight_bound=total_weight,
        optimal=False,
        cost_bound_usd_per_h=0.0,
    )
