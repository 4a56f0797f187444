"""The solver for many queries: by prices first, then whole replicas, then an exact model over those in doubt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import Cut
from circinus.matching.lagrangian.dual import DualObjective, dual_bound
from circinus.matching.lagrangian.dual_ascent import DualSolver
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxation import RelaxedView, capacity_scaling, replica_scaling
from circinus.matching.lagrangian.solve import RelaxedSolution, solve_relaxed
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem import Problem
from circinus.matching.solvers.greedy import greedy, is_feasible, local_search, objective_key
from circinus.matching.solvers.highs import SolveMilp, solve_milp
from circinus.matching.solvers.milp_model import viable_candidates
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solution

_ROUNDS = 8
"""Times that loads are stretched by what whole replicas make of them."""
_SHARE = 0.6
"""Of the time, for prices and whole replicas; the rest is for the exact model."""
_IN_DOUBT, _TIMES = 24, 2
"""Queries that the exact model chooses for at first, and how many times more the next time."""
_EXACT_UP_TO = 2_000
"""Queries beside which there is an exact model."""
_ABOVE = (30.0, 1e3, 1e5)
"""What a higher rank counts more where a lower one is chosen, until it loses nothing by that."""
_SAME = 1e-9
"""Relative difference of sums of weights that is rounding."""
_PROVED = 1e-6
"""Relative distance from its bound at which a cost counts as proved least."""


@dataclass(frozen=True, eq=False)
class _Stage:
    """What was found of one rank of queries, beside the higher ones."""

    best: IntArray
    """The best choice of all ranks so far."""
    view: RelaxedView
    relaxed: RelaxedSolution
    regrets: ReducedProfits
    higher: IntArray
    """Queries of higher ranks."""
    above: float
    """What these count more."""

    def bound(self, ranks: PriorityLevels, chosen: IntArray) -> float:
        """No choice that serves as much of the higher ranks as `chosen` satisfies more own weight of this one."""
        return self.relaxed.weight_bound - self.above * _own_weight(ranks, chosen, self.higher)


class LagrangianSolver:
    """Prices of a relaxation in which replicas may be divided lead to choices with whole ones; bounds hold for both."""

    def __init__(
        self, *, seed: int = 0, clock: Callable[[], float] = time.monotonic, minimise: SolveMilp = solve_milp
    ) -> None:
        """With a seed for samples and for the exact models, and where these run: here unless told otherwise."""
        self._seed = seed
        self._clock = clock
        self._minimise = minimise

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, starts: Sequence[IntArray] = ()
    ) -> Solution:
        """See `Solver`."""
        began_s = self._clock()
        deadline_s, ranks = began_s + time_limit_s, problem.priority_levels.count
        pauses_s = began_s + _SHARE * time_limit_s * np.arange(1, ranks + 1) / max(ranks, 1)

        def enough(place: int = 0) -> bool:
            return bool(self._clock() >= pauses_s[place])

        usable = viable_candidates(problem, cuts)
        known = [local_search(problem, start, cuts, should_stop=enough) for start in starts]
        if cuts or not starts:
            known.append(greedy(problem, cuts, should_stop=enough))
        best = max(known, key=partial(objective_key, problem))
        stages: list[_Stage] = []
        for place in range(ranks):
            stage = self._stage(problem, cuts, usable, place, best, partial(enough, place))
            stages, best = [*stages, stage], stage.best
        safe = best if is_feasible(problem, best, cuts) else np.full(len(best), -1, dtype=np.int64)
        choice = Solution(best, safe, np.inf, 0.0, optimal=False)
        if not stages or not (view := stages[-1].view).queries:
            return replace(choice, weight_bound=0.0)
        choice = self._with_bounds(problem, stages, choice)
        if len(problem.queries) > _EXACT_UP_TO:
            return choice
        doubts = _doubts(problem, view, stages[-1].regrets, best)
        count, solver = _IN_DOUBT, MilpSolver(seed=self._seed, clock=self._clock, minimise=self._minimise)
        while not choice.optimal and (left_s := deadline_s - self._clock()) > 0:
            everybody = count >= len(doubts)
            allowed = None if everybody else _allowed(problem, choice.feasible_incumbent, doubts[:count], usable)
            limit_s = left_s if everybody else left_s * _SHARE
            choice = _better(
                problem,
                choice,
                solver.solve(problem, cuts, limit_s, [choice.feasible_incumbent], allowed=allowed),
                everybody,
            )
            if everybody:
                break
            count *= _TIMES
        return choice if choice.optimal else self._with_bounds(problem, stages, choice)

    def _stage(
        self,
        problem: Problem,
        cuts: Sequence[Cut],
        usable: BoolArray,
        place: int,
        best: IntArray,
        enough: Callable[[], bool],
    ) -> _Stage:
        """One rank beside the higher ones, by prices that are theirs."""
        ranks = problem.priority_levels
        beside = usable & (ranks.rank[problem.query_of] >= ranks.count - 1 - place)
        higher = np.concatenate([np.zeros(0, dtype=np.int64), *ranks.descending[:place]])
        for above in _ABOVE:
            view = RelaxedView.of(replace(problem, weight=ranks.level_weight(place, above)), beside)
            relaxed = solve_relaxed(view.scaled(np.ones(len(problem.deployments))), time_limit_s=0.0, seed=self._seed)
            held = _own_weight(ranks, best, higher)
            if enough() or _own_weight(ranks, view.candidates(relaxed.chosen), higher) >= held * (1 - _SAME):
                break
        best, regrets = self._stretched(problem, cuts, view, relaxed, best, enough)
        return _Stage(best, view, relaxed, regrets, higher, above)

    def _stretched(
        self,
        problem: Problem,
        cuts: Sequence[Cut],
        view: RelaxedView,
        relaxed: RelaxedSolution,
        best: IntArray,
        enough: Callable[[], bool],
    ) -> tuple[IntArray, ReducedProfits]:
        """(the best choice of some rounds, regrets at the last prices)"""
        answer, stretch = relaxed, np.ones(len(problem.deployments))
        filled = capacity_scaling(problem, cuts)
        # Where not all are served, cost decides next to nothing, and takes as long as all else.
        short = relaxed.weight < relaxed.members.problem.total_weight * (1 - _SAME)
        known = objective_key(problem, best)
        for _ in range(_ROUNDS):
            chosen = local_search(problem, view.candidates(answer.chosen), cuts, should_stop=enough)
            found = objective_key(problem, chosen)
            if found > known:
                best, known = chosen, found
            if enough():
                break
            usage = problem.usage_of(chosen)
            stretch = replica_scaling(problem, usage.fractional_load, usage.replicas, stretch)
            answer = solve_relaxed(
                view.scaled(stretch, filled),
                time_limit_s=0.0,
                seed=self._seed,
                start=answer.prices,
                weight_only=short,
            )
        return best, ReducedProfits.at(answer.members.problem, DualObjective(1.0, answer.cost_counts), answer.prices)

    def _with_bounds(self, problem: Problem, stages: Sequence[_Stage], choice: Solution) -> Solution:
        """The choice with what the relaxation says of its weight, and of what that costs at least."""
        ranks, cost = problem.priority_levels, problem.cost_with_churn_usd_per_h(problem.usage_of(choice.chosen))
        by_prices = _weight_bound(ranks, choice.chosen, [stage.bound(ranks, choice.chosen) for stage in stages])
        most = max(min(by_prices, choice.weight_bound), problem.weight_of(choice.chosen))
        weight, least = ranks.own_weight_of(choice.chosen), choice.cost_bound_usd_per_h
        own_most = ranks.own_bound(choice.chosen, most)
        if weight > 0:
            view, fluid = stages[-1].view, stages[-1].relaxed.members.problem
            fluid, asked = replace(fluid, weight=ranks.user_weight[view.first]), DualObjective(0.0, 1.0, weight)
            search = DualSolver(fluid, np.random.default_rng(self._seed))
            prices = search.polish(asked, search.minimize_cost(weight, own_most))
            least = min(max(-dual_bound(fluid, asked, prices), least), cost)
        proved = weight >= own_most * (1 - _SAME) and cost - least <= _PROVED * cost
        return replace(choice, weight_bound=most, cost_bound_usd_per_h=least, optimal=choice.optimal or bool(proved))


def _own_weight(ranks: PriorityLevels, chosen: IntArray, queries: IntArray) -> float:
    """Of some queries, that is satisfied."""
    return float(ranks.user_weight[queries[chosen[queries] >= 0]].sum())


def _weight_bound(ranks: PriorityLevels, chosen: IntArray, bounds: Sequence[float]) -> float:
    """From what each rank can satisfy at most where as much of the higher ones is served."""
    served = [_own_weight(ranks, chosen, queries) for queries in ranks.descending]
    return ranks.bound(
        bounds=bounds,
        proved=[weight >= most * (1 - _SAME) for weight, most in zip(served, bounds, strict=True)],
        most=[float(ranks.user_weight[queries].sum()) for queries in ranks.descending],
    )


def _doubts(problem: Problem, view: RelaxedView, regrets: ReducedProfits, best: IntArray) -> IntArray:
    """Queries that have any usable candidate, those most in doubt first."""
    second: FloatArray = np.full(len(problem.queries), np.inf)
    for row, queries in enumerate(view.queries):
        options = regrets.reduced[row]
        have = np.where(best[queries] >= 0, best[queries] - problem.block[queries], len(options) - 1)
        # What the choice falls short of the best option counts less than any doubt: there it is surely worth a look.
        second[queries] = regrets.second[row] - 2 * (options.max() - options[have])
    order = np.argsort(second, kind="stable")
    return np.asarray(order[np.isfinite(second[order])], dtype=np.int64)


def _allowed(problem: Problem, best: IntArray, doubts: IntArray, usable: BoolArray) -> BoolArray:
    """(P,) all usable candidates of the queries in doubt, and what the others have."""
    allowed = np.zeros(len(usable), dtype=bool)
    allowed[best[best >= 0]] = True
    for query in doubts.tolist():
        span = slice(problem.block[query], problem.block[query + 1])
        allowed[span] = usable[span]
    return allowed


def _better(problem: Problem, known: Solution, found: Solution, everybody: bool) -> Solution:
    """The better choice of two with what is known of both; bounds among some candidates alone bound nothing."""
    safe = max(known.feasible_incumbent, found.feasible_incumbent, key=partial(objective_key, problem))
    weight = problem.weight_of(safe)
    # Bounds on cost are of one weight.
    least = known.cost_bound_usd_per_h if weight == problem.weight_of(known.feasible_incumbent) else 0.0
    if not everybody:
        return replace(known, chosen=safe, feasible_incumbent=safe, cost_bound_usd_per_h=least, optimal=False)
    most = max(min(known.weight_bound, found.weight_bound), weight)
    chosen = found.chosen if objective_key(problem, found.chosen) > objective_key(problem, safe) else safe
    least = max(least, found.cost_bound_usd_per_h) if problem.weight_of(found.chosen) == weight else least
    return Solution(chosen, safe, most, least, optimal=found.optimal)
