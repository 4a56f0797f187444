"""Packing of a usage's replicas on the nodes of all pools, with cuts for the pools that do not pack."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.problem import Problem, Usage
from circinus.planning.bin_packing import SEARCH_STEPS, node_shares, pack, packed_share

_QUICK_SEARCH_STEPS = 100
"""Maximum number of partial packings in the search if no proof is needed."""

_MAX_FILL_RATIO = 0.995
"""Maximum fill of a pool after a failed packing, relative to the fill that failed."""

_MAX_LIFTED_KINDS = 3
"""Maximum number of kinds of replicas in a core for which the cut is lifted to all larger replicas."""


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
        packing = problem.fewest_nodes(pool, usage.replicas).packing if pool in problem.elastic else None
        if packing is None or (packing.nodes is None and not packing.proved):
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
            cuts.append(packing_cut(problem, usage, pool, int(problem.nodes[pool]), proved=packing.proved))
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


def packing_cut(problem: Problem, usage: Usage, pool: int, nodes: int, *, proved: bool) -> PackingCut:
    """Return a cut, as strong as possible, that excludes replicas that do not pack on some nodes of a pool."""
    members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
    kinds, kind_of = np.unique(problem.demand[members], axis=0, return_inverse=True)
    count = np.bincount(kind_of.reshape(-1), weights=usage.replicas[members], minlength=len(kinds)).astype(np.int64)
    if proved:
        count = _core(kinds, count, problem.node_capacity[pool], nodes)
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
    size = node_shares(kinds, capacity).max(axis=1)
    for kind in np.argsort(size, kind="stable"):
        while count[kind]:
            count[kind] -= 1
            verdict = pack(kinds, count, capacity, nodes)
            if verdict.nodes is not None or not verdict.proved:
                count[kind] += 1
                break
    return count
