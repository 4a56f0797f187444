"""The exact solver: HiGHS on the mixed-integer programme, satisfied weight first, total cost second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import Cut
from circinus.matching.priority_levels import IntegerWeightsByLevel
from circinus.matching.problem import Problem
from circinus.matching.solvers.greedy import greedy, is_feasible, local_search, objective_key
from circinus.matching.solvers.highs import LpRelaxation, LpSolution, SolveMilp, solve_milp
from circinus.matching.solvers.milp_model import MatchingMilp, build_milp
from circinus.matching.solvers.mir_cuts import mir_cut
from circinus.matching.solvers.solver import Solution

_COST_GAP = 1e-9
"""Relative distance from its bound at which the search for a lower cost ends."""

_PROVED = 1e-6
"""Relative distance from its bound at which a cost counts as proved least: what the solver's rounding leaves."""

_WHOLE = 1e-6
"""Distance from a whole number that is the solver's rounding."""

_CUT_ROUNDS = 20
"""Most times that the relaxation is tightened; it is at rest after about six."""

_CAUTIOUS_SHARE = 0.3
"""Share of the time left that a cautious search may take."""

_OVER_LOWER = 100
"""What a rank counts over the next one where a search only looks for a good beginning."""

_LEAST_TIME_S = 0.02
"""What every step is given, however little is left."""


class MilpSolver:
    """Branch and cut by HiGHS on one thread with a fixed seed: the same choice each time, unless time runs out.

    The linear relaxation is tightened by rounding cuts first, which closes most of the gap at little cost; it then
    guides a second greedy choice, and rules out what costs more than the best choice known.
    """

    def __init__(
        self, *, seed: int = 0, clock: Callable[[], float] = time.monotonic, minimise: SolveMilp = solve_milp
    ) -> None:
        """With a seed for the solver, and where it runs: in this process unless told otherwise."""
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
        allowed: BoolArray | None = None,
    ) -> Solution:
        """See `Solver`. A greedy choice starts the search and stands in when time runs out before a better one.

        With only some candidates `allowed` (P,) its bounds are of choices among these alone.
        """
        deadline_s = self._clock() + time_limit_s
        known = [local_search(problem, start, cuts) for start in starts]
        if cuts or not starts:  # a start that nothing was learnt since is greedy already
            known.append(greedy(problem, cuts))
        best = max(known, key=lambda chosen: objective_key(problem, chosen))
        programme = build_milp(problem, cuts, allowed=allowed)
        weights = IntegerWeightsByLevel.of(problem.priority_levels.user_weight, problem.priority_levels.descending)
        servable = np.isin(np.arange(len(problem.queries)), problem.query_of[programme.candidates])
        reachable = list(weights.total(np.where(servable, 0, -1)))
        if not any(reachable):
            return Solution(best, best, 0.0, 0.0, optimal=True)
        search = _Search(programme, cuts, weights, deadline_s, self._clock, self._seed, allowed, self._solve)
        if any(weights.total(best) < weights.total(start) for start in starts):
            best = search.cautious(best)
        safe = best
        for place, most in enumerate(reachable):
            if place:
                search.hold_weight(place - 1, best)
            if weights.total(best)[place] < most:
                best, reachable[place] = search.most_weight(place, best, most)
        proved = list(weights.total(best)) == reachable
        best, cost_bound, least = search.least_cost(best)
        return Solution(
            chosen=best,
            feasible_incumbent=best if is_feasible(problem, best, cuts) else safe,
            weight_bound=_weight_bound(problem, weights, best, reachable, servable),
            cost_bound_usd_per_h=cost_bound,
            optimal=proved and least,
        )


def _weight_bound(
    problem: Problem, weights: IntegerWeightsByLevel, best: IntArray, reachable: Sequence[int], servable: BoolArray
) -> float:
    """From what is reachable of each rank where as much of the higher ones is held."""
    each = list(zip(weights.ranks, weights.weights, reachable, weights.total(best), strict=True))
    return problem.priority_levels.bound(
        bounds=[most * w.unit + w.rounding for _, w, most, _ in each],
        proved=[found == most for _, _, most, found in each],
        most=[
            float(problem.priority_levels.user_weight[queries][servable[queries]].sum()) for queries, _, _, _ in each
        ],
    )


