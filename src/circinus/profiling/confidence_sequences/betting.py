"""Anytime-valid bounds of a mean by betting on scores drawn without replacement."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.confidence_sequences.covariate_bets import covariate_bet_payoffs
from circinus.profiling.confidence_sequences.covariates import Covariates, normalize_scores
from circinus.profiling.confidence_sequences.prediction import predicted_means
from circinus.profiling.confidence_sequences.wealth_process import max_wealth
from circinus.profiling.interval import Interval

_HALVINGS = 24


def betting_bounds(
    scores: FloatArray,
    population: int,
    *,
    risk: float,
    low: float = 0.0,
    high: float = 1.0,
    covariates: Covariates | None = None,
) -> tuple[Interval, ...]:
    """Return bounds of the means of finite populations from samples drawn without replacement.

    The bounds form an anytime-valid confidence sequence: the probability that the lower bound *ever* exceeds the mean,
    with an analysis after every item, is at most `risk`; likewise for the upper bound. They only tighten, and are the
    exact mean once all items were drawn. Every mean that the wealth of `max_wealth` excluded at some time is excluded;
    the wealth decreases in the mean, so that the bounds are found by bisection, for all samples together.

    Limits: the guarantee is for a uniformly random order. In an order that is balanced over strata (`stratified_order`)
    it holds in simulations and is not proved.

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k samples; 0 <= n.
        population: number of all items, at least n.
        risk: probability that a side ever fails, 0 < risk < 1.
        low: minimum possible score.
        high: maximum possible score.
        covariates: covariates of all items: the first n in the order they were drawn, the others in any. Their
            selection must not depend on scores (see `covariate_bet_payoffs`).

    Returns:
        The estimated mean of each sample: the plain mean, or with covariates the mean of observed and predicted scores;
            the middle of the range for n = 0; clipped to the bounds.

    Raises:
        ValueError: a score is outside [low, high], there are more scores than items, or covariates are missing.
    """
    unit = normalize_scores(scores, population, low, high)
    if covariates is not None:
        covariates.check(population)
    drawn = scores.shape[1]
    if drawn == 0:
        return tuple(Interval((low + high) / 2, low, high) for _ in scores)
    if drawn == population or low == high:
        return tuple(Interval.exact(float(mean)) for mean in scores.mean(axis=1))
    lower = _lower_bounds(unit, population, risk, covariates)
    upper = 1.0 - _lower_bounds(1.0 - unit, population, risk, covariates)
    values = predicted_means(unit, covariates, population)
    return denormalize_bounds(values, lower, upper, low, high)


def _lower_bounds(scores: FloatArray, population: int, risk: float, covariates: Covariates | None) -> FloatArray:
    """Return (k,) the largest means excluded from below at some time, from (k, n) scores in [0, 1]."""
    drawn = scores.shape[1]
    bets = None if covariates is None else covariate_bet_payoffs(scores, covariates)
    certain: FloatArray = scores.sum(axis=1) / population
    excluded: FloatArray = certain
    possible: FloatArray = certain + (population - drawn) / population
    for _ in range(_HALVINGS):
        midpoint = (excluded + possible) / 2
        is_excluded = max_wealth(scores, population, midpoint, bets) >= 1 / risk
        excluded, possible = np.where(is_excluded, midpoint, excluded), np.where(is_excluded, possible, midpoint)
    return excluded


def denormalize_bounds(
    values: FloatArray, lower: FloatArray, upper: FloatArray, low: float, high: float
) -> tuple[Interval, ...]:
    """Return intervals in [low, high] from (k,) estimates and bounds in the unit range; clips estimates to bounds."""
    # The bounds cross with probability at most 2 risk; the interval between them is then the best estimate.
    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
    lower, upper = low + (high - low) * lower, high - (high - low) * (1.0 - upper)
    upper = np.maximum(lower, upper)
    clipped = np.clip(low + (high - low) * values, lower, upper)
    return tuple(Interval(float(v), float(a), float(b)) for v, a, b in zip(clipped, lower, upper, strict=True))
