"""From one desired state to another where pools have no room for both at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.matching.bin_packing import pack
from circinus.serving import DesiredState
from circinus.serving.engine import DesiredDeployment, Route
from circinus.specification import Deployment, Infrastructure, Pool

_PACKING_STEPS = 100
"""Partial packings that are looked at; a step more costs less than to look for long."""

Kind = tuple[object, ...]
"""Of which replicas can take each other's place: of one deployment, size and version of the code."""


@dataclass(frozen=True)
class ClusterCapacity:
    """What replicas may take."""

    infrastructure: Infrastructure
    nodes: Mapping[str, int]
    """Pool -> nodes that live."""

    def fits(self, deployments: Sequence[DesiredDeployment]) -> bool:
        """Whether replicas can all be on nodes at the same time. What is in a pool without nodes takes nothing: it is
        gone."""
        return all(self._fits(pool, [d for d in deployments if d.deployment.pool == pool.name]) for pool in self._pools)

    @property
    def _pools(self) -> Iterator[Pool]:
        return (pool for pool in self.infrastructure.pools if self.nodes.get(pool.name, 0) > 0)

    def _fits(self, pool: Pool, deployments: Sequence[DesiredDeployment]) -> bool:
        demand = np.array([(d.cpus, d.memory_bytes, d.gpus) for d in deployments]).reshape(-1, 3)
        count = np.array([d.replicas for d in deployments], dtype=np.int64)
        node = np.array([pool.cpus, pool.memory_bytes, pool.gpus])
        return pack(demand, count, node, self.nodes[pool.name], _PACKING_STEPS).nodes is not None


def next_intermediate_state(
    before: DesiredState, after: DesiredState, room: ClusterCapacity, order: Sequence[str]
) -> DesiredState:
    """The state to bring about next, on the way to `after`; an engine runs old and new replicas side by side meanwhile.

    `after` itself where both fit. Otherwise the first of these that helps: what no request needs any more is ended; as
    many queries move as fit; what will be smaller is made smaller until one can move; one moves to single replicas; the
    least important query whose deployments are going is stopped until there is room for it. Calling this again and
    again with what was brought about ends at `after`.

    Args:
        before: what runs.
        after: what shall run.
        room: what there is.
        order: queries, the least important first.
    """
    if room.fits(_both(before, after)) or not room.fits(after.deployments):
        return after  # where it does not fit even alone, the engine knows better, or says why not
    asked = {route.query for route in after.routes}
    tidied = _needed(before, [route for route in before.routes if route.query in asked], after)
    if len(tidied.deployments) < len(before.deployments):
        return tidied
    smaller = before
    for smaller in _smaller(before, after):
        moved = _moved(smaller, after, room, order)
        if moved is not None:
            return moved if smaller is before else smaller
    thinned = _moved(smaller, after, room, order, thin=True)
    if thinned is not None:
        return thinned if smaller is before else smaller
    return _without_one(before, smaller, after, order)


def _both(before: DesiredState, after: DesiredState) -> list[DesiredDeployment]:
    """Each as large as the larger of both; of another size or version of the code, each by itself."""
    together: dict[Kind, DesiredDeployment] = {}
    for wanted in (*before.deployments, *after.deployments):
        known = together.get(_kind(wanted))
        if known is None or known.replicas < wanted.replicas:
            together[_kind(wanted)] = wanted
    return list(together.values())


def replicas_by_kind(state: DesiredState) -> dict[Kind, int]:
    """How many there are."""
    return {_kind(wanted): wanted.replicas for wanted in state.deployments}


def _kind(wanted: DesiredDeployment) -> Kind:
    return (wanted.deployment, wanted.cpus, wanted.gpus, wanted.operator_version, wanted.relative_speed)


def _by_deployment(state: DesiredState) -> dict[Deployment, DesiredDeployment]:
    return {wanted.deployment: wanted for wanted in state.deployments}


def _stays(route: Route, before: DesiredState, after: DesiredState) -> bool:
    """Whether a query is routed as it shall be, to replicas of the kinds that shall be."""
    there, wanted = _by_deployment(before), _by_deployment(after)
    return route in after.routes and all(_kind(there[one]) == _kind(wanted[one]) for one in _used([route]))


def _used(routes: Sequence[Route]) -> set[Deployment]:
    return {stage.deployment for route in routes for stage in route.stages}


def _needed(before: DesiredState, routes: Sequence[Route], after: DesiredState) -> DesiredState:
    """Without deployments that no route uses, unless they are to stay."""
    used, stay = _used(routes), replicas_by_kind(after)
    kept = tuple(wanted for wanted in before.deployments if wanted.deployment in used or _kind(wanted) in stay)
    return replace(before, deployments=kept, routes=tuple(routes))


def _moved(
    before: DesiredState, after: DesiredState, room: ClusterCapacity, order: Sequence[str], *, thin: bool = False
) -> DesiredState | None:
    """With as many queries as fit on their new routes, the most important first; None: not one can move.

    Thin: with one replica of each deployment that does not run yet, or in another version.
    """
    routes = {route.query: route for route in before.routes}
    targets = {route.query: route for route in after.routes}
    sizes = _by_deployment(after)
    state, found = before, None
    for query in reversed(order):
        target = targets.get(query)
        if target is None or (routes.get(query) == target and _stays(target, state, after)):
            continue
        its = {deployment: sizes[deployment] for deployment in _used([target])}
        there = _by_deployment(state)
        grown = dict(there)
        for deployment, wanted in its.items():
            had = there.get(deployment)
            if had is None or _kind(had) != _kind(wanted):
                grown[deployment] = replace(wanted, replicas=1) if thin else wanted
            elif not thin and had.replicas < wanted.replicas:
                grown[deployment] = wanted
        larger = replace(state, deployments=tuple(grown.values()))
        if room.fits(_both(before, larger)):
            routes[query] = target
            state = found = replace(larger, routes=tuple(routes.values()))
    return None if found is None else _needed(found, found.routes, after)


def _smaller(before: DesiredState, after: DesiredState) -> Iterator[DesiredState]:
    """The state itself, and then with one replica less after another of what will be smaller or gone."""
    yield before
    sizes, state = replicas_by_kind(after), before
    while True:
        excess = {wanted: wanted.replicas - max(1, sizes.get(_kind(wanted), 1)) for wanted in state.deployments}
        largest = max(excess, key=lambda wanted: excess[wanted], default=None)
        if largest is None or excess[largest] < 1:
            return
        less = replace(largest, replicas=largest.replicas - 1)
        state = replace(state, deployments=tuple(less if one is largest else one for one in state.deployments))
        yield state


def _without_one(
    before: DesiredState, smaller: DesiredState, after: DesiredState, order: Sequence[str]
) -> DesiredState:
    """Without the least important of the queries that would have to move; where none would, as small as it can be."""
    position = {query: number for number, query in enumerate(order)}
    moving = [route for route in before.routes if not _stays(route, before, after)]
    if not moving:
        return after if smaller is before else smaller
    least = min(moving, key=lambda route: position.get(route.query, -1))
    return _needed(before, [route for route in before.routes if route is not least], after)
