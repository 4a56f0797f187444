"""Newton's method for the prices: on the smoothed dual, at lower and lower temperatures.

The Hessian has the shape of an arrow: a site's own prices meet those of other sites only through the shared ones, so
that a step costs one small system a site and one for what all share. Prices stay at least 0 by the two-metric
projection of Bertsekas ("Projected Newton methods for optimization problems with simple constraints", SIAM J. Control
and Optimization 20, 1982): those that are 0 and pushed down are left out of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, SmoothedDual, smoothed_dual, value_scale
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem

_MOST_STEPS = 25
"""At one temperature; five are usual."""
_ENOUGH = 1e-4
"""Share of what its slope promises that a step must bring (Armijo)."""
_SHORTER = 0.3
_ALL_LENGTHS = tuple(_SHORTER**n for n in range(12))
_LENGTHS = _ALL_LENGTHS[:2]
"""Of a joint step, before every site takes its own."""
_TRIES = 6
"""Lengths of a site's step, and of one with a greater ridge."""
_STRAGGLERS = 0.01
"""Share of the sites that is not waited for."""
_PROGRESS = 0.01
"""Of the tolerance, as a share of the dual's value that is no progress."""
_BELIEVED = 0.01
"""Of the curvature that might be expected, the least that is believed."""
_OF_WEIGHT = 1e-4
"""The same of the price of weight, beside that: where nearly all that can be served is asked for, it is far beyond what
is usual, and nearly no query is undecided."""
_RIDGES = 1e-2, 1.0
"""Greater ones where no step of all prices helps: of resources that are taken in the same proportions, prices would go
far up and far down, and what is cut off at 0 makes the step a bad one (Levenberg and Marquardt)."""
_RIDGE = 1e-8
"""Of the scaled Hessian's diagonal of ones: resources that nobody takes have no curvature."""


def minimize_dual(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices, temperature: float, *, tolerance: float
) -> Prices:
    """Prices at which demand meets supply at a temperature.

    Args:
        problem: of any size.
        objective: what is maximised.
        prices: to begin with.
        temperature: of the smoothing.
        tolerance: share of any capacity by which demand at the prices may miss it.
    """
    weighing = objective.least_weight is not None
    here = smoothed_dual(problem, objective, prices, temperature)
    for _ in range(_MOST_STEPS):
        local, common = prices.local, _common(prices, weighing)
        if _balanced(here, local, common, objective, tolerance):
            break
        floor, little = _floor(problem, objective, prices), _PROGRESS * tolerance * abs(here.value)
        step = partial(_joint_step, problem, objective, prices, here, temperature, floor)
        best = step(_RIDGE, _LENGTHS if problem.local else _ALL_LENGTHS)
        joint = best is not None
        if best is None and problem.local:
            best = _each_site(problem, objective, prices, here, temperature, floor[0])
        for ridge in () if joint else _RIDGES:
            if best is not None and here.value - best[1].value > little:
                break
            other = step(ridge, _ALL_LENGTHS[:_TRIES])
            if other is not None and (best is None or other[1].value < best[1].value):
                best = other
        if best is None:
            break  # nothing but rounding is left
        gained, (prices, here) = here.value - best[1].value, best
        if gained <= little:
            break
    return prices


def _joint_step(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    here: SmoothedDual,
    temperature: float,
    floor: tuple[FloatArray, FloatArray],
    ridge: float,
    lengths: Sequence[float],
) -> tuple[Prices, SmoothedDual] | None:
    """A step of all prices, as long as it helps; None: no length does."""
    weighing = objective.least_weight is not None
    local, common = prices.local, _common(prices, weighing)
    step_local, step_common = _steps(here, local, common, floor, ridge)
    for length in lengths:
        to_local, to_common = (
            np.maximum(local + length * step_local, 0.0),
            np.maximum(common + length * step_common, 0.0),
        )
        tried = _prices(to_local, to_common, weighing)
        there = smoothed_dual(problem, objective, tried, temperature)
        promised = float((here.local_slope * (to_local - local)).sum() + here.common_slope @ (to_common - common))
        if there.value <= here.value + _ENOUGH * promised:
            return tried, there
    return None


