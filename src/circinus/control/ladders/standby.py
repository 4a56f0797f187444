"""Standby replicas for bursts: deployments of the bottom rungs, as far as pools have headroom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate, ReplicaDemand
from circinus.estimation.merged_load import replicas_for
from circinus.matching import Assignment, Matching, SizedDeployment
from circinus.matching.startup_times import add_startup_times
from circinus.profiling import PipelineProfile
from circinus.specification import Deployment, Infrastructure

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class StandbyReplicas:
    """Standby replicas of a matching."""

    deployments: tuple[SizedDeployment, ...]
    """Deployments of the matching enlarged by standby replicas, and additional ones."""
    extra: Mapping[Deployment, int]
    """Number of standby replicas by deployment."""
    queries_without_room: tuple[str, ...]
    """Queries whose bottom rung does not fit into the standby pools."""
    cost_usd_per_h: float
    """Cost of the standby replicas."""


@dataclass(frozen=True, eq=False)
class _Allocation:
    """Allocation of bottom rungs so far."""

    busy: Mapping[Deployment, float]
    """Busy replicas during a burst, by deployment."""
    extra: Mapping[Deployment, tuple[int, ...]]
    """Nodes of the standby replicas, by deployment."""
    free: Mapping[str, FloatArray]
    """Free resources by pool, (nodes, resources)."""


def plan_standby(
    matching: Matching,
    infrastructure: Infrastructure,
    peak: float,
    profiles: Mapping[str, PipelineProfile] | None = None,
    pools: Collection[str] | None = None,
    running: Mapping[Deployment, int] | None = None,
) -> StandbyReplicas:
    """Reserve replicas so that each served query can take a burst of `peak` times its rate on its ladder's bottom rung.

    The bottom rung needs the least resources of all plans that meet the query's SLOs. Queries with the cheapest bottom
    rungs come first, so that as many as possible are covered; a bottom rung that does not fit entirely gets nothing.
    Nodes are filled up to the headroom of their pools, and replicas are as utilized in the burst as planned. Queries
    that stay on a deployment to which others step down count at their rate.

    Args:
        matching: matching with ladders.
        infrastructure: pools.
        peak: burst factor, at least 1.
        profiles: pipeline -> profile, for start-up times and speeds of standby-only replicas.
        pools: standby pools; None for all. The bottom of a ladder is then its lowest rung in these pools.
        running: running replicas. A bottom rung that does not fit entirely keeps as many of them as still fit, because
            queries may be on it and would be worse off on any other rung.
    """
    sized = {entry.deployment: entry for entry in matching.deployments}
    demands = {entry.deployment: entry.demand for entry in matching.deployments}
    allocation = _Allocation(
        {d: entry.utilization * entry.replicas for d, entry in sized.items()},
        {},
        _free_resources(matching, infrastructure),
    )
    lower_rungs = {a.query: _lower_rungs(a) for a in matching.assignments}
    bottoms = [(query, eligible[-1]) for query, rungs in lower_rungs.items() if (eligible := _in_pools(rungs, pools))]
    unserved = [query for query, rungs in lower_rungs.items() if rungs and not _in_pools(rungs, pools)]
    for query, candidate in sorted(bottoms, key=lambda bottom: _busy_cost(bottom[1])):
        demands |= {use.deployment: use.demand for use in candidate.deployments}
        entry = _with_bottom(allocation, candidate, peak, sized)
        if entry is None:
            unserved.append(query)
            entry = None if running is None else _with_bottom(allocation, candidate, peak, sized, running)
        allocation = entry or allocation
    deployments = []
    for deployment in dict.fromkeys((*sized, *allocation.extra)):
        before = sized.get(deployment)
        nodes = (*(before.nodes if before else ()), *allocation.extra.get(deployment, ()))
        base = before or SizedDeployment(deployment, demands[deployment], (), 0.0)
        busy = base.utilization * base.replicas / len(nodes)
        deployments.append(replace(base, nodes=tuple(sorted(nodes)), utilization=busy))
    extra = {deployment: len(nodes) for deployment, nodes in allocation.extra.items() if nodes}
    cost = sum(
        count * demands[deployment].cost_usd_per_h
        for deployment, count in extra.items()
        if not infrastructure.pool(deployment.pool).bills_nodes  # nodes that run are paid already
    )
    with_startup = add_startup_times(deployments, profiles, infrastructure) if profiles else tuple(deployments)
    return StandbyReplicas(with_startup, extra, tuple(unserved), cost)


def _with_bottom(
    allocation: _Allocation,
    candidate: PlanCandidate,
    peak: float,
    sized: Mapping[Deployment, SizedDeployment],
    max_replicas: Mapping[Deployment, int] | None = None,
) -> _Allocation | None:
    """Return the allocation with one more bottom rung, of at most `max_replicas`; None if it does not fit."""
    busy, extra = dict(allocation.busy), dict(allocation.extra)
    free = {pool: amounts.copy() for pool, amounts in allocation.free.items()}
    for use in candidate.deployments:
        deployment = use.deployment
        busy[deployment] = busy.get(deployment, 0.0) + peak * use.busy_replicas
        present = sized[deployment].replicas if deployment in sized else 0
        present += len(extra.get(deployment, ()))
        required = replicas_for(busy[deployment], deployment.allocation.utilization_target) + use.demand.spare_replicas
        if max_replicas is not None:
            required = min(required, max_replicas.get(deployment, 0))
            if max(present, required) == 0:
                return None
        missing = required - present
        for _ in range(missing):
            taken: tuple[int, ...] = ()
            if use.demand.spare_replicas:
                taken = (*(sized[deployment].nodes if deployment in sized else ()), *extra.get(deployment, ()))
            node = _first_fitting_node(free[deployment.pool], use.demand, taken)
            if node is None:
                return None
            free[deployment.pool][node] -= use.demand.amounts
            extra[deployment] = (*extra.get(deployment, ()), node)
    return _Allocation(busy, extra, free)


def _lower_rungs(assignment: Assignment) -> list[PlanCandidate]:
    """Return the plans of the rungs below a query's selected one, from the top down."""
    ladder = assignment.ladder
    return [] if ladder is None else [rung.candidate for rung in ladder.rungs[ladder.chosen + 1 :]]


