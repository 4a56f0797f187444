"""What is left of a choice when queries are taken out until all holds: capacities, nodes, objectives as sized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import IntArray
from circinus.matching.bin_packing import pack_pools
from circinus.matching.problem import Problem, Usage
from circinus.matching.sizing import Reestimate, Sizing, evaluate_sizing
from circinus.matching.solvers.greedy import IncrementalSolution, drop_violating_queries
from circinus.specification import Slos


@dataclass(frozen=True, eq=False)
class RepairedSolution:
    """A choice that holds, as it would run."""

    chosen: IntArray
    """(Q,) candidate of each query, -1 for none."""
    usage: Usage
    nodes: Mapping[int, tuple[int, ...]]
    """Deployment -> the node of each replica."""
    sizing: Sizing


def repair(
    problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate, *, aggregate_cuts: bool = False
) -> RepairedSolution:
    """Take queries out of a choice (Q,) until the rest holds, first those of least weight for what they make free.

    Args:
        problem: what was chosen from.
        chosen: (Q,) candidate of each query, -1 for none; it stays as it is.
        slos: of each query.
        reestimate: how a plan is estimated under the merged load.
        aggregate_cuts: see `pack_pools`.
    """
    standing = IncrementalSolution(problem, chosen)
    drop_violating_queries(standing, ())
    chosen = standing.chosen
    while True:
        usage = problem.usage_of(chosen)
        nodes, packing = pack_pools(problem, usage, widely=aggregate_cuts)
        if packing:
            pool = packing[0].pool
            shares = {query: _share_of(problem, candidate, pool) for query, candidate in problem.served(chosen)}
            worth = {query: problem.weight[query] / share for query, share in shares.items() if share > 0}
        else:
            sizing = evaluate_sizing(problem, chosen, usage, slos, reestimate)
            if not sizing.broken:
                return RepairedSolution(chosen, usage, nodes, sizing)
            worth = {broken.query: problem.weight[broken.query] for broken in sizing.broken}
        chosen[min(worth, key=lambda query: (worth[query], query))] = -1


def _share_of(problem: Problem, candidate: int, pool: int) -> float:
    """What a candidate takes of a pool: the largest of its shares of the pool's resources."""
    columns, load = problem.fractional_load.row(candidate)
    here = problem.pool_of[columns] == pool
    taken = load[here] @ problem.demand[columns[here]]
    whole = problem.nodes[pool] * problem.node_capacity[pool]
    return float(np.divide(taken, whole, out=np.zeros_like(taken), where=whole > 0).max(initial=0.0))
