"""Column generation: plans that no frontier lists enter where they are best at the prices of the relaxed matching.

A frontier offers the matching only so many plans. What more there are is priced all at once (`LeftOut`); whoever would
pay less for one of those gets it as a candidate, and prices are found anew, until nobody would, or some rounds went by
(Dantzig and Wolfe, "Decomposition principle for linear programs", Operations Research 8, 1960).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.prices.dual import DualObjective
from circinus.matching.prices.of_problem import RelaxedView
from circinus.matching.prices.search import DualSolver
from circinus.matching.prices.solve import cost_tiebreak_weight
from circinus.matching.problem import RESOURCES, FloatArray, Problem
from circinus.matching.programme import viable_candidates
from circinus.matching.reuse import Candidates
from circinus.planning import Frontier
from circinus.planning.left_out import DualPrices
from circinus.spec import Query, QueryPlan

Promise = Callable[[Query, QueryPlan], PlanCandidate | None]
"""A plan of a query with its estimate; None: it does not promise the query's objectives."""

_ROUNDS = 4
_A_ROUND = 2
"""Plans that enter for a query in a round."""
_BETTER_BY = 0.02
"""Share of what a query's best listed plan pays that another one must save: less is not worth the time it takes."""
_ABOVE = 30.0
"""What a higher rank counts more than all lower ones."""


def generate_columns(
    candidates: Candidates,
    frontiers: Mapping[str, Frontier],
    promise: Promise,
    compile_candidates: Callable[[Candidates], Problem],
    *,
    enough: Callable[[], bool],
    seed: int,
) -> Candidates:
    """The candidates, and behind each query's what pays less at the prices at which all of them are matched.

    Args:
        candidates: by query name.
        frontiers: with what was left out of them.
        promise: how a plan is estimated for a query.
        compile_candidates: the problem of some candidates.
        enough: whether to stop.
        seed: of samples.
    """
    waiting = {name for name, frontier in frontiers.items() if frontier.unlisted is not None and candidates[name]}
    for _ in range(_ROUNDS):
        if not waiting or enough():
            break
        prices = dual_prices(compile_candidates(candidates), seed)
        if prices is None:
            break
        further: dict[str, list[PlanCandidate]] = {}
        for name in sorted(waiting):
            left_out = frontiers[name].unlisted
            assert left_out is not None
            known = {candidate.plan for candidate in candidates[name]}
            plans = left_out.lowest_reduced_cost(prices, _A_ROUND, better_by=_BETTER_BY)
            found = [promise(frontiers[name].query, plan) for plan in plans if plan not in known]
            further[name] = [candidate for candidate in found if candidate is not None]
        waiting = {name for name, found in further.items() if found}
        candidates = {name: (*plans, *further.get(name, ())) for name, plans in candidates.items()}
    return candidates


def dual_prices(problem: Problem, seed: int) -> DualPrices | None:
    """What plans pay in the relaxed matching; None where nothing is short."""
    view = RelaxedView.of(
        replace(problem, weight=problem.priority_levels.level_weight(problem.priority_levels.count - 1, _ABOVE)),
        viable_candidates(problem, ()),
    )
    if not view.queries:
        return None
    fluid = view.scaled(np.ones(len(problem.deployments)))
    search, objective = DualSolver(fluid, np.random.default_rng(seed)), DualObjective(1.0, cost_tiebreak_weight(fluid))
    by_resource = view.by_resource(search.polish(objective, search.maximize_weight(objective)))
    if not by_resource.any():
        return None
    rows, count = problem.rows, len(problem.rows.limit)
    a_unit = np.zeros((len(problem.pools), len(RESOURCES)))
    # Rows that count replicas on nodes stand for the resource that they are made of, as in `resource_prices`.
    np.add.at(a_unit, (rows.pool, rows.resource), by_resource[:count])
    whole = _capacities(problem)
    a_unit = np.divide(a_unit, whole, out=np.zeros_like(a_unit), where=whole > 0)
    links = by_resource[count:] / problem.link_capacity_bytes_per_s
    return DualPrices(
        pools={
            name: (float(a[0]), float(a[1]), float(a[2]), float(a[3]))
            for name, a in zip(problem.pools, a_unit, strict=True)
            if a.any()
        },
        links={name: float(price) for name, price in zip(problem.links, links, strict=True) if price > 0},
        usd_per_h=objective.cost,
    )


def _capacities(problem: Problem) -> FloatArray:
    """(K, 4) of whole pools."""
    return np.asarray(problem.nodes[:, None] * problem.node_capacity, dtype=np.float64)
