"""Vector bin packing of replicas into equal nodes, exact for small pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.problem import Problem, Usage
from circinus.matching.tolerances import NODE_TOLERANCE

SEARCH_STEPS, _QUICK_SEARCH_STEPS = 20_000, 100
"""Maximum number of partial packings in the exact search; the second if no proof is needed."""

_MAX_FILL_RATIO = 0.995
"""Maximum fill of a pool after a failed packing, relative to the fill that failed."""

_MAX_LIFTED_KINDS = 3
"""Maximum number of kinds of replicas in a core for which the cut is lifted to all larger replicas."""


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
    nodes), which stops after `steps` partial packings.

    Args:
        demand: (m, R) resources of one replica of each kind.
        count: (m,) replicas of each kind.
        capacity: (R,) of one node.
        nodes: number of nodes.
        steps: maximum number of partial packings.
    """
    if not count.sum():
        return Packing(tuple(() for _ in count), proved=True)
    share = _shares(demand, capacity)
    if nodes == 0 or np.any(share[count > 0] > 1 + NODE_TOLERANCE):
        return Packing(None, proved=True)
    if np.any(share.T @ count > nodes * (1 + NODE_TOLERANCE)):
        return Packing(None, proved=True)
    for order in _orders(share):
        nodes_of = _first_fit(share, count, nodes, order)
        if sum(map(len, nodes_of)) == count.sum():
            return Packing(nodes_of, proved=True)
    return _search(share, count, nodes, steps)


def _shares(demand: FloatArray, capacity: FloatArray) -> FloatArray:
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
            open_nodes = np.flatnonzero(np.all(load + share[kind] <= 1 + NODE_TOLERANCE, axis=1))
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
    steps_used = 0
    order = np.argsort(-share.max(axis=1), kind="stable")
    sizes = share[order]

    def fill(remaining: tuple[int, ...], free: int) -> list[tuple[int, ...]] | None:
        nonlocal steps_used
        if not any(remaining):
            return []
        if (
            free == 0
            or (free, remaining) in failed
            or np.any(np.array(remaining) @ sizes > free * (1 + NODE_TOLERANCE))
        ):
            return None
        for filling in _maximal_fillings(sizes, remaining):
            steps_used += 1
            if steps_used > steps:
                raise _StepLimitError
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


def _maximal_fillings(sizes: FloatArray, remaining: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield all maximal ways to fill one node, largest kinds first.

    The largest remaining kind goes on some node and all nodes are equal, so it goes on this one.
    """
    largest_kind = next(kind for kind, count_left in enumerate(remaining) if count_left)

    def extend(kind: int, filling: tuple[int, ...], load: FloatArray) -> Iterator[tuple[int, ...]]:
        if kind == len(remaining):
            open_kinds = [k for k, count_left in enumerate(remaining) if filling[k] < count_left]
            if not any(np.all(load + sizes[k] <= 1 + NODE_TOLERANCE) for k in open_kinds):
                yield filling
            return
        max_count = remaining[kind]
        while max_count and not np.all(load + max_count * sizes[kind] <= 1 + NODE_TOLERANCE):
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
    share = _shares(demand, capacity)
    scarcest = share[:, int((share.T @ count).argmax())]
    packed = ([len(counts) for counts in _first_fit(share, count, nodes, order)] for order in _orders(share))
    return max(float(scarcest @ np.array(counts)) for counts in packed) / float(scarcest @ count)


def pack_pools(
    problem: Problem, usage: Usage, *, widely: bool = False
) -> tuple[dict[int, tuple[int, ...]], tuple[PackingCut | PoolCut, ...]]:
    """Pack the replicas of every pool.

    Args:
        problem: with the pools.
        usage: to be packed.
        widely: whether to limit the fill of a pool that does not pack, instead of excluding the conflicting replicas.

    Returns:
        For each used deployment the nodes of its replicas, and a cut for every pool that does not pack; with cuts, the
        nodes are incomplete.
    """
    nodes: dict[int, tuple[int, ...]] = {}
    cuts: list[PackingCut | PoolCut] = []
    for pool in range(len(problem.pools)):
        members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
        packing = pack(
            problem.demand[members],
            usage.replicas[members],
            problem.node_capacity[pool],
            int(problem.nodes[pool]),
            _QUICK_SEARCH_STEPS if widely else SEARCH_STEPS,
        )
        if packing.nodes is None and widely:
            cuts.append(_pool_cut(problem, usage, pool, members))
        elif packing.nodes is None:
            cuts.append(_packing_cut(problem, usage, pool, proved=packing.proved))
        else:
            nodes.update(zip(members.tolist(), packing.nodes, strict=True))
    return nodes, tuple(cuts)


def _pool_cut(problem: Problem, usage: Usage, pool: int, members: IntArray) -> PoolCut:
    """Limit the fill of a pool to the share that could be packed."""
    rows = np.flatnonzero(problem.rows.plain & (problem.rows.pool == pool))
    filled = float((usage.rows[rows] / problem.rows.limit[rows]).max(initial=0.0))
    packed = packed_share(
        problem.demand[members], usage.replicas[members], problem.node_capacity[pool], int(problem.nodes[pool])
    )
    return PoolCut(pool, filled * min(packed, _MAX_FILL_RATIO))


def _packing_cut(problem: Problem, usage: Usage, pool: int, *, proved: bool) -> PackingCut:
    """Return a cut, as strong as possible, that excludes replicas that do not pack on a pool's nodes."""
    members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
    kinds, kind_of = np.unique(problem.demand[members], axis=0, return_inverse=True)
    count = np.bincount(kind_of.reshape(-1), weights=usage.replicas[members], minlength=len(kinds)).astype(np.int64)
    if proved:
        count = _core(kinds, count, problem.node_capacity[pool], int(problem.nodes[pool]))
    core = np.flatnonzero(count)
    inside = problem.pool_of == pool
    if len(core) > _MAX_LIFTED_KINDS:
        groups = [(np.all(problem.demand == kinds[kind], axis=1), int(count[kind])) for kind in core]
    else:
        # By Hall's theorem the core can be matched to distinct replicas that are at least as large if, for every
        # set of kinds, enough replicas are at least as large as some kind of the set.
        larger = {int(kind): np.all(problem.demand >= kinds[kind], axis=1) for kind in core}
        groups = [
            (np.any([larger[int(kind)] for kind in subset], axis=0), int(count[list(subset)].sum()))
            for size in range(1, len(core) + 1)
            for subset in combinations(core, size)
        ]
    return PackingCut(
        pool=pool,
        groups=tuple((np.flatnonzero(mask & inside).astype(np.int64), min_count) for mask, min_count in groups),
        valid=proved,
    )


def _core(kinds: FloatArray, count: IntArray, capacity: FloatArray, nodes: int) -> IntArray:
    """Return fewer replicas that provably do not fit either, removing the smallest kinds first, one by one."""
    count = count.copy()
    size = _shares(kinds, capacity).max(axis=1)
    for kind in np.argsort(size, kind="stable"):
        while count[kind]:
            count[kind] -= 1
            verdict = pack(kinds, count, capacity, nodes)
            if verdict.nodes is not None or not verdict.proved:
                count[kind] += 1
                break
    return count
