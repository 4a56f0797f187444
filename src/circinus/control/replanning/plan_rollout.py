"""Stepwise transition between desired states when pools cannot hold both at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.planning.bin_packing import pack, with_spread
from circinus.serving import DesiredState
from circinus.serving.engine import DesiredDeployment
from circinus.serving.routes import Route
from circinus.specification import Deployment, Infrastructure, Pool, ReplicaKey, replica_keys

_PACKING_STEPS = 100
"""Limit of partial packings; an additional rollout step is cheaper than a long search."""

Kind = tuple[object, ...]
"""Key of interchangeable replicas: deployment, size, and version of the code."""


@dataclass(frozen=True)
class ClusterCapacity:
    """Capacity of the present nodes."""

    infrastructure: Infrastructure
    nodes: Mapping[str, int]
    """Number of live nodes per pool."""

    def fits(self, deployments: Sequence[DesiredDeployment]) -> bool:
        """Return whether all replicas fit at once; deployments in pools without live nodes need nothing."""
        return all(self._fits(pool, [d for d in deployments if d.deployment.pool == pool.name]) for pool in self._pools)

    @property
    def _pools(self) -> Iterator[Pool]:
        return (pool for pool in self.infrastructure.pools if self.nodes.get(pool.name, 0) > 0)

    def _fits(self, pool: Pool, deployments: Sequence[DesiredDeployment]) -> bool:
        demand = np.array([(d.cpus, d.memory_bytes, d.gpus) for d in deployments]).reshape(-1, 3)
        count = np.array([d.replicas for d in deployments], dtype=np.int64)
        node = np.array([[pool.cpus, pool.memory_bytes, pool.gpus]])
        is_spread = np.array([d.is_spread for d in deployments], dtype=np.bool_)
        demand, node = with_spread(demand, node, is_spread)
        return pack(demand, count, node[0], self.nodes[pool.name], _PACKING_STEPS).nodes is not None


def next_intermediate_state(
    before: DesiredState, after: DesiredState, capacity: ClusterCapacity, order: Sequence[str]
) -> DesiredState:
    """Return the next state on the way to `after`; an engine runs old and new replicas side by side during an apply.

    The result is `after` if both states fit together. Otherwise it is the first of these that helps: end what no
    request needs any more; move as many queries as fit; shrink what will be smaller until one query can move; move a
    query to single replicas; pause the least important query whose deployments will go, until there is headroom.
    Repeated calls with the state that was reached end at `after`.

    `order` has the least important query first.
    """
    if capacity.fits(_union(before, after)) or not capacity.fits(after.deployments):
        return after  # if it does not fit even in isolation, the engine decides or reports why
    served = {route.query for route in after.routes}
    tidied = _without_unused(before, [route for route in before.routes if route.query in served], after)
    if len(tidied.deployments) < len(before.deployments):
        return tidied
    smaller = before
    for smaller in _shrinking_states(before, after):
        moved = _with_moved_queries(smaller, after, capacity, order)
        if moved is not None:
            return moved if smaller is before else smaller
    thinned = _with_moved_queries(smaller, after, capacity, order, single_replicas=True)
    if thinned is not None:
        return thinned if smaller is before else smaller
    return _without_query(before, smaller, after, order)


def _union(before: DesiredState, after: DesiredState) -> list[DesiredDeployment]:
    """Return the larger of both states' replicas by kind; a deployment with another target keeps its replicas."""
    result, keys = dict[Kind, DesiredDeployment](), dict[Deployment, ReplicaKey]()
    for state in (before, after):
        keys = replica_keys((entry.deployment for entry in state.deployments), keys)
        for entry in state.deployments:
            kind = (keys[entry.deployment], *_kind_of(entry)[1:])
            existing = result.get(kind)
            if existing is None or existing.replicas < entry.replicas:
                result[kind] = entry
    return list(result.values())


def replicas_by_kind(state: DesiredState) -> dict[Kind, int]:
    """Return the number of replicas by kind."""
    return {_kind_of(entry): entry.replicas for entry in state.deployments}


