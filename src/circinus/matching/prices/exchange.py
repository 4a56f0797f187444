"""Pairs of moves that help although neither fits or pays alone: 1-1 exchanges and ejections.

A query that gains (it comes in, or takes a better plan) may lack room; another one of its site makes it, by leaving or
by taking another plan. All pairs of the most promising moves are compared at once.
"""

from __future__ import annotations

import math

import numpy as np

from circinus.matching.prices.answer import ExpandedQueries
from circinus.matching.prices.dual import DualObjective
from circinus.matching.prices.fluid import IntArray
from circinus.matching.prices.moves import ChurnTerms, best_pair, list_moves
from circinus.matching.prices.rounding import ReducedProfits

_GAINING, _YIELDING = 96, 1024
"""Moves of a site that are looked at: those that gain, and those that make room."""
_A_QUERY = 0.5, 4.0
"""The same for each query of a site, where it has few."""
_NEAREST = 4_000
"""Queries of a site whose moves are looked at."""
_ROUNDS = 4
"""Times that moves are listed anew."""
_NO_GAIN = 1e-9
"""Share of the most that serving a query can be worth that counts as rounding."""


def swap_search(
    members: ExpandedQueries,
    regrets: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    *,
    running: ChurnTerms | None = None,
    sites: IntArray | None = None,
) -> IntArray:
    """(N,) a choice at least as good, with what was found in some rounds of pairs.

    Args:
        members: the queries.
        regrets: by which moves are chosen to be looked at.
        chosen: (N,) a choice that fits.
        objective: what is to gain.
        running: what runs already, so that changes of it have a price.
        sites: those whose queries may move; None: all.
    """
    problem, chosen = members.problem, chosen.copy()
    least = improvement_tolerance(members, objective)
    starts, usage = members.site_starts, members.usage(chosen)
    for site in (np.arange(problem.sites) if sites is None else sites).tolist():
        if starts[site] == starts[site + 1]:
            continue
        queries = regrets.nearest(members, np.arange(starts[site], starts[site + 1]), _NEAREST)
        resources = members.resources[members.class_of[queries[0]]]
        few = [math.ceil(share * len(queries)) for share in _A_QUERY]
        for _ in range(_ROUNDS):
            gaining, yielding = list_moves(
                members, regrets, chosen, objective, queries,
                max_gaining=min(_GAINING, few[0]), max_yielding=min(_YIELDING, few[1]), running=running,
            )  # fmt: skip
            before = chosen[queries]
            while (pair := best_pair(gaining, yielding, np.maximum(1.0 - usage[resources], 0.0), least)) is not None:
                for moves, one in pair:
                    usage[resources] += moves.change[one]
                    chosen[moves.query[one]] = moves.plan[one]
                moved = [int(moves.query[one]) for moves, one in pair]
                gaining, yielding = gaining.without(moved), yielding.without(moved)
            if np.array_equal(before, chosen[queries]):
                break
    return chosen


def improvement_tolerance(members: ExpandedQueries, objective: DualObjective) -> float:
    """What is rounding in the objective."""
    return _NO_GAIN * (objective.weight * float(members.problem.weight.max(initial=0.0)) + objective.cost)