class _Search:
    """One programme under its objectives: the weight of each rank, then cost."""

    def __init__(
        self,
        programme: MatchingMilp,
        cuts: Sequence[Cut],
        weights: IntegerWeightsByLevel,
        deadline_s: float,
        clock: Callable[[], float],
        seed: int,
        allowed: BoolArray | None,
        solve: SolveMilp,
    ) -> None:
        self._solve = solve
        self._programme = programme
        self._allowed = allowed
        self._problem = programme.problem
        self._cuts = cuts
        self._weights = weights
        self._deadline_s = deadline_s
        self._clock = clock
        self._seed = seed

    def cautious(self, best: IntArray) -> IntArray:
        """A choice at least as good as `best` by a programme in which whatever is allowed keeps its cost objective.

        Cost objectives that only sharing can keep are what quick choices miss, and what the exact programme finds out
        one choice after the other.
        """
        programme = build_milp(self._problem, self._cuts, conservative=True, allowed=self._allowed)
        query_of = self._problem.query_of[programme.candidates]
        cost = programme.counted_usd_per_h()
        objective = cost / max(
            2 * float(np.abs(cost) @ np.array(programme.upper)), 1e-9
        )  # in all, less than half a unit
        for place in range(len(self._weights.ranks)):
            objective[: len(query_of)] -= _OVER_LOWER ** (len(self._weights.ranks) - 1 - place) * self._multiples(place)
        start = np.where(np.isin(best, programme.candidates), best, -1)
        values, _ = self._solve(
            programme,
            objective,
            programme.values_of(start, self._problem.usage_of(start)),
            time_limit_s=self._left_s() * _CAUTIOUS_SHARE,
            gap=1e-4,
            seed=self._seed,
        )
        return best if values is None else self._better(best, programme.choice_of(values))

    def most_weight(self, place: int, best: IntArray, reachable: int) -> tuple[IntArray, int]:
        """(the choice of most weight of a rank, a bound on that), in multiples of the rank's unit."""
        programme, weights = self._programme, self._weights
        objective = np.zeros(len(programme.upper))
        objective[: len(programme.candidates)] = -self._multiples(place)
        relaxed = self._tighten(objective)
        if relaxed is not None:
            reachable = min(reachable, math.floor(-relaxed.bound + _WHOLE))
            best = self._better(best, programme.rounded_choice(relaxed.values))
        if weights.total(best)[place] < reachable:
            # Sums of whole weights differ by one at least: anything closer is the same.
            values, bound = self._minimise(objective, best, gap=1 - _WHOLE)
            if values is not None:
                best = max(best, programme.choice_of(values), key=weights.total)
            if math.isfinite(bound):
                reachable = min(reachable, math.floor(-bound + _WHOLE))
        return best, max(reachable, weights.total(best)[place])

    def least_cost(self, best: IntArray) -> tuple[IntArray, float, bool]:
        """(the choice of no less weight and least cost, a bound on the cost, whether the bound is reached).

        Costs with what changes of plan count.
        """
        programme = self._programme
        known = self._counted_usd_per_h(best)
        if known == 0.0:
            return best, 0.0, True
        self.hold_weight(len(self._weights.ranks) - 1, best)
        objective = programme.counted_usd_per_h() / known
        relaxed = self._tighten(objective)
        constant = self._problem.most_change_usd_per_h
        bound = -constant / known
        if relaxed is not None:
            bound = relaxed.bound
            best = self._better(best, programme.rounded_choice(relaxed.values))
            gap = (self._counted_usd_per_h(best) - constant) / known - bound
            programme.forbid((relaxed.reduced_costs > gap + _COST_GAP) & (relaxed.values < _WHOLE))
        values, proved = self._minimise(objective, best, gap=_COST_GAP)
        if values is not None:
            best = self._better(best, programme.choice_of(values), polish=False)
        cost = self._counted_usd_per_h(best)
        floor = min(max(max(bound, proved) * known + constant, 0.0), cost)
        return best, floor, cost - floor <= _PROVED * known

    def _counted_usd_per_h(self, chosen: IntArray) -> float:
        return self._problem.cost_with_churn_usd_per_h(self._problem.usage_of(chosen))

    def hold_weight(self, place: int, best: IntArray) -> None:
        """From now on no less weight of a rank than in `best`."""
        programme = self._programme
        if (best[np.unique(self._problem.query_of[programme.candidates])] >= 0).all():
            programme.serve_all()
            return
        multiples = self._multiples(place)
        columns = np.flatnonzero(multiples)
        programme.add_row(columns, multiples[columns], self._weights.total(best)[place] - 0.5, np.inf)

    def _multiples(self, place: int) -> FloatArray:
        """(candidates,) weights of the queries of a rank, 0 for others."""
        multiples = self._weights.multiples(place, len(self._problem.queries))
        return multiples[self._problem.query_of[self._programme.candidates]].astype(np.float64)

    def _tighten(self, objective: FloatArray) -> LpSolution | None:
        """Solve the relaxation, adding rounding cuts as long as some are violated."""
        relaxation = LpRelaxation(self._programme, objective, self._seed)
        relaxed = None
        for _ in range(_CUT_ROUNDS):
            found = relaxation.solve(self._left_s())
            if found is None:
                break
            relaxed = found
            cuts = [cut for load in self._programme.loads if (cut := mir_cut(load, relaxed.values)) is not None]
            if not cuts:
                break
            for cut in cuts:
                relaxation.add(cut)
                self._programme.add_row(cut.columns, cut.values, cut.lower, np.inf)
        return relaxed

    def _minimise(self, objective: FloatArray, best: IntArray, gap: float) -> tuple[FloatArray | None, float]:
        start = self._programme.values_of(best, self._problem.usage_of(best))
        return self._solve(self._programme, objective, start, time_limit_s=self._left_s(), gap=gap, seed=self._seed)

    def _better(self, best: IntArray, other: IntArray, *, polish: bool = True) -> IntArray:
        if polish:
            other = local_search(self._problem, other, self._cuts)
        return max(best, other, key=lambda chosen: objective_key(self._problem, chosen))

    def _left_s(self) -> float:
        return max(self._deadline_s - self._clock(), _LEAST_TIME_S)