def _each_site(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    here: SmoothedDual,
    temperature: float,
    floor: FloatArray,
) -> tuple[Prices, SmoothedDual] | None:
    """A step of every site's own prices, each as long as it helps that site; None: it helps none.

    As long as shared prices stay, sites do not meet; a joint step is as short as the worst of them needs it.
    """
    local = prices.local
    free = (local > 0) | (here.local_slope < 0)
    units = _units(np.diagonal(here.local_curvature, axis1=1, axis2=2), floor, free)
    inner = here.local_curvature * units[:, :, None] * units[:, None, :]
    _stabilise(inner, _RIDGE)
    step = -np.linalg.solve(inner, (here.local_slope * units)[:, :, None])[:, :, 0] * units
    length, best = np.ones(problem.sites), local.copy()
    waiting = np.abs(step).max(axis=1) > 0
    for _ in _ALL_LENGTHS[:_TRIES]:
        tried = np.where(waiting[:, None], np.maximum(local + length[:, None] * step, 0.0), best)
        there = smoothed_dual(problem, objective, replace(prices, local=tried), temperature, sites=waiting)
        promised = (here.local_slope * (tried - local)).sum(axis=1)
        good = waiting & (there.site_value <= here.site_value + _ENOUGH * promised)
        best[good] = tried[good]
        waiting &= ~good
        if waiting.sum() <= _STRAGGLERS * problem.sites:
            break
        length[waiting] *= _SHORTER
    if np.array_equal(best, local):
        return None
    moved = replace(prices, local=best)
    return moved, smoothed_dual(problem, objective, moved, temperature)


def _common(prices: Prices, weighing: bool) -> FloatArray:
    return np.append(prices.shared, prices.weight) if weighing else prices.shared


def _prices(local: FloatArray, common: FloatArray, weighing: bool) -> Prices:
    return Prices(local, common[:-1], float(common[-1])) if weighing else Prices(local, common)


def _balanced(
    here: SmoothedDual, local: FloatArray, common: FloatArray, objective: DualObjective, tolerance: float
) -> bool:
    """Whether demand hardly exceeds any capacity, and what is left of priced ones is worth as little."""
    over = -here.common_slope
    if objective.least_weight is not None:
        over[-1] /= max(objective.least_weight, 1e-9)
    excess = max(float(over.max(initial=0.0)), float((-here.local_slope).max(initial=0.0)))
    left = float((local * here.local_slope.clip(min=0)).sum() + common @ here.common_slope.clip(min=0))
    return excess <= tolerance and left <= tolerance * abs(here.value)


def _steps(
    here: SmoothedDual, local: FloatArray, common: FloatArray, floor: tuple[FloatArray, FloatArray], ridge: float
) -> tuple[FloatArray, FloatArray]:
    """(sites, local) and (G',) Newton's step over the prices that are free."""
    free_local = (local > 0) | (here.local_slope < 0)
    free_common = (common > 0) | (here.common_slope < 0)
    # Each price in units in which its own curvature is 1; of what is not free nothing but that is left.
    unit_local = _units(np.diagonal(here.local_curvature, axis1=1, axis2=2), floor[0], free_local)
    unit_common = _units(np.diagonal(here.common_curvature), floor[1], free_common)
    inner = here.local_curvature * unit_local[:, :, None] * unit_local[:, None, :]
    mixed = here.mixed_curvature * unit_local[:, :, None] * unit_common
    outer = here.common_curvature * unit_common[:, None] * unit_common
    _stabilise(inner, ridge)
    _stabilise(outer, ridge)
    slope_local, slope_common = here.local_slope * unit_local, here.common_slope * unit_common
    solved = np.linalg.solve(inner, np.concatenate([mixed, slope_local[:, :, None]], axis=2))
    schur = outer - np.einsum("slg,slh->gh", mixed, solved[:, :, :-1])
    rest = slope_common - np.einsum("slg,sl->g", mixed, solved[:, :, -1])
    step_common = -np.linalg.solve(schur, rest) if len(rest) else rest
    step_local = -(solved[:, :, -1] + solved[:, :, :-1] @ step_common)
    return step_local * unit_local, step_common * unit_common


def _floor(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> tuple[FloatArray, FloatArray]:
    """(sites, local) and (G',) the least curvature that is believed.

    Where at some prices nearly no query is undecided, the curvature is next to nothing, and a step by it would go far
    beyond where they decide otherwise. If their worths are spread as widely as they are large, the curvature of a price
    is the sum of the squares of what they take over their usual worth.
    """
    worth = value_scale(problem, replace(objective, weight=objective.weight + prices.weight))
    believed = _BELIEVED * problem.spread / worth
    believed[:, -1] *= _OF_WEIGHT
    last = problem.shared + (objective.least_weight is not None)
    return believed[:, : problem.local], believed[:, problem.local :].sum(axis=0)[:last]


def _units(curvature: FloatArray, floor: FloatArray, free: BoolArray) -> FloatArray:
    believed = np.maximum(curvature, floor)
    usable = free & (believed > 0)
    return np.where(usable, 1.0 / np.sqrt(np.where(usable, believed, 1.0)), 0.0)


def _stabilise(matrix: FloatArray, ridge: float) -> None:
    """The diagonal more than one by the ridge, also of what is not free or has no curvature."""
    diagonal = np.arange(matrix.shape[-1])
    matrix[..., diagonal, diagonal] = 1.0 + ridge
