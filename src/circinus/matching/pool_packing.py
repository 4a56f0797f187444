"""Packing of a usage's replicas on the nodes of all pools, with cuts for the pools that do not pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.cuts import Cut, PackingCut, PoolCut
from circinus.matching.problem import Problem, Usage
from circinus.matching.solvers.greedy import IncrementalSolution, drop_violating_queries
from circinus.planning.bin_packing import SEARCH_STEPS, Packing, node_shares, pack, packed_share

_QUICK_SEARCH_STEPS, _MAX_SEARCHED_KINDS = 100, 10
"""Maximum number of partial packings in the search if no proof is needed, with more than a number of kinds."""

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
            packing = _packing(problem, usage, pool, members, widely=widely)
        if packing.nodes is None and widely:
            cuts.append(_pool_cut(problem, usage, pool, members))
        elif packing.nodes is None:
            cuts.append(packing_cut(problem, usage, pool, int(problem.nodes[pool]), proved=packing.proved))
        else:
            nodes.update(zip(members.tolist(), packing.nodes, strict=True))
    return nodes, tuple(cuts)


def _packing(problem: Problem, usage: Usage, pool: int, members: IntArray, *, widely: bool) -> Packing:
    """Pack the replicas of some deployments; those that take the same of a node are searched for together."""
    demand, capacity = problem.packed
    kinds, kind_of = np.unique(demand[members], axis=0, return_inverse=True)
    kind_of, replicas = kind_of.reshape(-1), usage.replicas[members]
    count = np.bincount(kind_of, weights=replicas, minlength=len(kinds)).astype(np.int64)
    steps = _QUICK_SEARCH_STEPS if widely and len(kinds) > _MAX_SEARCHED_KINDS else SEARCH_STEPS
    packing = pack(kinds, count, capacity[pool], int(problem.nodes[pool]), steps)
    if packing.nodes is None:
        return packing
    left = [list(nodes) for nodes in packing.nodes]
    nodes_of = []
    for kind, number in zip(kind_of.tolist(), replicas.tolist(), strict=True):
        nodes_of.append(tuple(left[kind][:number]))
        left[kind] = left[kind][number:]
    return replace(packing, nodes=tuple(nodes_of))


def packed_part(problem: Problem, chosen: IntArray, cuts: Sequence[Cut]) -> IntArray:
    """Return a choice without queries of least weight for what they take of pools that do not pack, so that all do.

    Others may pay more for a deployment without them: those that then miss their cost SLO are dropped, too.
    """
    levels, solution = problem.priority_levels, IncrementalSolution(problem, chosen)
    while unpacked := pack_pools(problem, solution.usage, widely=True)[1]:
        pool, served = unpacked[0].pool, problem.served(solution.chosen)
        shares = {query: share_of_pool(problem, candidate, pool) for query, candidate in served}
        value = {query: levels.weight[query] / share for query, share in shares.items() if share > 0}
        solution.move(min(value, key=lambda query: (levels.rank[query], value[query], query)), -1)
    drop_violating_queries(solution, cuts)
    return solution.chosen


def share_of_pool(problem: Problem, candidate: int, pool: int) -> float:
    """Return a candidate's share of a pool: the largest of its shares of the pool's resources."""
    columns, load = problem.fractional_load.row(candidate)
    in_pool = problem.pool_of[columns] == pool
    usage = load[in_pool] @ problem.demand[columns[in_pool]]
    capacity = problem.nodes[pool] * problem.node_capacity[pool]
    return float(np.divide(usage, capacity, out=np.zeros_like(usage), where=capacity > 0).max(initial=0.0))


def _pool_cut(problem: Problem, usage: Usage, pool: int, members: IntArray) -> PoolCut:
    """Limit the fill of a pool to the share that could be packed."""
    rows = np.flatnonzero(problem.rows.plain & (problem.rows.pool == pool))
    filled = float((usage.rows[rows] / problem.rows.limit[rows]).max(initial=0.0))
    packed = packed_share(
        problem.packed[0][members], usage.replicas[members], problem.packed[1][pool], int(problem.nodes[pool])
    )
    return PoolCut(pool, filled * min(packed, _MAX_FILL_RATIO))


def packing_cut(problem: Problem, usage: Usage, pool: int, nodes: int, *, proved: bool) -> PackingCut:
    """Return a cut, as strong as possible, that excludes replicas that do not pack on some nodes of a pool."""
    members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
    demand, capacity = problem.packed
    kinds, kind_of = np.unique(demand[members], axis=0, return_inverse=True)
    count = np.bincount(kind_of.reshape(-1), weights=usage.replicas[members], minlength=len(kinds)).astype(np.int64)
    if proved:
        count = _core(kinds, count, capacity[pool], nodes)
    core = np.flatnonzero(count)
    inside = problem.pool_of == pool
    if len(core) > _MAX_LIFTED_KINDS:
        groups = [(np.all(demand == kinds[kind], axis=1), int(count[kind])) for kind in core]
    else:
        # By Hall's theorem the core can be matched to distinct replicas that are at least as large if, for every
        # set of kinds, enough replicas are at least as large as some kind of the set.
        larger = {int(kind): np.all(demand >= kinds[kind], axis=1) for kind in core}
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
