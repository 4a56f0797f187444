"""Search for the division of requests of maximum weight, then minimum cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.pool_packing import pack_pools
from circinus.matching.problem import Problem
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.highs import LpRelaxation, solve_milp
from circinus.matching.solvers.split_milp import Divisibility, Shares, SplitMilp, build_split_milp
from circinus.matching.tolerances import COST_GAP_TOLERANCE, INTEGRALITY_TOLERANCE

_COST_GAP = 1e-9
"""Relative optimality gap at which the search for a lower cost ends."""
_NEAR_SHARE = 0.1
"""Reduced cost, as a share of the gap, up to which columns are tried first. On a profile of the demo, with 2,650
columns, 0.03, 0.1 and 1 take 0.4, 0.5 and 1.8 s of processor time and find 0.80, 0.78 and 0.74 of the cost."""
_PARTS_GAP = 1 - INTEGRALITY_TOLERANCE
_PARTS_TIME_SHARE = 0.2
"""Maximum share of the remaining time for fewer parts at equal cost."""
_NEAR_TIME_SHARE = 0.5
"""Maximum share of the remaining time for those that are tried first, if the others follow."""


@dataclass(frozen=True)
class SplitBounds:
    """Bounds of all choices with divided requests."""

    weights: tuple[float, ...]
    """Lexicographic upper bound on the weights by level; see `PriorityLevels.lexicographic_bound`."""
    cost_usd_per_h: float
    """Lower bound on the cost, including churn, at the weight of the solution."""


@dataclass(frozen=True)
class SplitSolution:
    """Shares of candidates, and bounds."""

    shares: Shares
    key: tuple[float, ...]
    """Weights by level, and the negative cost, including churn."""
    bounds: SplitBounds


def solve_split(
    problem: Problem,
    divisibility: Divisibility,
    start: Shares,
    *,
    limit_s: float,
    seed: int,
    clock: Callable[[], float],
    proves: bool,
) -> SplitSolution:
    """Return the division of maximum weight, then minimum cost, as far as there is time; at worst the start.

    Args:
        problem: the matching problem.
        divisibility: what may be divided.
        start: feasible shares.
        limit_s: time limit.
        seed: of the solver.
        clock: for the time limit.
        proves: whether to prove bounds; otherwise, the search is among columns of low reduced cost alone.
    """
    search = _SplitSearch(problem, divisibility, start, clock() + limit_s, seed, clock, proves)
    cuts = list[PackingCut | PoolCut]()
    first: SplitBounds | None = None
    while True:
        programme = build_split_milp(problem, divisibility, cuts)
        values, bounds = search.solved(programme)
        first = first or bounds
        if all(cut.valid for cut in cuts):
            first = bounds
        added = pack_pools(problem, programme.set_usage(values))[1]
        if not added or clock() >= search.deadline_s:
            break
        cuts += added
    if added:
        programme = build_split_milp(problem, divisibility)
        values = programme.values_of(start)
    values = search.with_few_parts(programme, values)
    usage, levels = programme.set_usage(values), problem.priority_levels
    shares = dict(programme.shares_of(values, divisibility.margin))
    served = np.where(np.isin(np.arange(len(problem.queries)), list(shares)), 0, -1)
    key = (*levels.weights_of(served), -problem.cost_with_churn_usd_per_h(usage))
    return SplitSolution(shares, key, first)


@dataclass
class _SplitSearch:
    problem: Problem
    divisibility: Divisibility
    start: Shares
    deadline_s: float
    seed: int
    clock: Callable[[], float]
    proves: bool

    def solved(self, programme: SplitMilp) -> tuple[FloatArray, SplitBounds]:
        """Return the columns' values and the bounds of a program."""
        problem, levels = self.problem, self.problem.priority_levels
        values = programme.values_of(self.start)
        servable = np.where(np.isin(np.arange(len(problem.queries)), programme.queries), 0, -1)
        bounds, reached = list(levels.multiples_of(servable)), list[int]()
        for level, most in enumerate(bounds):
            weight = programme.weight(level)
            reached.append(min(round(float(weight @ values)), most))  # a higher level may have changed it
            if reached[level] < most:
                found, bound = self._minimised(programme, -weight, values, 1 - INTEGRALITY_TOLERANCE)
                if found is not None and found @ weight > values @ weight:
                    values = found
                reached[level] = max(reached[level], min(round(float(weight @ values)), most))
                if math.isfinite(bound):
                    bounds[level] = max(min(most, math.floor(-bound + INTEGRALITY_TOLERANCE)), reached[level])
            columns = np.flatnonzero(weight)
            programme.add_row(columns, weight[columns], reached[level] - 0.5, np.inf)
        values, bound_usd_per_h = self._cheapest(programme, values)
        weights = levels.lexicographic_bound(
            bounds=[b * w.unit + w.rounding for b, w in zip(bounds, levels.integer_weights, strict=True)],
            proved=[weight == bound for weight, bound in zip(reached, bounds, strict=True)],
            max_weights=levels.weights_of(servable),
        )
        return values, SplitBounds(weights, bound_usd_per_h)

    def _cheapest(self, programme: SplitMilp, values: FloatArray) -> tuple[FloatArray, float]:
        """Return the columns' values of minimum cost at the weight, and a bound of the cost including churn."""
        best, usd_per_h = values, self._usd_per_h(programme, values)
        scale, constant = max(usd_per_h, 1e-9), programme.constant_usd_per_h
        cost = programme.counted_usd_per_h() / scale
        relaxed = LpRelaxation(programme, cost, self.seed).solve(self._remaining_s())
        bound, upper = -math.inf, list(programme.upper)
        if relaxed is not None:
            bound = relaxed.bound
            searches = ((_NEAR_SHARE, _NEAR_TIME_SHARE), (1.0, 1.0)) if self.proves else ((_NEAR_SHARE, 1.0),)
            for near_share, time_share in searches:
                gap = (usd_per_h - constant) / scale - relaxed.bound
                if gap <= COST_GAP_TOLERANCE:
                    break
                distant = relaxed.reduced_costs > near_share * gap + _COST_GAP
                distant &= (relaxed.values < INTEGRALITY_TOLERANCE) & (best[: len(distant)] == 0)
                if near_share == 1.0:  # a part may take less than all requests, at less than its reduced cost
                    distant[programme.continuous] = False
                programme.upper[: len(upper)] = np.where(distant, 0.0, upper).tolist()
                best, usd_per_h, proved = self._improved(programme, cost, best, usd_per_h, time_share)
                bound = max(bound, proved) if near_share == 1.0 else bound
        return best, min(max(bound * scale + constant, 0.0), usd_per_h)

    def _improved(
        self, programme: SplitMilp, cost: FloatArray, best: FloatArray, usd_per_h: float, time_share: float
    ) -> tuple[FloatArray, float, float]:
        """Return (the best values found, their cost including churn, a bound on the objective).

        It is solved again while replicas do not pack on the nodes that it pays.
        """
        bound = -math.inf
        while True:
            cost, best = (np.append(array, np.zeros(len(programme.upper) - len(array))) for array in (cost, best))
            programme.set_packing(best, programme.set_usage(best))
            values, proved = self._minimised(programme, cost, best, _COST_GAP, time_share)
            bound = max(bound, proved)
            if values is None:
                return best, usd_per_h, bound
            paid = values.copy()
            usage = programme.set_usage(values)
            found_usd_per_h = self.problem.cost_with_churn_usd_per_h(usage)
            if found_usd_per_h < usd_per_h:
                best, usd_per_h = values, found_usd_per_h
            if self.clock() >= self.deadline_s or not programme.require_nodes(paid, usage):
                return best, usd_per_h, bound

    def with_few_parts(self, programme: SplitMilp, values: FloatArray) -> FloatArray:
        """Return values of equal weight and cost with as few parts as possible, and no small ones if possible."""
        own = values[programme.continuous]
        if not ((own > 0) & (own < 1.0 - INTEGRALITY_TOLERANCE)).any():
            return values
        count, start, rows = programme.count_parts(values, MATCHING.min_share)
        for _ in range(2):
            found, _ = self._minimised(programme, count, start, _PARTS_GAP, _PARTS_TIME_SHARE)
            if found is not None:
                return found
            for row in rows:
                programme.row_lower[row] = -np.inf
        return start

    def _usd_per_h(self, programme: SplitMilp, values: FloatArray) -> float:
        return self.problem.cost_with_churn_usd_per_h(programme.set_usage(values))

    def _minimised(
        self, programme: SplitMilp, objective: FloatArray, start: FloatArray, gap: float, time_share: float = 1.0
    ) -> tuple[FloatArray | None, float]:
        limit_s = time_share * self._remaining_s()
        return solve_milp(programme, objective, start, time_limit_s=limit_s, gap=gap, seed=self.seed)

    def _remaining_s(self) -> float:
        return max(self.deadline_s - self.clock(), MATCHING.min_step_s)
