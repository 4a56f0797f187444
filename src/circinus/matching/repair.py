"""Repair of infeasible choices: queries are dropped until capacities, packing and SLOs hold."""

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
    """A feasible choice with its sizes."""

    chosen: IntArray
    """(Q,) candidate of each query, -1 for none."""
    usage: Usage
    nodes: Mapping[int, tuple[int, ...]]
    """Deployment -> the node of each replica."""
    sizing: Sizing


def repair(
    problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate, *, aggregate_cuts: bool = False
) -> RepairedSolution:
    """Drop queries from a choice until the rest is feasible, lowest weight per freed resource first.

    Args:
        problem: the problem of the choice.
        chosen: (Q,) candidate of each query, -1 for none; not modified.
        slos: of each query.
        reestimate: estimates a plan under the merged load.
        aggregate_cuts: see `pack_pools`.
    """
    solution = IncrementalSolution(problem, chosen)
    drop_violating_queries(solution, ())
    chosen = solution.chosen
    while True:
        usage = problem.usage_of(chosen)
        nodes, packing = pack_pools(problem, usage, widely=aggregate_cuts)
        if packing:
            pool = packing[0].pool
            shares = {query: _share_of(problem, candidate, pool) for query, candidate in problem.served(chosen)}
            value = {query: problem.weight[query] / share for query, share in shares.items() if share > 0}
        else:
            sizing = evaluate_sizing(problem, chosen, usage, slos, reestimate)
            if not sizing.violations:
                return RepairedSolution(chosen, usage, nodes, sizing)
            value = {violation.query: problem.weight[violation.query] for violation in sizing.violations}
        chosen[min(value, key=lambda query: (value[query], query))] = -1


def _share_of(problem: Problem, candidate: int, pool: int) -> float:
    """Return a candidate's share of a pool: the largest of its shares of the pool's resources."""
    columns, load = problem.fractional_load.row(candidate)
    in_pool = problem.pool_of[columns] == pool
    usage = load[in_pool] @ problem.demand[columns[in_pool]]
    capacity = problem.nodes[pool] * problem.node_capacity[pool]
    return float(np.divide(usage, capacity, out=np.zeros_like(usage), where=capacity > 0).max(initial=0.0))
