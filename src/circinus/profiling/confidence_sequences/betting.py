"""Bounds for a mean that hold however often one looks: betting on scores drawn without replacement."""

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
    """Bound the means of finite populations by samples drawn without replacement.

    The bounds form an anytime-valid confidence sequence: the probability that the lower one *ever* exceeds the mean,
    looking after every item, is at most `risk`; likewise the upper one. They only ever tighten, and are the exact
    mean once all items were seen. Every mean that the capital of `greatest_capital` excluded at some time is out;
    the capital falls in the mean, so that the bound is found by bisection, all samples at once.

    Limits: the promise is for a uniformly random order. In an order that is balanced over strata (`stratified_order`)
    it holds in simulations and is not proved.

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k samples; 0 <= n.
        population: number of all items, at least n.
        risk: probability with which each side may fail, 0 < risk < 1.
        low: least score that can occur.
        high: greatest score that can occur.
        covariates: what is known of every item: the first n in the order they were drawn, the others in any. Which
            covariates are used must not depend on scores (see `side_bets`).

    Returns:
        For each sample its estimated mean: the plain mean, or with covariates the mean of what was seen and of
        predictions for what was not; the middle of the range for n = 0; moved to the nearer bound if outside.

    Raises:
        ValueError: a score outside [low, high], more scores than the population has, or covariates not of all items.
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
    """(k, n) scores in [0, 1] -> (k,) greatest means that were excluded from below at some time."""
    drawn = scores.shape[1]
    bets = None if covariates is None else covariate_bet_payoffs(scores, covariates)
    certain: FloatArray = scores.sum(axis=1) / population
    excluded: FloatArray = certain
    possible: FloatArray = certain + (population - drawn) / population
    for _ in range(_HALVINGS):
        middle = (excluded + possible) / 2
        gone = max_wealth(scores, population, middle, bets) >= 1 / risk
        excluded, possible = np.where(gone, middle, excluded), np.where(gone, possible, middle)
    return excluded


def denormalize_bounds(
    values: FloatArray, lower: FloatArray, upper: FloatArray, low: float, high: float
) -> tuple[Interval, ...]:
    """Estimates and bounds (k,) in the unit range -> the same in [low, high], estimates within their bounds."""
    # Both sides fail together with probability at most 2 risk; the interval between them is then the best there is.
    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
    lower, upper = low + (high - low) * lower, high - (high - low) * (1.0 - upper)
    upper = np.maximum(lower, upper)
    moved = np.clip(low + (high - low) * values, lower, upper)
    return tuple(Interval(float(v), float(a), float(b)) for v, a, b in zip(moved, lower, upper, strict=True))