def _in_pools(candidates: Sequence[PlanCandidate], pools: Collection[str] | None) -> list[PlanCandidate]:
    return [c for c in candidates if pools is None or all(use.deployment.pool in pools for use in c.deployments)]


def _busy_cost(candidate: PlanCandidate) -> float:
    """Return the cost of the resources that a plan keeps busy."""
    return sum(use.busy_replicas * use.demand.cost_usd_per_h for use in candidate.deployments)


def _free_resources(matching: Matching, infrastructure: Infrastructure) -> dict[str, FloatArray]:
    """Return (nodes, resources) free resources of nodes that run by pool, without the pool's headroom."""
    free = {
        pool.name: np.tile(np.multiply(pool.amounts, 1.0 - pool.headroom), (pool.nodes, 1))
        for pool in infrastructure.pools
    }
    used: dict[str, set[int]] = {}
    for sized in matching.deployments:
        used.setdefault(sized.deployment.pool, set()).update(sized.nodes)
        for node in sized.nodes:
            free[sized.deployment.pool][node] -= sized.demand.amounts
    for pool in infrastructure.pools:
        if pool.is_elastic:
            runs = used.get(pool.name, set())
            idle = [node for node in range(pool.nodes) if node not in runs]
            free[pool.name][idle[max(matching.nodes.get(pool.name, 0) - len(runs), 0) :]] = 0.0
    return free


def _first_fitting_node(free: FloatArray, demand: ReplicaDemand, taken: tuple[int, ...]) -> int | None:
    fitting = np.flatnonzero((free + _TOLERANCE * (1 + np.abs(free)) >= demand.amounts).all(axis=1))
    fitting = np.setdiff1d(fitting, taken)
    return int(fitting[0]) if len(fitting) else None
