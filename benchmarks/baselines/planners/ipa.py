"""IPA/Loki-style: an integer program over model variants, replicas, CPUs and batch sizes in one tier.

After Ghafouri et al., "IPA: Inference Pipeline Adaptation to Achieve High Accuracy and Cost-Efficiency" (2023, arXiv
2308.12871), and Ahmad et al., "Loki: A System for Serving ML Inference Pipelines with Hardware and Accuracy Scaling"
(HPDC 2024), as we understand them: throughput of whole replicas is at least the demand; mean service and transfer
times, with the time to fill a batch, are within a share of the latency limit that leaves room for waits. Loki takes one
half of the limit; 0.6 served 8-14 % more in two small contests, and with 0.7 a fifth of the plans were late in one.

Simplified, mostly in their favour: one program covers all queries; accuracies of whole pipelines are measured instead
of composed; accuracy is a limit, not maximized; replicas are utilized up to 70 % instead of wholly. With several tiers,
each query has all operators in one of them. Requests of a query are not divided among variants. Replicas with more CPUs
are further variants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from benchmarks.baselines.by_hand import UTILIZATION_TARGET
from benchmarks.baselines.planners.next_best import Choices, NextBest
from benchmarks.baselines.planners.query_plans import (
    is_accurate,
    kind_of,
    limit_s,
    limit_usd_per_h,
    near_placements,
)
from benchmarks.baselines.vulcan_plans import mean_latency_s, plan_on, useful_sizes
from benchmarks.evaluation.contest import Contest, Market
from circinus.errors import PlanningError
from circinus.estimation import Estimator, PlanCandidate, ReplicaDemand
from circinus.matching.solvers.highs import LpModel, solve_milp
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Deployment, DirectedLink, Query, SloKind

_SHARE_FOR_SERVICE = 0.6
"""Share of the latency limit for everything but waits."""
_TIME_LIMIT_S = 15.0
_COST_COUNTS = 0.01
"""Weight of a dollar per hour, so small that cost decides between equal weights only."""
_GAP = 5e-4


@dataclass(frozen=True)
class _Class:
    """Queries that differ in their names only, and their variants."""

    weight: float
    names: tuple[str, ...]
    plans: Sequence[PlanCandidate]


def _prepare(contest: Contest, market: Market, seed: int) -> tuple[Mapping[str, PipelineProfile], Choices]:
    profiles = {name: market.complete(name) for name in contest.specification.pipelines}
    chosen = _solved(contest, _classes(contest, profiles), seed)
    return profiles, {query.name: chosen.get(query.name, []) for query in contest.specification.queries}


def _classes(contest: Contest, profiles: Mapping[str, PipelineProfile]) -> list[_Class]:
    names, of_kind = defaultdict[tuple[Query, float], list[str]](list), dict[Query, list[PlanCandidate]]()
    for query in contest.specification.queries:
        kind = kind_of(query)
        names[kind, query.weight].append(query.name)
        if kind not in of_kind:
            of_kind[kind] = [
                plan
                for measured in profiles[query.pipeline].configurations
                if is_accurate(kind, measured)
                for plan in _variants(contest, kind, measured)
            ]
    return [_Class(weight, tuple(own), of_kind[kind]) for (kind, weight), own in names.items()]


def _variants(contest: Contest, query: Query, measured: ConfigurationProfile) -> Iterator[PlanCandidate]:
    """Yield the plans of a configuration, with replicas and batches of every size, that keep the limits."""
    pipeline = contest.specification.pipelines[query.pipeline]
    batch_sizes = sorted({size for operator in pipeline.operators for size in operator.batch_sizes})
    estimator = Estimator(query, pipeline, measured, contest.network)
    sized = (
        (placement, batch_size, sizes)
        for placement in near_placements(query, pipeline, contest.network)
        if len({pool.tier for pool in placement.values()}) == 1
        for batch_size, sizes in product(batch_sizes, useful_sizes(pipeline, measured, placement))
    )
    for placement, batch_size, sizes in sized:
        if any(o.peak_memory_bytes > placement[name].memory_bytes for name, o in measured.operators.items()):
            continue
        latency_s = mean_latency_s(query, pipeline, measured, placement, contest.network, sizes=sizes)
        if latency_s > _SHARE_FOR_SERVICE * limit_s(query.slos):
            continue
        try:
            plan = estimator.candidate(plan_on(pipeline, measured, placement, batch_size, sizes=sizes))
        except PlanningError:  # the traffic exceeds a link
            continue
        for stage in plan.estimate.stages:
            profile, hardware = measured.operators[stage.operator], placement[stage.operator].hardware
            ratio = profile.batch_ratio_on(hardware).get((sizes[stage.operator], 1), 1.0)
            unbatched_s = ratio * profile.service_s.mean() / hardware.speed
            fill_s = (plan.plan.allocation_of(stage.operator).batch_size - 1) / query.rate_per_s
            latency_s += stage.service_s - float(unbatched_s) + fill_s
        in_time = latency_s <= _SHARE_FOR_SERVICE * limit_s(query.slos)
        if in_time and plan.estimate.cost_usd_per_h.lower <= limit_usd_per_h(query.slos):
            yield plan


def _solved(contest: Contest, classes: Sequence[_Class], seed: int) -> dict[str, list[PlanCandidate]]:
    """Return the plan of each served query, for the largest weight less a little for the cost."""
    infrastructure = contest.specification.required_infrastructure
    pairs = [(number, plan) for number, own in enumerate(classes) for plan in own.plans]
    demands: dict[Deployment, ReplicaDemand] = {u.deployment: u.demand for _, plan in pairs for u in plan.deployments}
    column_of = {deployment: len(pairs) + position for position, deployment in enumerate(demands)}
    pools = {pool.name: pool for pool in infrastructure.pools}
    of_class, of_deployment = defaultdict[int, list[int]](list), defaultdict[Deployment, list[tuple[int, float]]](list)
    of_link = defaultdict[DirectedLink, list[tuple[int, float]]](list)
    objective = np.zeros(len(pairs) + len(demands))
    for column, (number, plan) in enumerate(pairs):
        of_class[number].append(column)
        objective[column] = _COST_COUNTS * plan.transfer_cost_usd_per_h - classes[number].weight
        for use in plan.deployments:
            of_deployment[use.deployment].append((column, use.busy_replicas))
        for crossing in plan.links:
            of_link[crossing.link].append((column, crossing.bytes_per_s / crossing.link.bandwidth_bytes_per_s))
    most = [pools[d.pool].cpus * pools[d.pool].nodes / demands[d].cpus for d in demands]
    programme = LpModel(upper=[float(len(classes[number].names)) for number, _ in pairs] + most)
    for number, columns in of_class.items():
        programme.add_row(np.array(columns), np.ones(len(columns)), -np.inf, float(len(classes[number].names)))
    for deployment, busy in of_deployment.items():
        entries = np.array([*busy, (column_of[deployment], -UTILIZATION_TARGET)])
        programme.add_row(entries[:, 0].astype(np.int64), entries[:, 1], -np.inf, 0.0)
        objective[column_of[deployment]] = _COST_COUNTS * demands[deployment].cost_usd_per_h
    for pool in infrastructure.pools:
        own = [deployment for deployment in demands if deployment.pool == pool.name]
        for resource, amount in enumerate(pool.amounts if own else ()):
            needed = np.array([demands[deployment].amounts[resource] for deployment in own])
            replicas = np.array([column_of[d] for d in own])
            programme.add_row(replicas, needed, -np.inf, amount * pool.nodes)
            if (large := needed > amount / 2).any():  # a node has room for one of these
                programme.add_row(replicas[large], np.ones(large.sum()), -np.inf, float(pool.nodes))
    for traffic in of_link.values():
        entries = np.array(traffic)
        programme.add_row(entries[:, 0].astype(np.int64), entries[:, 1], -np.inf, infrastructure.usable_link_share)
    if not pairs:
        return {}
    start = np.zeros(len(objective))
    values, _ = solve_milp(programme, objective, start, time_limit_s=_TIME_LIMIT_S, gap=_GAP, seed=seed)
    counts = np.rint(start if values is None else values).astype(int).tolist()
    waiting = [list(own.names) for own in classes]
    plans = {
        waiting[number].pop(0): [plan]
        for (number, plan), count in zip(pairs, counts, strict=False)
        for _ in range(count)
    }
    return {name: [replace(own[0], query=name)] for name, own in plans.items()}


IPA = NextBest("IPA-style", _prepare, ("cloud",), frozenset({SloKind.COST}))
