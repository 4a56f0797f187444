"""Replicas that wait for a burst: of the plans at the bottom of ladders, as far as the pools have room."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate, ReplicaDemand
from circinus.estimation.merged_load import replicas_for
from circinus.matching import Assignment, Matching, SizedDeployment
from circinus.matching.plan_estimates import add_startup_times
from circinus.profiling import PipelineProfile
from circinus.specification import Deployment, Infrastructure, Pool

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class StandbyReplicas:
    """What is kept ready beside a matching."""

    deployments: tuple[SizedDeployment, ...]
    """Those of the matching and those that are ready, as large as both together."""
    extra: Mapping[Deployment, int]
    """Replicas beyond those of the matching."""
    queries_without_room: tuple[str, ...]
    """Queries for whose rung there is no room where replicas may stand by."""
    cost_usd_per_h: float
    """Of the extra replicas."""


@dataclass(frozen=True, eq=False)
class _Taken:
    """What bottoms of ladders take so far."""

    busy: Mapping[Deployment, float]
    """Replicas that they would keep busy in a burst."""
    extra: Mapping[Deployment, tuple[int, ...]]
    """Nodes of the replicas beyond those of the matching."""
    free: Mapping[str, FloatArray]
    """Pool -> (nodes, amounts) what nobody takes."""


def plan_standby(
    matching: Matching,
    infrastructure: Infrastructure,
    peak: float,
    profiles: Mapping[str, PipelineProfile] | None = None,
    pools: Collection[str] | None = None,
    running: Mapping[Deployment, int] | None = None,
) -> StandbyReplicas:
    """Make every served query ready for a burst of `peak` times its rate at the bottom of its ladder.

    The bottom takes least of all plans that promise the query's objectives. Queries whose bottom takes least come
    first, so that as many as possible are ready; one whose bottom finds no room as a whole gets nothing. Nodes are
    filled up to the headroom of their pools; replicas are as busy in the burst as they may be by plan. Queries that
    stay on a deployment that others step down to are counted at their rate.

    Args:
        matching: with ladders.
        infrastructure: where it runs.
        peak: at least 1.
        profiles: pipeline -> what was measured of it: how soon and how fast replicas are that only stand by.
        pools: where replicas may stand by; None: in all. The bottom of a ladder is then the lowest rung that is there.
        running: replicas that run already. A bottom that finds no room as a whole keeps as many as these, where they
            still have room: a query may be on it, and would be worse off anywhere else.
    """
    sized = {found.deployment: found for found in matching.deployments}
    demands = {found.deployment: found.demand for found in matching.deployments}
    taken = _Taken(
        {d: found.utilization * found.replicas for d, found in sized.items()}, {}, _free(matching, infrastructure)
    )
    lower = {a.query: _lower(a) for a in matching.assignments}
    bottoms = [(query, can[-1]) for query, rungs in lower.items() if (can := _in_pools(rungs, pools))]
    without = [query for query, rungs in lower.items() if rungs and not _in_pools(rungs, pools)]
    for query, candidate in sorted(bottoms, key=lambda one: _asked(one[1])):
        demands |= {use.deployment: use.demand for use in candidate.deployments}
        found = _with(taken, candidate, peak, sized)
        if found is None:
            without.append(query)
            found = None if running is None else _with(taken, candidate, peak, sized, running)
        taken = found or taken
    deployments = []
    for deployment in dict.fromkeys((*sized, *taken.extra)):
        before = sized.get(deployment)
        nodes = (*(before.nodes if before else ()), *taken.extra.get(deployment, ()))
        one = before or SizedDeployment(deployment, demands[deployment], (), 0.0)
        busy = one.utilization * one.replicas / len(nodes)
        deployments.append(replace(one, nodes=tuple(sorted(nodes)), utilization=busy))
    extra = {deployment: len(nodes) for deployment, nodes in taken.extra.items() if nodes}
    cost = sum(count * demands[deployment].cost_usd_per_h for deployment, count in extra.items())
    told = add_startup_times(deployments, profiles, infrastructure) if profiles else tuple(deployments)
    return StandbyReplicas(told, extra, tuple(without), cost)


def _with(
    taken: _Taken,
    candidate: PlanCandidate,
    peak: float,
    sized: Mapping[Deployment, SizedDeployment],
    most: Mapping[Deployment, int] | None = None,
) -> _Taken | None:
    """With one more bottom, of no more than `most` replicas if that is told; None: there is no room."""
    busy, extra = dict(taken.busy), dict(taken.extra)
    free = {pool: amounts.copy() for pool, amounts in taken.free.items()}
    for use in candidate.deployments:
        deployment = use.deployment
        busy[deployment] = busy.get(deployment, 0.0) + peak * use.busy_replicas
        there = sized[deployment].replicas if deployment in sized else 0
        there += len(extra.get(deployment, ()))
        asked = replicas_for(busy[deployment], deployment.allocation.utilization_target)
        if most is not None:
            asked = min(asked, most.get(deployment, 0))
            if max(there, asked) == 0:
                return None
        missing = asked - there
        for _ in range(missing):
            node = _first_with_room(free[deployment.pool], use.demand)
            if node is None:
                return None
            free[deployment.pool][node] -= _amounts(use.demand)
            extra[deployment] = (*extra.get(deployment, ()), node)
    return _Taken(busy, extra, free)


def _lower(assignment: Assignment) -> list[PlanCandidate]:
    """Plans of the rungs below the one that a query got, from the top down."""
    ladder = assignment.ladder
    return [] if ladder is None else [rung.candidate for rung in ladder.rungs[ladder.chosen + 1 :]]


def _in_pools(candidates: Sequence[PlanCandidate], pools: Collection[str] | None) -> list[PlanCandidate]:
    return [c for c in candidates if pools is None or all(use.deployment.pool in pools for use in c.deployments)]


def _asked(candidate: PlanCandidate) -> float:
    """Cost of what a plan keeps busy."""
    return sum(use.busy_replicas * use.demand.cost_usd_per_h for use in candidate.deployments)


def _free(matching: Matching, infrastructure: Infrastructure) -> dict[str, FloatArray]:
    """Pool -> (nodes, amounts) what no replica takes of each node, headroom aside."""
    free = {pool.name: np.tile(_node(pool) * (1.0 - pool.headroom), (pool.nodes, 1)) for pool in infrastructure.pools}
    for found in matching.deployments:
        for node in found.nodes:
            free[found.deployment.pool][node] -= _amounts(found.demand)
    return free


def _node(pool: Pool) -> FloatArray:
    return np.array([pool.cpus, pool.memory_bytes, pool.gpus, pool.gpu_memory_bytes], dtype=np.float64)


def _amounts(demand: ReplicaDemand) -> FloatArray:
    return np.array([demand.cpus, demand.memory_bytes, demand.gpus, demand.gpu_memory_bytes], dtype=np.float64)


def _first_with_room(free: FloatArray, demand: ReplicaDemand) -> int | None:
    amounts = _amounts(demand)
    room = np.flatnonzero((free + _TOLERANCE * (1 + np.abs(free)) >= amounts).all(axis=1))
    return int(room[0]) if len(room) else None
