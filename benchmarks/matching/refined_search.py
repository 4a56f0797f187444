"""The search by prices, refined while time remains: annealing, and an exact model.

The product refines an answer on whole replicas instead (`LagrangianSolver`).
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.matching.restricted_milp import solve_restricted, value_of
from circinus.arrays import IntArray
from circinus.matching.lagrangian import DualObjective, Prices, RelaxedProblem, RelaxedSolution, dual_bound
from circinus.matching.lagrangian.annealing import anneal_sites
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.sifting import LpPrices
from circinus.matching.lagrangian.solve import (
    RelaxedSearch,
    cost_profits,
    max_cost_usd_per_h,
    tighten_weight_bound,
)
from circinus.matching.solvers.highs import SolveMilp
from circinus.matching.tolerances import WEIGHT_TOLERANCE

_MAX_UNDECIDED = 64
"""Maximum number of queries in the exact model."""
_MAX_ALL_UNDECIDED = 160
"""Maximum number of queries in the exact model if it contains all queries."""
_WINDOWS = 0.5, 1.0
"""Maximum regrets, as shares of the optimality gap, of successive exact models over all queries. Small models find good
choices soon, which shrink the large one."""
_MIN_ANNEALED, _MAX_ANNEALED = 24, 2_000
"""Range of the number of queries at a site that are annealed, as single queries matter there."""
_ANNEALINGS, _MOVES = 256, 10_000
"""Maximum number of annealings, and moves for each query of one."""
_ANNEALED_SHARE = 0.7
"""Share of the remaining time for annealings."""
_EXACT_SHARE = 0.5
"""Share of the remaining time for one exact model."""
_ROUNDINGS = 32
"""Number of rounded operations in a regret."""


def solve_refined(
    problem: RelaxedProblem, *, minimise: SolveMilp | None = None, time_limit_s: float = 1.0, seed: int = 0
) -> RelaxedSolution:
    """Choose plans by prices, then for the undecided queries by an exact model.

    Args:
        problem: the relaxed problem.
        minimise: solver of the exact model; None: without one.
        time_limit_s: time limit of the refinement; all steps of the search by prices always run.
        seed: of samples and of the solver.
    """
    return _RefinedSearch(problem, seed, minimise, time.monotonic() + time_limit_s).answer()


class _RefinedSearch(RelaxedSearch):
    def __init__(self, problem: RelaxedProblem, seed: int, minimise: SolveMilp | None, deadline_s: float) -> None:
        super().__init__(problem, seed)
        self._minimise, self._deadline_s = minimise, deadline_s
        self._few = problem.sites == 1 and _MIN_ANNEALED <= problem.queries <= _MAX_ANNEALED

    def maximize_weight(self, objective: DualObjective, optimum: LpPrices) -> tuple[IntArray, float]:
        """Return (a choice, a bound on the weight)."""
        problem, prices = self.problem, optimum.prices
        chosen, weight_bound = super().maximize_weight(objective, optimum)
        if self._few:
            chosen = self._anneal_often(objective, prices, chosen, weight_bound)
        if problem.weight_of(chosen) < weight_bound - WEIGHT_TOLERANCE * weight_bound:
            unit = 0.0 if self.weights.rounding else self.weights.unit
            # The prices include a small weight of costs; a better choice is better by at least a unit.
            slack = objective.cost * max_cost_usd_per_h(problem)
            gap = dual_bound(problem, objective, prices) - value_of(problem, chosen, objective) + slack - unit
            reduced_profits = ReducedProfits.at(problem, objective, prices)
            chosen, bound = self._solve_undecided(reduced_profits, chosen, DualObjective(1.0, 0.0), gap, unit=unit)
            weight_bound = min(weight_bound, tighten_weight_bound(problem, bound, self.weights))
        return chosen, max(weight_bound, problem.weight_of(chosen))

    def _anneal_often(
        self, objective: DualObjective, prices: Prices, chosen: IntArray, weight_bound: float
    ) -> IntArray:
        """Return the best choice over annealings from several seeds."""
        problem, best, cpus = self.problem, chosen, os.cpu_count() or 1
        deadline_s, enough = self._deadline_after(_ANNEALED_SHARE), weight_bound * (1 - WEIGHT_TOLERANCE)
        reduced_profits = ReducedProfits.at(problem, objective, prices)

        def annealed(seed: int) -> IntArray:
            start = anneal_sites(problem, objective, prices, moves=_MOVES, seed=seed)
            return self.completed(reduced_profits, start, objective)

        with ThreadPoolExecutor(cpus) as pool:
            for seed in range(0, _ANNEALINGS, cpus):
                if time.monotonic() >= deadline_s or problem.weight_of(best) >= enough:
                    break
                best = max(best, *pool.map(annealed, range(seed, seed + cpus)), key=self.key)
        return best

    def minimize_cost(
        self, objective: DualObjective, chosen: IntArray, max_weight: float
    ) -> tuple[IntArray, Prices, float]:
        """Return (a choice of no less weight, prices of cost, a bound on the cost of the weight)."""
        weight = self.problem.weight_of(chosen)
        chosen, prices, cost_bound = super().minimize_cost(objective, chosen, max_weight)
        if self._few and weight > 0:
            least = np.array([self.problem.weight_of(chosen)])
            cheap = DualObjective(0.0, 1.0)
            annealed = anneal_sites(self.problem, cheap, prices, moves=_MOVES, seed=self.seed, min_weight=least)
            chosen = max(chosen, annealed, key=self.key)
        cost, satisfied = self.problem.cost_usd_per_h_of(chosen), self.problem.weight_of(chosen)
        if cost > cost_bound + WEIGHT_TOLERANCE * cost:
            min_weight = satisfied if satisfied > weight * (1 + WEIGHT_TOLERANCE) else weight
            reduced_profits = cost_profits(self.problem, prices)
            chosen, bound = self._solve_undecided(
                reduced_profits, chosen, DualObjective(0.0, 1.0), cost - cost_bound, min_weight
            )
            cost_bound = max(cost_bound, -bound)
        return chosen, prices, cost_bound

    def _solve_undecided(
        self,
        reduced_profits: ReducedProfits,
        chosen: IntArray,
        objective: DualObjective,
        gap: float,
        min_weight: float | None = None,
        unit: float = 0.0,
    ) -> tuple[IntArray, float]:
        """Return (a choice at least as good, a bound on the objective) by the exact model."""
        best, bound = chosen, math.inf
        initial_value = value_of(self.problem, chosen, objective)
        small = len(chosen) <= _MAX_ALL_UNDECIDED
        deadline_s = self._deadline_after(_EXACT_SHARE)
        windows = _WINDOWS if small else (1.0,)
        for index, window in enumerate(windows):
            window_s = (deadline_s - time.monotonic()) / (len(windows) - index)
            if self._minimise is None or window_s <= 0:
                break
            # Gains so far reduce the regrets that need to be considered.
            remaining_gap = gap - (value_of(self.problem, best, objective) - initial_value)
            window_gap = window * remaining_gap + _rounding(reduced_profits)
            solution = solve_restricted(
                self.problem, reduced_profits, best, objective, window_gap, self._minimise,
                max_undecided=len(chosen) if small else _MAX_UNDECIDED, time_limit_s=window_s, seed=self.seed,
                min_weight=min_weight, unit=unit,
            )  # fmt: skip
            best = max((best, solution.chosen), key=self.key)
            if window == 1.0:
                bound = solution.bound
        return best, bound

    def _deadline_after(self, share: float) -> float:
        now_s = time.monotonic()
        return now_s + (self._deadline_s - now_s) * share


def _rounding(reduced_profits: ReducedProfits) -> float:
    """Return the rounding error of regrets in their precision."""
    values = reduced_profits.reduced[np.isfinite(reduced_profits.reduced)]
    return _ROUNDINGS * float(np.finfo(reduced_profits.reduced.dtype).eps) * float(np.abs(values).max(initial=0.0))
