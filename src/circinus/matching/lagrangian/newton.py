"""Newton's method on the smoothed dual, at decreasing temperatures.

The Hessian has the shape of an arrow: a site's own prices interact with those of other sites only through the shared
ones, so that a step costs one small system per site and one for the shared prices. Prices stay at least 0 by the
two-metric projection of Bertsekas ("Projected Newton methods for optimization problems with simple constraints", SIAM
J. Control and Optimization 20, 1982): prices at 0 with a positive slope are excluded from the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, SmoothedDual, smoothed_dual, value_scale
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem

_MAX_STEPS = 25
"""Maximum number of steps at one temperature; five are usual."""
_ARMIJO_SHARE = 1e-4
"""Share of the decrease predicted by the slope that a step must achieve (Armijo)."""
_SHRINK_FACTOR = 0.3
_ALL_LENGTHS = tuple(_SHRINK_FACTOR**n for n in range(12))
_JOINT_LENGTHS = _ALL_LENGTHS[:2]
"""Lengths of a joint step, before every site takes its own."""
_MAX_TRIES = 6
"""Maximum number of lengths of a site's step, and of a step with a larger ridge."""
_STRAGGLERS = 0.01
"""Share of the sites whose step may remain undecided."""
_PROGRESS = 0.01
"""Minimum progress of a step, relative to the tolerance and the dual's value."""
_MIN_CURVATURE_SHARE = 0.01
"""Lower limit of a curvature, as a share of its estimate."""
_WEIGHT_CURVATURE_SHARE = 1e-4
"""Additional factor for the price of weight, which is far beyond its usual range if nearly all servable weight is
required, when nearly no query is undecided."""
_LARGE_RIDGES = 1e-2, 1.0
"""Ridges for which a step is retried if a joint one fails: with proportional usage of resources, prices would diverge
in opposite directions, and clipping at 0 spoils the step (Levenberg and Marquardt)."""
_RIDGE = 1e-8
"""Ridge on the unit diagonal of the scaled Hessian, as unused resources have no curvature."""


def minimize_dual(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices, temperature: float, *, tolerance: float
) -> Prices:
    """Return prices at which demand meets supply at a temperature.

    Args:
        problem: of any size.
        objective: to be maximized.
        prices: to start from.
        temperature: of the smoothing.
        tolerance: share of any capacity by which demand at the prices may miss it.
    """
    has_min_weight = objective.min_weight is not None
    current = smoothed_dual(problem, objective, prices, temperature)
    for _ in range(_MAX_STEPS):
        local, common = prices.local, _common(prices, has_min_weight)
        if _balanced(current, local, common, objective, tolerance):
            break
        floor, min_progress = _min_curvature(problem, objective, prices), _PROGRESS * tolerance * abs(current.value)
        step = partial(_joint_step, problem, objective, prices, current, temperature, floor)
        best = step(_RIDGE, _JOINT_LENGTHS if problem.local else _ALL_LENGTHS)
        joint = best is not None
        if best is None and problem.local:
            best = _site_steps(problem, objective, prices, current, temperature, floor[0])
        for ridge in () if joint else _LARGE_RIDGES:
            if best is not None and current.value - best[1].value > min_progress:
                break
            other = step(ridge, _ALL_LENGTHS[:_MAX_TRIES])
            if other is not None and (best is None or other[1].value < best[1].value):
                best = other
        if best is None:
            break  # only rounding errors remain
        gain, (prices, current) = current.value - best[1].value, best
        if gain <= min_progress:
            break
    return prices


def _joint_step(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    current: SmoothedDual,
    temperature: float,
    floor: tuple[FloatArray, FloatArray],
    ridge: float,
    lengths: Sequence[float],
) -> tuple[Prices, SmoothedDual] | None:
    """Return a step of all prices, at the first length that helps, or None."""
    has_min_weight = objective.min_weight is not None
    local, common = prices.local, _common(prices, has_min_weight)
    step_local, step_common = _steps(current, local, common, floor, ridge)
    for length in lengths:
        to_local, to_common = (
            np.maximum(local + length * step_local, 0.0),
            np.maximum(common + length * step_common, 0.0),
        )
        trial = _prices(to_local, to_common, has_min_weight)
        trial_dual = smoothed_dual(problem, objective, trial, temperature)
        predicted = float(
            (current.local_slope * (to_local - local)).sum() + current.common_slope @ (to_common - common)
        )
        if trial_dual.value <= current.value + _ARMIJO_SHARE * predicted:
            return trial, trial_dual
    return None


