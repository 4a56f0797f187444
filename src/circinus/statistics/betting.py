"""Anytime-valid bounds of a mean by betting on scores: of finite populations, and of what a sample stands for."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray
from circinus.statistics.covariate_bets import covariate_bet_payoffs
from circinus.statistics.covariates import Covariates
from circinus.statistics.interval import Interval
from circinus.statistics.martingale import UNLIMITED, BettingMartingales
from circinus.statistics.prediction import predicted_means

_HALVINGS = 24
_MAX_SCORES = 2**14
"""Number of scores at a time, few enough that the wealth of all fractions stays in the cache."""


def betting_bounds(
    scores: FloatArray,
    population: int,
    *,
    risk: float,
    low: float = 0.0,
    high: float = 1.0,
    covariates: Covariates | None = None,
) -> tuple[Interval, ...]:
    """Return bounds of the means of populations from samples drawn without replacement.

    The bounds form an anytime-valid confidence sequence: the probability that the lower bound *ever* exceeds the mean,
    with an analysis after every item, is at most `risk`; likewise for the upper bound. They only tighten, and are the
    exact mean once all items were drawn. Every mean that `BettingMartingales` excluded at some time is excluded; the
    wealth decreases in the mean, so that the bounds are found by bisection, for many samples together.

    With `UNLIMITED` the population is what the items stand for, requests to come: the bounds keep a width when all
    items were drawn. Items are then a sample of it, independent within each kind of `covariates`, and the kinds have
    the shares w that they have among the items. The next item of the uniformly random order is of kind k with
    probability q_k, the share of k among the remaining items, whatever the scores so far; its score X has the mean
    mu_k. So X w_k / q_k has the mean of the population, less the part of kinds that are used up, at most. It is bet on
    as if it were the score, at the constant price m; likewise (1 - X) w_k / q_k for the upper bound. This is a
    supermartingale if the mean is at most m, however much weights vary; simulations favour neither a limit of weights
    nor an early end (decision 0021). Side bets stay fair, as the order does not depend on scores. Without covariates
    items are independent draws.

    Limits: the guarantee is for a uniformly random order. In an order that is balanced over strata (`stratified_order`)
    it holds in simulations and is not proved.

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k samples; 0 <= n.
        population: number of all items, at least n, or `UNLIMITED`.
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
    count, drawn = scores.shape
    bets = None if covariates is None else covariate_bet_payoffs(scores, covariates, population=population)
    excluded, possible = np.zeros(count), np.ones(count)
    if population != UNLIMITED:
        excluded = scores.sum(axis=1) / population
        possible = excluded + (population - drawn) / population
    elif covariates is not None:
        scores = scores * covariates.own_weights(0, drawn)
    rows = max(1, _MAX_SCORES // drawn)
    for part in (slice(begin, begin + rows) for begin in range(0, count, rows)):
        side_bets = None if bets is None else bets[:, part]
        for _ in range(_HALVINGS):
            midpoint = (excluded[part] + possible[part]) / 2
            martingales = BettingMartingales(population, midpoint)
            martingales.extend(scores[part], side_bets)
            is_excluded = martingales.max_wealth >= 1 / risk
            excluded[part] = np.where(is_excluded, midpoint, excluded[part])
            possible[part] = np.where(is_excluded, possible[part], midpoint)
    return excluded


def normalize_scores(scores: FloatArray, population: int, low: float, high: float) -> FloatArray:
    """Validate scores, and map [low, high] to [0, 1].

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k configurations.
        population: number of all items, at least n.
        low: minimum possible score.
        high: maximum possible score, greater than `low`.

    Raises:
        ValueError: a score is outside [low, high] (its row and column are named), there are more scores than items, or
            the range is empty.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must have the shape (configurations, items), got {scores.shape}")
    if scores.shape[1] > population:
        raise ValueError(f"found {scores.shape[1]} scores, expected at most the population's {population}")
    if not low <= high:
        raise ValueError(f"score range [{low}, {high}] is empty")
    outside = ~((scores >= low) & (scores <= high))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        score = scores[row, column]
        raise ValueError(f"score {score} of configuration {row}, item {column}, is outside [{low}, {high}]")
    if low == high:
        return np.zeros_like(scores)
    unit: FloatArray = np.clip((scores - low) / (high - low), 0.0, 1.0)
    return unit


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
