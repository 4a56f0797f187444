"""What a little more of every resource would be worth: the shadow prices of the relaxed matching."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, dual_bound
from circinus.matching.lagrangian.dual_ascent import DualSolver
from circinus.matching.lagrangian.relaxation import RelaxedView
from circinus.matching.lagrangian.solve import cost_tiebreak_weight, tighten_weight_bound
from circinus.matching.problem import RESOURCES, Problem
from circinus.matching.solvers.milp_model import viable_candidates

_UNITS = {"cpus": ("CPU", 1.0), "memory": ("GiB", 2.0**30), "gpus": ("GPU", 1.0), "gpu memory": ("GiB", 2.0**30)}
_LINK_UNIT = ("MB/s", 1e6)
_ABOVE = 1e3
"""What a higher rank counts more where a lower one is priced."""
_NOTHING = 1e-3
"""Share of the satisfied weight, or of the cost, that a whole capacity may be worth and still count as nothing."""


@dataclass(frozen=True)
class ShadowPrice:
    """A pool's resource or a link, and what one more unit of it would be worth.

    Worth at the margin, and as if queries could be divided over plans and deployments over fractions of replicas: whole
    ones may need more than one unit, and then bring more at once.
    """

    resource: str
    """`pool edge: cpus` or `link home->edge`, as rejections name what binds."""
    unit: str
    """CPU, GiB, GPU, or MB/s of what plans may take of a link."""
    capacity: float
    """Units there are."""
    used: float
    """Share of the capacity that the deployments as sized take."""
    weight: float
    """Satisfied weight that one more unit would add, of the queries of highest priority that are not all served."""
    saving_usd_per_h: float
    """US dollars per hour by which one more unit would lower the cost of the weight that is satisfied."""


@dataclass(frozen=True)
class RelaxationBounds:
    """What the relaxed matching says of a choice: it holds for every choice of the same candidates."""

    prices: tuple[ShadowPrice, ...]
    """Of every resource that any plan may take, in the order of pools and links."""
    weight_bound: float
    """Summed over ranks: no choice that serves as much of the higher ranks satisfies more own weight of a rank."""
    cost_bound_usd_per_h: float
    """No choice that satisfies as much costs less."""


def shadow_prices(problem: Problem, chosen: IntArray, seed: int) -> RelaxationBounds:
    """What binds, and how much better another choice could be; costs are what is paid, whatever changes count.

    Args:
        problem: what was matched.
        chosen: (Q,) candidate of each query, -1 for none.
        seed: of samples.
    """
    problem = replace(problem, incumbent=None)
    usable, ranks = viable_candidates(problem, ()), problem.priority_levels
    view = RelaxedView.of(problem, usable)
    if not view.queries:
        return RelaxationBounds((), 0.0, 0.0)
    by_weight, most = _by_weight(problem, chosen, usable, seed)
    if ranks.count > 1:  # nor does any choice that gives no rank to anybody satisfy more
        most = min(most, max(_of_all(problem, usable, seed), ranks.own_weight_of(chosen)))
    by_cost, least, usage = np.zeros(len(by_weight)), 0.0, problem.usage_of(chosen)
    weight = ranks.own_weight_of(chosen)
    if weight > 0:
        fluid = replace(view.scaled(np.ones(len(problem.deployments))), weight=ranks.user_weight[view.first])
        search, asked = DualSolver(fluid, np.random.default_rng(seed)), DualObjective(0.0, 1.0, weight)
        of_cost = search.polish(asked, search.minimize_cost(weight, most))
        by_cost, least = (
            view.by_resource(of_cost),
            min(max(-dual_bound(fluid, asked, of_cost), 0.0), usage.cost_usd_per_h),
        )
    by_cost[by_cost < _NOTHING * usage.cost_usd_per_h] = 0.0
    pools = _of_pools(problem, usage.rows, by_weight, by_cost)
    links = _of_links(problem, usage.traffic_bytes_per_s, by_weight, by_cost)
    return RelaxationBounds((*pools, *links), most, least)


def _by_weight(problem: Problem, chosen: IntArray, usable: BoolArray, seed: int) -> tuple[FloatArray, float]:
    """What whole capacities are worth to the highest rank that is not all served, and a bound on the weight.

    A higher rank is all served then; what it counts more keeps it so at the prices. Lower ranks count as nothing.
    """
    ranks = problem.priority_levels
    servable = np.isin(np.arange(len(problem.queries)), problem.query_of[usable])
    short = [bool((servable[queries] & (chosen[queries] < 0)).any()) for queries in ranks.descending]
    binding = short.index(True) if any(short) else ranks.count - 1
    by_weight, total = np.zeros(0), 0.0
    for place, queries in enumerate(ranks.descending):
        satisfied = float(ranks.user_weight[queries[chosen[queries] >= 0]].sum())
        if not short[place] and place != binding:
            total += satisfied
            continue
        prices, limit = _of_rank(problem, usable, place, seed)
        higher = np.flatnonzero((ranks.rank > ranks.count - 1 - place) & (chosen >= 0))
        most = max(limit - _ABOVE * float(ranks.user_weight[higher].sum()), satisfied)
        total += min(most, float(ranks.user_weight[queries].sum()))
        if place == binding:
            by_weight = np.where(prices < (_NOTHING * most if short[place] else np.inf), 0.0, prices)
    return by_weight, total


def _of_all(problem: Problem, usable: BoolArray, seed: int) -> float:
    """A bound on the weight where no rank comes first."""
    view = RelaxedView.of(replace(problem, weight=problem.priority_levels.user_weight), usable)
    fluid = view.scaled(np.ones(len(problem.deployments)))
    search, objective = DualSolver(fluid, np.random.default_rng(seed)), DualObjective(1.0, 0.0)
    return tighten_weight_bound(
        fluid, dual_bound(fluid, objective, search.polish(objective, search.maximize_weight(objective)))
    )


def _of_rank(problem: Problem, usable: BoolArray, place: int, seed: int) -> tuple[FloatArray, float]:
    """(resources,) prices of whole capacities for one rank beside the higher ones, and a bound on their weight."""
    ranks = problem.priority_levels
    staged = replace(problem, weight=ranks.level_weight(place, _ABOVE))
    view = RelaxedView.of(staged, usable & (ranks.rank[problem.query_of] >= ranks.count - 1 - place))
    if not view.queries:
        return np.zeros(len(view.slot)), 0.0
    fluid = view.scaled(np.ones(len(problem.deployments)))
    search = DualSolver(fluid, np.random.default_rng(seed))
    objective = DualObjective(1.0, cost_tiebreak_weight(fluid))
    prices = search.polish(objective, search.maximize_weight(objective))
    return view.by_resource(prices), tighten_weight_bound(fluid, dual_bound(fluid, DualObjective(1.0, 0.0), prices))


def _of_pools(problem: Problem, used: FloatArray, by_weight: FloatArray, by_cost: FloatArray) -> list[ShadowPrice]:
    rows, found = problem.rows, []
    for row in np.flatnonzero(rows.plain).tolist():
        pool, resource = int(rows.pool[row]), RESOURCES[rows.resource[row]]
        unit, size = _UNITS[resource]
        capacity = float(rows.limit[row]) / size
        # Also rows that count replicas on nodes: a node's worth of units loosens each of them as much as this one.
        same = np.flatnonzero((rows.pool == pool) & (rows.resource == rows.resource[row]))
        found.append(
            ShadowPrice(
                resource=f"pool {problem.pools[pool]}: {resource}",
                unit=unit,
                capacity=capacity,
                used=float(used[row] / rows.limit[row]),
                weight=float(by_weight[same].sum()) / capacity,
                saving_usd_per_h=float(by_cost[same].sum()) / capacity,
            )
        )
    return found


def _of_links(problem: Problem, used: FloatArray, by_weight: FloatArray, by_cost: FloatArray) -> list[ShadowPrice]:
    unit, size = _LINK_UNIT
    crossed = np.unique(problem.traffic.column)
    rows = len(problem.rows.limit)
    return [
        ShadowPrice(
            resource=f"link {problem.links[link]}",
            unit=unit,
            capacity=(capacity := float(problem.link_capacity_bytes_per_s[link]) / size),
            used=float(used[link]) / size / capacity,
            weight=float(by_weight[rows + link]) / capacity,
            saving_usd_per_h=float(by_cost[rows + link]) / capacity,
        )
        for link in crossed.tolist()
    ]
