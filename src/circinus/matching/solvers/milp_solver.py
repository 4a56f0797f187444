"""The exact solver: HiGHS on the mixed-integer program, satisfied weight first, total cost second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import Cut, PoolCut
from circinus.matching.pool_packing import pack_pools, packed_part
from circinus.matching.problem import Problem
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import greedy, is_feasible, local_search, objective_key
from circinus.matching.solvers.highs import LpRelaxation, LpSolution, SolveMilp, solve_milp
from circinus.matching.solvers.milp_model import MatchingMilp, build_milp
from circinus.matching.solvers.mir_cuts import CutRow, mir_cut, violated_links
from circinus.matching.solvers.solver import Solution
from circinus.matching.tolerances import COST_GAP_TOLERANCE, INTEGRALITY_TOLERANCE

_COST_GAP = 1e-9
"""Relative optimality gap at which the search for a lower cost ends."""
_NEAR_SHARE = 0.03
"""Reduced cost, as a share of the gap, up to which candidates and replicas are tried first. On five programs of the
meeting example these hold an optimum: both searches take 1.2 s of processor time together, one alone 2.6."""
_NEAR_WEIGHT = 0.05
"""Reduced cost, in units of weight, up to which candidates of a large program are tried first."""
_MIN_DISTANT = 0.3
"""Minimum share of the columns that are left out then; with fewer, all are tried at once."""
_LARGE_TIME_SHARES = 0.6, 0.5
"""Share of the remaining time for these, and then for all, before cost is minimised in a large program."""
_FEW_LINKS = 30
"""Number of violated links below which rounding cuts are added, too."""
_FIRST_TIME_SHARE = 0.5
"""Maximum share of the remaining time for those that are tried first."""


class MilpSolver:
    """Branch and cut by HiGHS on one thread with a fixed seed: deterministic, unless a search runs out of time.

    The linear relaxation is first tightened by rounding cuts, which close most of the gap at little cost. It then
    guides a second greedy choice, and excludes candidates and deployments whose reduced costs exceed the gap to the
    incumbent. So that these are many, those of low reduced cost are searched alone before.
    """

    def __init__(
        self, *, seed: int = 0, clock: Callable[[], float] = time.monotonic, minimise: SolveMilp = solve_milp
    ) -> None:
        """Set the seed of the solver, and the function that solves the program (default: in this process)."""
        self._seed = seed
        self._clock = clock
        self._solve = minimise

    def solve(
        self,
        problem: Problem,
        cuts: Sequence[Cut],
        time_limit_s: float,
        starts: Sequence[IntArray] = (),
        *,
        eligible: BoolArray | None = None,
        is_large: bool = False,
    ) -> Solution:
        """Return the best choice within the time limit; see `Solver`. A greedy choice is its warm start and fallback.

        If only some candidates are `eligible` (P,), the bounds hold for choices among these alone, and the cost has
        none: there is no search to prove it. If the program is large, the starts are the warm starts as they are.
        """
        deadline_s = self._clock() + time_limit_s
        starting_points = [start if is_large else local_search(problem, start, cuts) for start in starts]
        if not is_large and (cuts or not starts):  # without new cuts, the starts are greedy choices already
            starting_points.append(greedy(problem, cuts))
        best = max(starting_points, key=lambda chosen: objective_key(problem, chosen))
        programme = build_milp(problem, cuts, eligible=eligible, is_large=is_large)
        packed = {patterns.pool for patterns in programme.patterns}
        cuts = [cut for cut in cuts if not (isinstance(cut, PoolCut) and cut.pool in packed)]
        levels = problem.priority_levels
        servable = np.where(np.isin(np.arange(len(problem.queries)), programme.queries), 0, -1)
        bounds = list(levels.multiples_of(servable))
        if not any(bounds):
            return Solution(best, best, (0.0,) * levels.count, 0.0, optimal=True)
        search = _Search(programme, cuts, deadline_s, self._clock, self._seed, self._solve)
        feasible_best = best
        for level, bound in enumerate(bounds):
            if level:
                search.fix_weight(level - 1, best)
            if levels.multiples_of(best)[level] < bound:
                best, bounds[level] = search.maximize_weight(level, best, bound)
        satisfied = levels.multiples_of(best)
        best, cost_bound, cost_proved = search.minimize_cost(best, proves=eligible is None)
        if is_large and not is_feasible(problem, best, cuts):
            repaired = packed_part(problem, local_search(problem, best, cuts), cuts)
            feasible_best = max(feasible_best, repaired, key=lambda chosen: objective_key(problem, chosen))
        return Solution(
            chosen=best,
            feasible_incumbent=best if is_feasible(problem, best, cuts) else feasible_best,
            weight_bounds=levels.lexicographic_bound(
                bounds=[b * w.unit + w.rounding for b, w in zip(bounds, levels.integer_weights, strict=True)],
                proved=[weight == bound for weight, bound in zip(levels.multiples_of(best), bounds, strict=True)],
                max_weights=levels.weights_of(servable),
            ),
            cost_bound_usd_per_h=cost_bound,
            optimal=list(satisfied) == bounds and cost_proved,
        )


class _Search:
    """A search over one program under its objectives in turn: the weight of each level, then cost."""

    def __init__(
        self,
        programme: MatchingMilp,
        cuts: Sequence[Cut],
        deadline_s: float,
        clock: Callable[[], float],
        seed: int,
        solve: SolveMilp,
    ) -> None:
        self._solve = solve
        self._programme = programme
        self._problem, self._levels = programme.problem, programme.problem.priority_levels
        self._cuts = cuts
        self._deadline_s = deadline_s
        self._clock = clock
        self._seed = seed

    def maximize_weight(self, level: int, best: IntArray, weight_bound: int) -> tuple[IntArray, int]:
        """Return (the choice of maximum weight of a level, a bound on it), in multiples of the level's unit."""
        programme, multiples_of = self._programme, self._levels.multiples_of
        objective = np.zeros(len(programme.upper))
        objective[: len(programme.candidates)] = -self._multiples(level)
        relaxed = self._tighten(objective)
        if relaxed is not None:
            weight_bound = min(weight_bound, math.floor(-relaxed.bound + INTEGRALITY_TOLERANCE))
            best = self._better(best, programme.rounded_choice(relaxed.values))
        if programme.is_large and relaxed is not None and multiples_of(best)[level] < weight_bound:
            distant = (relaxed.reduced_costs > _NEAR_WEIGHT) & (relaxed.values < INTEGRALITY_TOLERANCE)
            distant &= programme.values_of(best, self._problem.usage_of(best)) == 0
            if distant.mean() > _MIN_DISTANT:
                with programme.forbidden(distant):
                    values, _ = self._minimise(objective, best, 1 - INTEGRALITY_TOLERANCE, _LARGE_TIME_SHARES[0])
                if values is not None:
                    best = self._better(best, programme.choice_of(values))
        if multiples_of(best)[level] < weight_bound:
            # Sums of integer weights differ by at least one, so a smaller gap proves optimality.
            time_share = _LARGE_TIME_SHARES[1] if programme.is_large else 1.0
            values, bound = self._minimise(objective, best, 1 - INTEGRALITY_TOLERANCE, time_share)
            if values is not None:
                best = max(best, programme.choice_of(values), key=multiples_of)
            if math.isfinite(bound):
                weight_bound = min(weight_bound, math.floor(-bound + INTEGRALITY_TOLERANCE))
        return best, max(weight_bound, multiples_of(best)[level])

    def minimize_cost(self, best: IntArray, *, proves: bool) -> tuple[IntArray, float, bool]:
        """Return (the cheapest choice of no less weight, its cost bound, whether it is reached), including churn.

        Unless it `proves` a bound, the search is among candidates and replicas of low reduced cost alone.
        """
        programme = self._programme
        incumbent_cost = self._counted_usd_per_h(best)
        if incumbent_cost == 0.0:
            return best, 0.0, True
        self.fix_weight(self._levels.count - 1, best)
        objective = programme.counted_usd_per_h() / incumbent_cost
        relaxed = self._tighten(objective)
        constant = programme.constant_usd_per_h
        bound = -constant / incumbent_cost

        def gap(choice: IntArray) -> float:
            return (self._counted_usd_per_h(choice) - constant) / incumbent_cost - bound

        if relaxed is not None:
            bound = relaxed.bound
            best = self._better(best, programme.rounded_choice(relaxed.values))
            unused = relaxed.values < INTEGRALITY_TOLERANCE
            distant = (relaxed.reduced_costs > _NEAR_SHARE * gap(best)) & unused
            distant &= programme.values_of(best, self._problem.usage_of(best)) == 0
            if distant.any():
                with programme.forbidden(distant):
                    best, _ = self._improved(objective, best, time_share=_FIRST_TIME_SHARE if proves else 1.0)
                if not proves:
                    return best, 0.0, False
            excluded = (relaxed.reduced_costs > gap(best) + _COST_GAP) & unused
            excluded[programme.continuous] = False  # less than one of a load costs less than its reduced cost
            programme.forbid(excluded)
        best, proved = self._improved(objective, best)
        cost = self._counted_usd_per_h(best)
        floor = min(max(max(bound, proved) * incumbent_cost + constant, 0.0), cost)
        return best, floor, cost - floor <= COST_GAP_TOLERANCE * incumbent_cost

    def _improved(self, objective: FloatArray, best: IntArray, time_share: float = 1.0) -> tuple[IntArray, float]:
        """Return (the cheapest choice found, bound of the objective).

        It is solved again while replicas do not pack on the nodes that it pays.
        """
        programme, bound = self._programme, -math.inf
        while True:
            objective = np.append(objective, np.zeros(len(programme.upper) - len(objective)))
            values, proved = self._minimise(objective, best, gap=_COST_GAP, time_share=time_share)
            bound = max(bound, proved)
            if values is None:
                return best, bound
            choice = programme.choice_of(values)
            best = self._better(best, choice, polish=False)
            usage = self._problem.usage_of(choice)
            if not programme.require_nodes(values, usage) or self._clock() >= self._deadline_s:
                return best, bound

    def _counted_usd_per_h(self, chosen: IntArray) -> float:
        return self._problem.cost_with_churn_usd_per_h(self._problem.usage_of(chosen))

    def fix_weight(self, level: int, best: IntArray) -> None:
        """Require at least the weight of a level in `best` from now on."""
        programme = self._programme
        if math.isinf(self._levels.required_weight) and (best[programme.queries] >= 0).all():
            programme.serve_all()
            return
        multiples = self._multiples(level)
        columns = np.flatnonzero(multiples)
        programme.add_row(columns, multiples[columns], self._levels.multiples_of(best)[level] - 0.5, np.inf)

    def _multiples(self, level: int) -> FloatArray:
        """Return (candidates,) weights of the queries of a level, 0 for other queries."""
        multiples = np.zeros(len(self._problem.queries))
        multiples[self._levels.descending[level]] = self._levels.integer_weights[level].multiples
        return multiples[self._problem.query_of[self._programme.candidates]]

    def _tighten(self, objective: FloatArray) -> LpSolution | None:
        """Solve the relaxation, adding violated rounding cuts."""
        relaxation = LpRelaxation(self._programme, objective, self._seed)
        relaxed = None
        for _ in range(MATCHING.max_cut_rounds):
            solution = relaxation.solve(self._remaining_s())
            if solution is None:
                break
            relaxed = solution
            loads, cuts = self._programme.loads, list[CutRow]()
            if self._programme.is_large:
                cuts += (link for load in loads for link in violated_links(load, solution.values))
            if len(cuts) < _FEW_LINKS:
                cuts += (cut for load in loads if (cut := mir_cut(load, solution.values)) is not None)
            if not cuts:
                break
            for cut in cuts:
                relaxation.add(cut)
                self._programme.add_row(cut.columns, cut.values, cut.lower, np.inf)
        return relaxed

    def _minimise(
        self, objective: FloatArray, best: IntArray, gap: float, time_share: float = 1.0
    ) -> tuple[FloatArray | None, float]:
        start = self._programme.values_of(best, self._problem.usage_of(best))
        limit_s = time_share * self._remaining_s()
        return self._solve(self._programme, objective, start, time_limit_s=limit_s, gap=gap, seed=self._seed)

    def _better(self, best: IntArray, other: IntArray, *, polish: bool = True) -> IntArray:
        others = [local_search(self._problem, other, self._cuts) if polish else other]
        if self._programme.patterns:  # moves ignore how replicas pack
            others = [choice for choice in (other, *others) if self._packs(choice, polish)]
        return max(best, *others, key=lambda chosen: objective_key(self._problem, chosen)) if others else best

    def _packs(self, chosen: IntArray, polish: bool) -> bool:
        """Return whether a choice packs on nodes; unless it is as the program gives it, it must satisfy the cuts."""
        is_valid = not polish or is_feasible(self._problem, chosen, self._cuts)
        return is_valid and not pack_pools(self._problem, self._problem.usage_of(chosen), widely=True)[1]

    def _remaining_s(self) -> float:
        return max(self._deadline_s - self._clock(), MATCHING.min_step_s)
