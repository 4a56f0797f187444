"""The exact solver: HiGHS on the mixed-integer programme, satisfied weight first, total cost second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.choice import Choice
from circinus.matching.cuts import Cut
from circinus.matching.greedy import greedy
from circinus.matching.problem import FloatArray, IntArray, Problem
from circinus.matching.programme import Programme, build

_WEIGHT_STEPS = 1_000_000
"""Weights that are no multiples of a common unit are rounded to this fraction of their sum."""

_COST_GAP = 1e-9
"""Relative distance from its bound at which a cost counts as proved least."""


@dataclass(frozen=True)
class WholeWeights:
    """Weights as multiples of one unit, so that sums of them compare exactly."""

    multiples: IntArray
    """(Q,)"""
    unit: float
    rounding: float
    """Most that the multiples of a choice can be away from its weight, in all."""

    @classmethod
    def of(cls, weight: FloatArray) -> WholeWeights:
        """Exact where the weights, as decimals, have a common unit above a millionth of their sum."""
        exact = [Fraction(str(float(w))) for w in weight]
        denominator = math.lcm(*(w.denominator for w in exact))
        unit = Fraction(reduce(math.gcd, (int(w * denominator) for w in exact), 0), denominator)
        total = sum(exact, Fraction(0))
        if unit and total / unit <= _WEIGHT_STEPS:
            return cls(np.array([int(w / unit) for w in exact], dtype=np.int64), float(unit), 0.0)
        step = float(total) / _WEIGHT_STEPS
        return cls(np.maximum(np.rint(weight / step).astype(np.int64), 1), step, step * len(exact))


class ExactSolver:
    """Branch and cut by HiGHS, one thread, fixed seed: the same problem gives the same choice unless time runs out."""

    def __init__(self, *, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seed = seed
        self._clock = clock

    def choose(self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float) -> Choice:
        """See `Solver`. The greedy choice starts the search and stands in when time runs out before a better one."""
        started = self._clock()
        best = greedy(problem, cuts)
        programme = build(problem, cuts)
        weights = WholeWeights.of(problem.weight)
        servable = np.isin(np.arange(len(problem.queries)), problem.query_of[programme.candidates])
        reachable = int(weights.multiples[servable].sum())
        if not reachable:
            return Choice(best, 0.0, 0.0, optimal=True)

        def left_s() -> float:
            return max(time_limit_s - (self._clock() - started), 0.05)

        if _whole(weights, best) < reachable:
            best, reachable = self._most_weight(programme, weights, best, reachable, left_s())
        proved = _whole(weights, best) == reachable
        best, cost_bound, least = self._least_cost(programme, weights, best, left_s())
        return Choice(
            chosen=best,
            weight_bound=min(reachable * weights.unit + weights.rounding, float(problem.weight[servable].sum())),
            cost_bound_usd_per_h=cost_bound,
            optimal=proved and least,
        )

    def _most_weight(
        self, programme: Programme, weights: WholeWeights, start: IntArray, reachable: int, time_limit_s: float
    ) -> tuple[IntArray, int]:
        objective = np.zeros(len(programme.upper))
        objective[: len(programme.candidates)] = -weights.multiples[programme.problem.query_of[programme.candidates]]
        # Sums of whole weights differ by one at least: anything closer is the same.
        values, bound = self._minimise(programme, objective, start, time_limit_s, absolute_gap=0.999)
        found = start if values is None else programme.choice_of(values)
        if _whole(weights, found) < _whole(weights, start):
            found = start
        return found, max(min(reachable, math.floor(-bound + 1e-6)), _whole(weights, found))

    def _least_cost(
        self, programme: Programme, weights: WholeWeights, start: IntArray, time_limit_s: float
    ) -> tuple[IntArray, float, bool]:
        problem = programme.problem
        cost = programme.cost_usd_per_h()
        known = problem.usage_of(start).cost_usd_per_h
        if known == 0.0:
            return start, 0.0, True
        held = _whole(weights, start)
        if held == weights.multiples[np.unique(problem.query_of[programme.candidates])].sum():
            programme.serve_all()
        columns = np.arange(len(programme.candidates))
        multiples = weights.multiples[problem.query_of[programme.candidates]].astype(np.float64)
        programme.add_row(columns, multiples, held - 0.5, np.inf)
        values, bound = self._minimise(programme, cost / known, start, time_limit_s, absolute_gap=_COST_GAP)
        found = start if values is None else programme.choice_of(values)
        usage = problem.usage_of(found)
        if _whole(weights, found) < held or usage.cost_usd_per_h > known:
            found, usage = start, problem.usage_of(start)
        floor = min(max(bound * known, 0.0), usage.cost_usd_per_h)
        return found, floor, usage.cost_usd_per_h - floor <= 10 * _COST_GAP * known

    def _minimise(
        self, programme: Programme, objective: FloatArray, start: IntArray, time_limit_s: float, absolute_gap: float
    ) -> tuple[FloatArray | None, float]:
        """(values of the columns or None, a bound that no solution goes below)."""
        import highspy

        solver = _silent_solver()
        for option, value in (
            ("threads", 1),
            ("random_seed", self._seed),
            ("time_limit", time_limit_s),
            ("mip_rel_gap", 0.0),
            ("mip_abs_gap", absolute_gap),
            ("mip_feasibility_tolerance", 1e-7),
            ("primal_feasibility_tolerance", 1e-7),
        ):
            solver.setOptionValue(option, value)
        solver.silent()
        solver.passModel(_highs_model(programme, objective))
        solution = highspy.HighsSolution()
        solution.col_value = list(programme.values_of(start, programme.problem.usage_of(start)))
        solver.setSolution(solution)
        solver.run()
        status, info = solver.getModelStatus(), solver.getInfo()
        kinds = highspy.HighsModelStatus
        if status not in (kinds.kOptimal, kinds.kTimeLimit, kinds.kInterrupt):
            raise PlanningError(f"matching: the solver stopped with status {solver.modelStatusToString(status)}")
        values = np.array(solver.getSolution().col_value)
        return (values if len(values) == len(objective) else None), float(info.mip_dual_bound)


def _whole(weights: WholeWeights, chosen: IntArray) -> int:
    return int(weights.multiples[chosen >= 0].sum())


def _silent_solver() -> Any:
    import highspy

    class Silent(highspy.Highs):  # type: ignore[misc]
        """The constructor enables callbacks, and the first call prints a banner: standard output is not HiGHS's."""

        def enableCallbacks(self) -> Any:  # noqa: N802  (overrides)
            self.silent()
            return super().enableCallbacks()

    return Silent()


def _highs_model(programme: Programme, objective: FloatArray) -> Any:
    import highspy

    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(programme.upper), len(programme.row_lower)
    model.col_cost_ = objective
    model.col_lower_ = np.zeros(len(programme.upper))
    model.col_upper_ = np.array(programme.upper)
    model.row_lower_, model.row_upper_ = np.array(programme.row_lower), np.array(programme.row_upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(c) for c in programme.row_columns])]).astype(np.int32)
    model.a_matrix_.index_ = np.concatenate([*programme.row_columns, np.array([], dtype=np.int32)])
    model.a_matrix_.value_ = np.concatenate([*programme.row_values, np.array([])])
    model.integrality_ = [highspy.HighsVarType.kInteger] * len(programme.upper)
    return model
