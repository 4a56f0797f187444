"""What is left of a choice when queries are taken out until all holds: capacities, nodes, objectives as sized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.matching.greedy import keep_objectives
from circinus.matching.packing import pack_pools
from circinus.matching.problem import IntArray, Problem, Usage
from circinus.matching.sizing import Reestimate, Sizing, size
from circinus.matching.standing import Standing
from circinus.spec import Slos


@dataclass(frozen=True, eq=False)
class Held:
    """A choice that holds, as it would run."""

    chosen: IntArray
    """(Q,) candidate of each query, -1 for none."""
    usage: Usage
    nodes: Mapping[int, tuple[int, ...]]
    """Deployment -> the node of each replica."""
    sizing: Sizing


def hold(
    problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate, *, widely: bool = False
) -> Held:
    """Take queries out of a choice (Q,), the lightest of those in the way first, until the rest holds.

    Args:
        problem: what was chosen from.
        chosen: (Q,) candidate of each query, -1 for none; it stays as it is.
        slos: of each query.
        reestimate: how a plan is estimated under the merged load.
        widely: see `pack_pools`.
    """
    standing = Standing(problem, chosen)
    keep_objectives(standing, ())
    chosen = standing.chosen
    while True:
        usage = problem.usage_of(chosen)
        nodes, packing = pack_pools(problem, usage, widely=widely)
        victims: Sequence[int]
        if packing:
            pool = packing[0].pool
            victims = [query for query, candidate in problem.served(chosen) if _uses_pool(problem, candidate, pool)]
        else:
            sizing = size(problem, chosen, usage, slos, reestimate)
            victims = [broken.query for broken in sizing.broken]
            if not victims:
                return Held(chosen, usage, nodes, sizing)
        chosen[min(victims, key=lambda query: (problem.weight[query], query))] = -1


def _uses_pool(problem: Problem, candidate: int, pool: int) -> bool:
    return bool(np.any(problem.pool_of[problem.fluid.row(candidate)[0]] == pool))