def _kind_of(entry: DesiredDeployment) -> Kind:
    return (entry.deployment, entry.cpus, entry.gpus, entry.operator_version, entry.relative_speed, entry.batch_ratio)


def _by_deployment(state: DesiredState) -> dict[Deployment, DesiredDeployment]:
    return {entry.deployment: entry for entry in state.deployments}


def _is_final(route: Route, before: DesiredState, after: DesiredState) -> bool:
    """Return whether a query's route is final and leads to replicas of the final kinds."""
    current, target = _by_deployment(before), _by_deployment(after)
    return route in after.routes and all(
        _kind_of(current[deployment]) == _kind_of(target[deployment]) for deployment in _used_deployments([route])
    )


def _used_deployments(routes: Sequence[Route]) -> set[Deployment]:
    return {stage.deployment for route in routes for stage in route.all_stages}


def _without_unused(before: DesiredState, routes: Sequence[Route], after: DesiredState) -> DesiredState:
    """Return the state without deployments that no route uses, unless they are part of the target state."""
    used, final = _used_deployments(routes), replicas_by_kind(after)
    retained = tuple(entry for entry in before.deployments if entry.deployment in used or _kind_of(entry) in final)
    return replace(before, deployments=retained, routes=tuple(routes))


def _with_moved_queries(
    before: DesiredState,
    after: DesiredState,
    capacity: ClusterCapacity,
    order: Sequence[str],
    *,
    single_replicas: bool = False,
) -> DesiredState | None:
    """Return the state with as many queries as fit on their new routes, most important first; None if none fits.

    With `single_replicas`, deployments that do not run yet, or run in another version, get one replica each.
    """
    routes = {route.query: route for route in before.routes}
    targets = {route.query: route for route in after.routes}
    sizes = _by_deployment(after)
    state, result = before, None
    for query in reversed(order):
        target = targets.get(query)
        if target is None or (routes.get(query) == target and _is_final(target, state, after)):
            continue
        needed = {deployment: sizes[deployment] for deployment in _used_deployments([target])}
        current = _by_deployment(state)
        grown = dict(current)
        for deployment, target_entry in needed.items():
            existing = current.get(deployment)
            if existing is None or _kind_of(existing) != _kind_of(target_entry):
                grown[deployment] = replace(target_entry, replicas=1) if single_replicas else target_entry
            elif not single_replicas and existing.replicas < target_entry.replicas:
                grown[deployment] = target_entry
        larger = replace(state, deployments=tuple(grown.values()))
        if capacity.fits(_union(before, larger)):
            routes[query] = target
            state = result = replace(larger, routes=tuple(routes.values()))
    return None if result is None else _without_unused(result, result.routes, after)


def _shrinking_states(before: DesiredState, after: DesiredState) -> Iterator[DesiredState]:
    """Yield the state, then states with one replica less each of deployments that will shrink or end."""
    yield before
    sizes, state = replicas_by_kind(after), before
    while True:
        excess = {entry: entry.replicas - max(1, sizes.get(_kind_of(entry), 1)) for entry in state.deployments}
        largest = max(excess, key=lambda entry: excess[entry], default=None)
        if largest is None or excess[largest] < 1:
            return
        smaller = replace(largest, replicas=largest.replicas - 1)
        state = replace(state, deployments=tuple(smaller if other is largest else other for other in state.deployments))
        yield state


def _without_query(
    before: DesiredState, smaller: DesiredState, after: DesiredState, order: Sequence[str]
) -> DesiredState:
    """Return the state without the deployments of the least important query that must move, whose requests wait.

    If no query must move, return the smallest state.
    """
    position = {query: number for number, query in enumerate(order)}
    moving = [route for route in before.routes if not route.is_paused and not _is_final(route, before, after)]
    if not moving:
        return after if smaller is before else smaller
    stopped = min(moving, key=lambda route: position.get(route.query, -1))
    paused = [stopped.paused()] if any(route.query == stopped.query for route in after.routes) else []
    return _without_unused(before, [*(route for route in before.routes if route is not stopped), *paused], after)
