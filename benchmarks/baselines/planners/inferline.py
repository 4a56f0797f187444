"""InferLine-style: hill climbing on hardware, replicas and batch sizes against a simulator.

After Crankshaw et al., "InferLine: latency-aware provisioning and scaling for prediction serving pipelines" (SoCC
2020), as we understand it: begin with the hardware of the lowest latency, unbatched, and add replicas at the bottleneck
until the percentile of the latency holds in a simulation. Then the action that saves most is taken, as long as the
simulation of its result holds: other hardware or a larger batch for an operator, with as few replicas as hold. Models
are given: here each query has the configuration of least work among those that keep its accuracy objective, which is
known from complete measurements.

Ours, in its favour: queries are planned one after another with the capacity that is left, and share running replicas;
all that share replicas or links are simulated together and must hold. A query takes the plan of the last one of its
kind if that holds. In the end all queries are simulated; those that miss their latency or cost limits are rejected.
Of the plans in all tiers and those in the cloud alone, those that serve more count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.baselines.by_hand import as_matching
from benchmarks.baselines.planners.query_plans import (
    is_accurate,
    kind_of,
    limit_usd_per_h,
    near_placements,
)
from benchmarks.baselines.planners.simulated_cluster import Cluster, Sized
from benchmarks.baselines.vulcan_plans import Placement, mean_latency_s, plan_on
from benchmarks.evaluation.contest import Contest, Market, Planned
from circinus.estimation import Estimator, PlanCandidate
from circinus.matching import Matching, Rejection
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Pipeline, Query, QueryPlan

_PASSES = 2
"""Times that a query is tried: at first nothing runs that it could share, which may make it too dear."""


class _Climber:
    """Plans queries one after another."""

    def __init__(self, contest: Contest, seed: int) -> None:
        self._pipelines, self._network, self.cluster = (
            contest.specification.pipelines,
            contest.network,
            Cluster(contest, seed),
        )
        self._last: dict[Query, QueryPlan] = {}
        self._impossible: set[Query] = set()

    def admit(self, query: Query, measured: ConfigurationProfile) -> tuple[PlanCandidate, Estimator] | None:
        """Plan a query and let it run; None if no plan holds."""
        kind = kind_of(query)
        if kind in self._impossible:
            return None
        estimator = Estimator(query, self._pipelines[query.pipeline], measured, self._network)
        sized = self.cluster.sized(query, measured, estimator, self._last[kind]) if kind in self._last else None
        sized = sized or self._climbed(query, measured, estimator)
        if sized is None:
            self._impossible.add(kind)
            return None
        self._last[kind] = sized.candidate.plan
        self.cluster.run(query, measured, sized)
        return sized.candidate, estimator

    def forget_failures(self) -> None:
        """Try again to plan queries whose kind had no plan: replicas that started since may be shared."""
        self._impossible.clear()

    def _climbed(self, query: Query, measured: ConfigurationProfile, estimator: Estimator) -> Sized | None:
        """Begin with the lowest latency for which there is capacity, and save step by step."""
        pipeline = self._pipelines[query.pipeline]
        near = list(near_placements(query, pipeline, self._network))
        near.sort(key=lambda placement: mean_latency_s(query, pipeline, measured, placement, self._network))
        plans = (plan_on(pipeline, measured, placement) for placement in near)
        best = next(
            (s for plan in plans if (s := self.cluster.sized(query, measured, estimator, plan)) is not None), None
        )
        tried = set[QueryPlan]()
        while best is not None:
            actions = [plan for plan in self._actions(pipeline, near, best.candidate.plan) if plan not in tried]
            if not actions:
                break
            tried.update(actions)
            for plan in actions:
                best = self.cluster.sized(query, measured, estimator, plan, best.usd_per_h) or best
        return best

    @staticmethod
    def _actions(pipeline: Pipeline, near: Sequence[Placement], plan: QueryPlan) -> Iterator[QueryPlan]:
        """Yield the plans with other hardware, or a larger batch, for one operator."""
        for placement in near:
            places = tuple((operator, placement[operator].name) for operator, _ in plan.placement)
            if sum(a != b for a, b in zip(places, plan.placement, strict=True)) == 1:
                yield replace(plan, placement=places)
        for name, allocation in plan.allocations:
            larger = [size for size in pipeline.operator(name).batch_sizes if size > allocation.batch_size]
            if larger:
                batched = dict(plan.allocations) | {name: replace(allocation, batch_size=larger[0])}
                yield replace(plan, allocations=tuple(sorted(batched.items())))


_DESCRIPTION = __doc__  # in a class, `__doc__` is its own


@dataclass(frozen=True)
class InferLine:
    """InferLine-style planner."""

    name: str = "InferLine-style"
    tiers: tuple[str, ...] = ("cloud",)
    description: str = _DESCRIPTION

    def plan(self, contest: Contest, seed: int) -> Planned:
        """See `Planner`."""
        market = Market(contest, shares_prefixes=True)
        begin_s = time.perf_counter()
        profiles = {name: market.complete(name) for name in contest.specification.pipelines}
        everywhere = frozenset(pool.tier for pool in contest.specification.required_infrastructure.pools)
        matchings, first_plan_s = [], 0.0
        for tiers in dict.fromkeys((everywhere, everywhere.intersection(self.tiers) or everywhere)):
            matchings.append(_matching(contest.within(tiers), profiles, seed))
            first_plan_s = first_plan_s or time.perf_counter() - begin_s
        best = max(matchings, key=lambda matching: matching.satisfied_weight)
        return market.planned(best, first_plan_s, time.perf_counter() - begin_s)


def _matching(contest: Contest, profiles: Mapping[str, PipelineProfile], seed: int) -> Matching:
    """Plan all queries in the tiers of a contest."""
    climber = _Climber(contest, seed)
    admitted = dict[str, tuple[Query, PlanCandidate, Estimator]]()
    waiting = list(contest.specification.queries)
    for _ in range(_PASSES):
        for query in waiting:
            accurate = [m for m in profiles[query.pipeline].configurations if is_accurate(query, m)]
            least = min(accurate, key=lambda measured: measured.mean_service_s, default=None)
            running = None if least is None else climber.admit(query, least)
            if running is not None:
                admitted[query.name] = (query, *running)
        waiting = [query for query in waiting if query.name not in admitted]
        climber.forget_failures()
    rejections = [Rejection(q.name, "no plan holds with the capacity left", ("resources",), None) for q in waiting]
    return _confirmed(contest, climber.cluster, admitted, rejections)


def _confirmed(
    contest: Contest,
    cluster: Cluster,
    admitted: dict[str, tuple[Query, PlanCandidate, Estimator]],
    rejections: list[Rejection],
) -> Matching:
    """Return the matching of the queries that hold when all run together and cost what they may."""
    late = set(cluster.late())
    dropped = {name for name, (query, plan, _) in admitted.items() if cluster.key(query, plan.plan) in late}
    while True:
        rejections += [Rejection(name, "a limit does not hold", ("objectives",), None) for name in sorted(dropped)]
        kept = [own for name, own in admitted.items() if name not in {rejection.query for rejection in rejections}]
        used = {use.deployment: use.demand for _, plan, _ in kept for use in plan.deployments}
        total_weight = sum(query.weight for query in contest.specification.queries)
        matching = as_matching(kept, rejections, used, cluster.capacity.nodes, total_weight)
        limits = {query.name: limit_usd_per_h(query.slos) for query in contest.specification.queries}
        costs = {one.query: one.chosen.estimate.cost_usd_per_h.value for one in matching.assignments}
        excess = {name: cost / limits[name] for name, cost in costs.items() if cost > limits[name]}
        if not excess:
            return matching
        dropped = {max(excess, key=lambda name: (excess[name], name))}


INFERLINE = InferLine()
