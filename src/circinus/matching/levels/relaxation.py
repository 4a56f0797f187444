"""Linear relaxation of a programme, and branch and cut on what may be in a better answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.levels.programme import LevelProgramme
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.solvers.highs import LpModel, LpRelaxation, LpSolution, MilpProgress, solve_milp

_MIN_WAIT_S, _WAIT_FACTOR = 0.3, 1.0
"""Branch and cut ends when it found nothing better for so long, and for this multiple of the time until its last find;
of processor time, as on a busy machine others take the rest."""
_COST_GAP = 1e-3
"""Gap of the cost at which branch and cut ends, relative to it."""
_COST_SHARE = 0.2
"""Part of a unit of weight for which the cost of all that fits counts."""


class LevelRelaxation:
    """Relaxation of a programme, with weight and cost in one objective."""

    def __init__(
        self, programme: LevelProgramme, levels: PriorityLevels, seed: int, left_s: Callable[[], float]
    ) -> None:
        """Prepare the objective.

        Args:
            programme: columns, modes and rows.
            levels: priorities of the queries.
            seed: of the solver.
            left_s: returns the time that is left.
        """
        self._programme, self._model, self._levels = programme, programme.model, levels
        self._seed, self._left_s = seed, left_s
        self.cost_factor = _COST_SHARE / max(programme.catalogue.max_cost_usd_per_h, 1e-9)
        self.weight = np.zeros(len(levels.rank))
        """(queries,) in units, so that all of lower levels weigh less than any of a higher one."""
        scale = 1.0
        for queries, weights in zip(levels.descending[::-1], levels.integer_weights[::-1], strict=True):
            self.weight[queries] = scale * weights.multiples
            scale += float(self.weight[queries].sum())
        self._query_of = np.array([column.query for column in programme.columns], dtype=np.int64)

    def solution(self) -> LpSolution | None:
        """Return the solution of the relaxation, or None if there was no time for it."""
        return self._solution(self._objective(self.weight))

    def option_prices(self, solution: LpSolution) -> FloatArray:
        """Return (options,) lower bounds of the reduced cost of all options of the catalogue."""
        prices = self._programme.prices(solution.row_duals, self.cost_factor)
        return np.asarray(prices - self.weight[self._programme.catalogue.query_of])

    def improved(self, start: FloatArray) -> FloatArray:
        """Return the best values that branch and cut finds: weight level by level, then cost."""
        values, cost = start, self._programme.cost_usd_per_h
        for queries, weights in zip(self._levels.descending, self._levels.integer_weights, strict=True):
            multiples = np.zeros(len(self.weight))
            multiples[queries] = weights.multiples
            values = self._improved(self._objective(multiples), values, gap=1.0 - 1.5 * _COST_SHARE)
            gain = self._gain(multiples)
            if used := np.flatnonzero(gain).tolist():
                self._model.add_row(np.array(used), gain[used], round(float(gain @ values)) - 0.5, np.inf)
        cost_usd_per_h = float(cost @ values)
        return self._improved(cost, values, gap=_COST_GAP * cost_usd_per_h) if cost_usd_per_h > 0 else values

    def _gain(self, multiples: FloatArray) -> FloatArray:
        """Return (columns of the model,) the weight of each."""
        gain = np.zeros(self._programme.size)
        gain[: len(self._query_of)] = multiples[self._query_of]
        return gain

    def _objective(self, multiples: FloatArray) -> FloatArray:
        return self.cost_factor * self._programme.cost_usd_per_h - self._gain(multiples)

    def _solution(self, objective: FloatArray) -> LpSolution | None:
        return LpRelaxation(self._model, objective, self._seed).solve(max(self._left_s(), 0.1))

    def _improved(self, objective: FloatArray, start: FloatArray, gap: float) -> FloatArray:
        """Return better values than the start, if there are any by more than a gap.

        By its reduced cost, a column may be in a better solution only if that is within what is to be gained.
        """
        relaxed = self._solution(objective)
        reach = math.inf if relaxed is None else float(objective @ start) - relaxed.bound
        if relaxed is None or reach <= gap or self._left_s() <= 0:
            return start
        kept = np.flatnonzero((relaxed.reduced_costs <= reach + 1e-9) | (start > 0))
        found, _ = solve_milp(
            _restricted(self._model, kept),
            objective[kept],
            start[kept],
            time_limit_s=max(self._left_s(), 0.1),
            gap=gap,
            seed=self._seed,
            should_stop=_StopRule(gap),
        )
        if found is None or float(objective[kept] @ found) >= float(objective @ start):
            return start
        values = np.zeros(len(start))
        values[kept] = found
        return values


class _StopRule:
    def __init__(self, min_gain: float) -> None:
        self._best, self._min_gain = math.inf, min_gain
        self._started_s = self._found_s = time.process_time()

    def __call__(self, progress: MilpProgress) -> bool:
        now_s = time.process_time()
        if progress.objective < self._best - self._min_gain:
            self._best, self._found_s = progress.objective, now_s
        until_s = self._found_s - self._started_s
        return math.isfinite(self._best) and now_s - self._found_s > max(_MIN_WAIT_S, _WAIT_FACTOR * until_s)


def _restricted(model: LpModel, kept: IntArray) -> LpModel:
    """Return a model with some of its columns; the others are 0."""
    position = np.full(len(model.upper), -1, dtype=np.int64)
    position[kept] = np.arange(len(kept))
    continuous = set(model.continuous)
    smaller = LpModel(
        upper=[model.upper[k] for k in kept.tolist()],
        continuous=[int(position[k]) for k in kept.tolist() if k in continuous],
        is_large=model.is_large,
    )
    rows = zip(model.row_columns, model.row_values, model.row_lower, model.row_upper, strict=True)
    for columns, values, lower, upper in rows:
        inside = position[columns] >= 0
        if inside.any() or lower > 0:
            smaller.add_row(position[columns[inside]], values[inside], lower, upper)
    return smaller