def _site_steps(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    current: SmoothedDual,
    temperature: float,
    floor: FloatArray,
) -> tuple[Prices, SmoothedDual] | None:
    """Return a step of every site's own prices, each at a length that helps the site, or None if it helps none.

    Sites are independent while shared prices stay; a joint step is limited by the worst site.
    """
    local = prices.local
    free = (local > 0) | (current.local_slope < 0)
    units = _units(np.diagonal(current.local_curvature, axis1=1, axis2=2), floor, free)
    inner = current.local_curvature * units[:, :, None] * units[:, None, :]
    _stabilise(inner, _RIDGE)
    step = -np.linalg.solve(inner, (current.local_slope * units)[:, :, None])[:, :, 0] * units
    length, best = np.ones(problem.sites), local.copy()
    waiting = np.abs(step).max(axis=1) > 0
    for _ in _ALL_LENGTHS[:_MAX_TRIES]:
        trial = np.where(waiting[:, None], np.maximum(local + length[:, None] * step, 0.0), best)
        trial_dual = smoothed_dual(problem, objective, replace(prices, local=trial), temperature, sites=waiting)
        predicted = (current.local_slope * (trial - local)).sum(axis=1)
        accepted = waiting & (trial_dual.site_value <= current.site_value + _ARMIJO_SHARE * predicted)
        best[accepted] = trial[accepted]
        waiting &= ~accepted
        if waiting.sum() <= _STRAGGLERS * problem.sites:
            break
        length[waiting] *= _SHRINK_FACTOR
    if np.array_equal(best, local):
        return None
    moved = replace(prices, local=best)
    return moved, smoothed_dual(problem, objective, moved, temperature)


def _common(prices: Prices, has_min_weight: bool) -> FloatArray:
    return np.append(prices.shared, prices.weight) if has_min_weight else prices.shared


def _prices(local: FloatArray, common: FloatArray, has_min_weight: bool) -> Prices:
    return Prices(local, common[:-1], float(common[-1])) if has_min_weight else Prices(local, common)


def _balanced(
    current: SmoothedDual, local: FloatArray, common: FloatArray, objective: DualObjective, tolerance: float
) -> bool:
    """Return whether demand hardly exceeds any capacity, and unused priced capacity has little value."""
    over = -current.common_slope
    if objective.min_weight is not None:
        over[-1] /= max(objective.min_weight, 1e-9)
    excess = max(float(over.max(initial=0.0)), float((-current.local_slope).max(initial=0.0)))
    unused_value = float((local * current.local_slope.clip(min=0)).sum() + common @ current.common_slope.clip(min=0))
    return excess <= tolerance and unused_value <= tolerance * abs(current.value)


def _steps(
    current: SmoothedDual, local: FloatArray, common: FloatArray, floor: tuple[FloatArray, FloatArray], ridge: float
) -> tuple[FloatArray, FloatArray]:
    """Return (sites, local) and (G',) the Newton step over the free prices."""
    free_local = (local > 0) | (current.local_slope < 0)
    free_common = (common > 0) | (current.common_slope < 0)
    # Scale each price to a curvature of 1; rows of prices that are not free become unit rows.
    unit_local = _units(np.diagonal(current.local_curvature, axis1=1, axis2=2), floor[0], free_local)
    unit_common = _units(np.diagonal(current.common_curvature), floor[1], free_common)
    inner = current.local_curvature * unit_local[:, :, None] * unit_local[:, None, :]
    mixed = current.mixed_curvature * unit_local[:, :, None] * unit_common
    outer = current.common_curvature * unit_common[:, None] * unit_common
    _stabilise(inner, ridge)
    _stabilise(outer, ridge)
    slope_local, slope_common = current.local_slope * unit_local, current.common_slope * unit_common
    solved = np.linalg.solve(inner, np.concatenate([mixed, slope_local[:, :, None]], axis=2))
    schur = outer - np.einsum("slg,slh->gh", mixed, solved[:, :, :-1])
    remainder = slope_common - np.einsum("slg,sl->g", mixed, solved[:, :, -1])
    step_common = -np.linalg.solve(schur, remainder) if len(remainder) else remainder
    step_local = -(solved[:, :, -1] + solved[:, :, :-1] @ step_common)
    return step_local * unit_local, step_common * unit_common


def _min_curvature(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> tuple[FloatArray, FloatArray]:
    """Return (sites, local) and (G',) lower limits of curvatures.

    At prices where nearly no query is undecided, the curvature is nearly 0, and its step would overshoot. If values
    vary about as widely as their scale, the curvature of a price is the sum of squared usages over the scale.
    """
    scale = value_scale(problem, replace(objective, weight=objective.weight + prices.weight))
    curvature = _MIN_CURVATURE_SHARE * problem.squared_usage / scale
    curvature[:, -1] *= _WEIGHT_CURVATURE_SHARE
    last = problem.shared + (objective.min_weight is not None)
    return curvature[:, : problem.local], curvature[:, problem.local :].sum(axis=0)[:last]


def _units(curvature: FloatArray, floor: FloatArray, free: BoolArray) -> FloatArray:
    bounded = np.maximum(curvature, floor)
    usable = free & (bounded > 0)
    return np.where(usable, 1.0 / np.sqrt(np.where(usable, bounded, 1.0)), 0.0)


def _stabilise(matrix: FloatArray, ridge: float) -> None:
    """Set the diagonal to one plus the ridge, also for prices that are not free or have no curvature."""
    diagonal = np.arange(matrix.shape[-1])
    matrix[..., diagonal, diagonal] = 1.0 + ridge
