"""Vector bin packing of replicas into equal nodes, exact for small pools."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, sub

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import DeploymentUse, PlanCandidate, replicas_for
from circinus.specification import Pool

SEARCH_STEPS = 20_000
"""Maximum number of ways to fill a node that the exact search of a small pool tries."""
SMALL_POOL = 64
"""Product of the nodes and the kinds of replicas of a small pool. In a larger one a step takes longer and there are
fewer, by the square of this product: without, searches of full pools took three quarters of the planning time of a
thousand queries."""

_NODE_TOLERANCE = 1e-9
"""Rounding tolerance of the replicas on a node, as a share of the node."""


@dataclass(frozen=True, eq=False)
class Packing:
    """A packing of replicas on the nodes of a pool, or its failure."""

    nodes: tuple[tuple[int, ...], ...] | None
    """Ascending node indexes of the replicas of each kind, or None if no packing was found."""
    proved: bool
    """True if the result is certain."""


def pack(demand: FloatArray, count: IntArray, capacity: FloatArray, nodes: int, steps: int = SEARCH_STEPS) -> Packing:
    """Put `count[i]` replicas that take `demand[i]` each on equal nodes.

    First-fit decreasing in several orders, then a search over all packings up to symmetry (equal replicas, equal
    nodes), which gives up after `steps`.

    Args:
        demand: (m, R) resources of one replica of each kind.
        count: (m,) replicas of each kind.
        capacity: (R,) of one node.
        nodes: number of nodes.
        steps: maximum number of ways to fill a node that are tried in a pool of `SMALL_POOL`; less in larger ones.
    """
    if not count.sum():
        return Packing(tuple(() for _ in count), proved=True)
    share = node_shares(demand, capacity)
    if nodes == 0 or np.any(share[count > 0] > 1 + _NODE_TOLERANCE):
        return Packing(None, proved=True)
    if np.any(share.T @ count > nodes * (1 + _NODE_TOLERANCE)):
        return Packing(None, proved=True)
    for order in _orders(share):
        nodes_of = _first_fit(share, count, nodes, order)
        if sum(map(len, nodes_of)) == count.sum():
            return Packing(nodes_of, proved=True)
    return _search(share, count, nodes, steps)


@dataclass(frozen=True, eq=False)
class FewestNodes:
    """A packing on as few nodes as the search needs."""

    count: int
    """Number of nodes; the greatest one if there is no packing."""
    packing: Packing
    proved: bool
    """True if fewer nodes are certainly too few."""


def pack_on_fewest(
    demand: FloatArray, count: IntArray, capacity: FloatArray, minimum: int, most: int, steps: int = SEARCH_STEPS
) -> FewestNodes:
    """Return a packing on the fewest nodes, from `minimum` to `most` of them: first-fit decreasing, then a search.

    With `steps` 0 there is no search, and fewer nodes may do.
    """
    share = node_shares(demand, capacity)
    best, fewest = Packing(None, proved=False), most + 1
    for order in _orders(share) if count.sum() else ():
        nodes_of, opened = _on_open_nodes(share, count, order.tolist(), fewest - 1)
        if nodes_of is not None:
            best, fewest = Packing(nodes_of, proved=True), max(opened, minimum)
        if fewest <= minimum:
            return FewestNodes(minimum, best, proved=True)
    proved = True
    for nodes in range(minimum, fewest):
        packing = _search(share, count, nodes, steps) if steps else Packing(None, proved=False)
        if packing.nodes is not None:
            return FewestNodes(nodes, packing, proved)
        proved &= packing.proved
    return FewestNodes(min(fewest, most), best if best.nodes is not None else Packing(None, proved), proved)


def _on_open_nodes(
    share: FloatArray, count: IntArray, order: Sequence[int], most: int
) -> tuple[tuple[tuple[int, ...], ...] | None, int]:
    """Return (the nodes of each kind's replicas by first fit, the number of nodes), or None if `most` do not suffice.

    It is `_first_fit` on as many nodes as it takes, ten times as fast with few replicas.
    """
    free: list[list[float]] = []
    nodes_of: list[tuple[int, ...]] = [()] * len(count)
    shares, counts, room = share.tolist(), count.tolist(), [1 + _NODE_TOLERANCE] * share.shape[1]
    for kind in order:
        needed, nodes, node = shares[kind], list[int](), 0
        while len(nodes) < counts[kind]:
            if node == len(free):
                if node == most or max(needed) > room[0]:
                    return None, most
                free.append(room.copy())
            left = free[node]
            if all(map(ge, left, needed)):
                left[:] = map(sub, left, needed)
                nodes.append(node)
            else:
                node += 1
        nodes_of[kind] = tuple(nodes)
    return tuple(nodes_of), len(free)


def node_shares(demand: FloatArray, capacity: FloatArray) -> FloatArray:
    """Return (m, R) the shares of a node that a replica takes; infinite without capacity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(demand > 0, demand / capacity, 0.0)


def _orders(share: FloatArray) -> Iterator[IntArray]:
    """Yield kinds by falling size: the largest share, the sum of shares, or the share of one resource."""
    for size in (share.max(axis=1), share.sum(axis=1), *share.T):
        yield np.argsort(-size, kind="stable")


def _first_fit(share: FloatArray, count: IntArray, nodes: int, order: IntArray) -> tuple[tuple[int, ...], ...]:
    """Return, for each kind, the nodes of those replicas that fit."""
    load = np.zeros((nodes, share.shape[1]))
    nodes_of: list[tuple[int, ...]] = [()] * len(count)
    for kind in order:
        nodes_of_kind: list[int] = []
        while len(nodes_of_kind) < count[kind]:
            open_nodes = np.flatnonzero(np.all(load + share[kind] <= 1 + _NODE_TOLERANCE, axis=1))
            if not len(open_nodes):
                break
            load[open_nodes[0]] += share[kind]
            nodes_of_kind.append(int(open_nodes[0]))
        nodes_of[kind] = tuple(sorted(nodes_of_kind))
    return tuple(nodes_of)


def _search(share: FloatArray, count: IntArray, nodes: int, steps: int) -> Packing:
    """Fill node by node with maximal sets: a replica that still fits on a closed node may as well go there.

    States that differ only in the order of nodes never arise, because only the remaining replicas are cached.
    """
    failed: set[tuple[int, tuple[int, ...]]] = set()
    steps_used, steps = 0, int(steps * (SMALL_POOL / max(nodes * len(count), SMALL_POOL)) ** 2)
    order = np.argsort(-share.max(axis=1), kind="stable")
    sizes = share[order]

    def fill(remaining: tuple[int, ...], free: int) -> list[tuple[int, ...]] | None:
        nonlocal steps_used
        if not any(remaining):
            return []
        if (
            free == 0
            or (free, remaining) in failed
            or np.any(np.array(remaining) @ sizes > free * (1 + _NODE_TOLERANCE))
        ):
            return None
        for filling in _maximal_fillings(sizes, remaining):
            steps_used += 1
            if steps_used > steps:
                raise _StepLimitError
            if filling is None:
                continue
            next_fillings = fill(
                tuple(count_left - take for count_left, take in zip(remaining, filling, strict=True)), free - 1
            )
            if next_fillings is not None:
                return [filling, *next_fillings]
        failed.add((free, remaining))
        return None

    try:
        fillings = fill(tuple(int(count[kind]) for kind in order), nodes)
    except _StepLimitError:
        return Packing(None, proved=False)
    if fillings is None:
        return Packing(None, proved=True)
    nodes_of: list[tuple[int, ...]] = [()] * len(count)
    for position, kind in enumerate(order):
        nodes_of[kind] = tuple(node for node, filling in enumerate(fillings) for _ in range(filling[position]))
    return Packing(tuple(nodes_of), proved=True)


class _StepLimitError(Exception):
    """The search has used its steps."""


def _maximal_fillings(sizes: FloatArray, remaining: tuple[int, ...]) -> Iterator[tuple[int, ...] | None]:
    """Yield all maximal ways to fill one node, largest kinds first; None for each other way that is tried.

    The largest remaining kind goes on some node and all nodes are equal, so it goes on this one.
    """
    largest_kind = next(kind for kind, count_left in enumerate(remaining) if count_left)

    def extend(kind: int, filling: tuple[int, ...], load: FloatArray) -> Iterator[tuple[int, ...] | None]:
        if kind == len(remaining):
            open_kinds = np.array([filling[k] < count_left for k, count_left in enumerate(remaining)])
            has_room = np.all(load + sizes[open_kinds] <= 1 + _NODE_TOLERANCE, axis=1)
            yield None if has_room.any() else filling
            return
        max_count = remaining[kind]
        while max_count and not np.all(load + max_count * sizes[kind] <= 1 + _NODE_TOLERANCE):
            max_count -= 1
        for take in range(max_count, -1 if kind != largest_kind else 0, -1):
            yield from extend(kind + 1, (*filling, take), load + take * sizes[kind])

    yield from extend(0, (), np.zeros(sizes.shape[1]))


def packed_share(demand: FloatArray, count: IntArray, capacity: FloatArray, nodes: int) -> float:
    """Return the share of the replicas, by the scarcest resource, that first-fit decreasing puts on the nodes.

    Args:
        demand: (m, R) resources of one replica of each kind.
        count: (m,) replicas of each kind.
        capacity: (R,) of one node.
        nodes: number of nodes.
    """
    share = node_shares(demand, capacity)
    scarcest = share[:, int((share.T @ count).argmax())]
    packed = ([len(counts) for counts in _first_fit(share, count, nodes, order)] for order in _orders(share))
    return max(float(scarcest @ np.array(counts)) for counts in packed) / float(scarcest @ count)


def packs_in_isolation(candidate: PlanCandidate, pools: Mapping[str, Pool]) -> bool:
    """Return whether the whole replicas of a plan, at its utilization targets, were packed on the nodes of its pools.

    Args:
        candidate: the plan.
        pools: name -> pool, without other replicas.
    """
    by_pool = defaultdict[str, list[DeploymentUse]](list)
    for use in candidate.deployments:
        by_pool[use.deployment.pool].append(use)
    for name, uses in by_pool.items():
        spare = np.array([use.demand.spare_replicas for use in uses])
        busy = ((use.busy_replicas, use.deployment.allocation.utilization_target) for use in uses)
        count = np.array([replicas_for(*target) for target in busy]) + spare
        demand, capacity = np.array([use.demand.amounts for use in uses]), np.array([pools[name].amounts])
        demand, capacity = with_spread(demand, capacity, spare > 0)
        if pack(demand, count, capacity[0], pools[name].nodes).nodes is None:
            return False
    return True


def with_spread(demand: FloatArray, capacity: FloatArray, is_spread: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return demands (m, R') and capacities (K, R') with a resource more for each kind that is spread over nodes.

    A node has one of it, and each replica of the kind takes it.

    Args:
        demand: (m, R) resources of one replica of each kind.
        capacity: (K, R) of one node of each pool.
        is_spread: (m,) kinds of which a node holds at most one replica.
    """
    if not is_spread.any():
        return demand, capacity
    own = np.eye(len(demand))[:, is_spread]
    return np.hstack([demand, own]), np.hstack([capacity, np.ones((len(capacity), own.shape[1]))])
