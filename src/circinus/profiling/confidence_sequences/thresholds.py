"""Decisions whether a mean is certainly above or below thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.profiling.confidence_sequences.covariate_bets import covariate_bet_payoffs
from circinus.profiling.confidence_sequences.covariates import Covariates, normalize_scores
from circinus.profiling.confidence_sequences.wealth_process import max_wealth

_ROUNDING = 1e-12
"""Rounding error of a mean of many equal scores, as a share of the range."""


@dataclass(frozen=True, eq=False)
class ThresholdDecisions:
    """Certain statements about the means of k configurations relative to q thresholds."""

    above: BoolArray
    """(k, q) whether the mean is certainly greater."""
    below: BoolArray
    """(k, q) whether the mean is certainly less. Both only if a guarantee failed."""
    exhausted: bool
    """True if all items were observed, so that a mean neither above nor below is equal."""

    @property
    def at_least(self) -> BoolArray:
        """(k, q) whether the mean is certainly at least the threshold."""
        return self.above | ~self.below if self.exhausted else self.above

    @property
    def at_most(self) -> BoolArray:
        """(k, q) whether the mean is certainly at most the threshold."""
        return self.below | ~self.above if self.exhausted else self.below

    @property
    def undecided(self) -> BoolArray:
        """(k, q) whether more items may decide."""
        return ~(self.at_least | self.at_most)


def threshold_decisions(
    scores: FloatArray,
    population: int,
    thresholds: FloatArray,
    *,
    risk: float,
    low: float = 0.0,
    high: float = 1.0,
    covariates: Covariates | None = None,
) -> ThresholdDecisions:
    """Decide for each mean whether it is certainly above or below each threshold.

    Equivalent to comparing thresholds with `betting_bounds`, without its bisection: the wealth of betting against a
    threshold decides. As this wealth decreases in the threshold, a wrongly excluded threshold implies that the true
    mean itself was excluded; so the risk covers any number of thresholds at once, including later ones.

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k configurations.
        population: number of all items, at least n.
        thresholds: (q,) thresholds in the units of the scores.
        risk: probability that any threshold of a configuration is ever wrongly decided to be exceeded; likewise
            undercut; 0 < risk < 1.
        low: minimum possible score.
        high: maximum possible score.
        covariates: see `betting_bounds`.

    Raises:
        ValueError: see `betting_bounds`.
    """
    unit = normalize_scores(scores, population, low, high)
    if covariates is not None:
        covariates.check(population)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if scores.shape[1] == population:
        return full_population_decisions(scores, thresholds, high - low)
    if low == high:
        ones = np.ones((len(scores), 1), dtype=bool)
        return ThresholdDecisions(ones & (low > thresholds), ones & (low < thresholds), exhausted=True)
    unit_thresholds = (thresholds - low) / (high - low)
    above = _certainly_above(unit, population, unit_thresholds, risk, covariates)
    below = _certainly_above(1.0 - unit, population, 1.0 - unit_thresholds, risk, covariates)
    return ThresholdDecisions(above, below, exhausted=False)


def full_population_decisions(scores: FloatArray, thresholds: FloatArray, width: float) -> ThresholdDecisions:
    """Return the decisions for (k, N) scores of all items; means within rounding of a threshold are equal to it."""
    beyond = scores.mean(axis=1)[:, None] - thresholds
    return ThresholdDecisions(beyond > _ROUNDING * width, beyond < -_ROUNDING * width, exhausted=True)


def _certainly_above(
    scores: FloatArray, population: int, thresholds: FloatArray, risk: float, covariates: Covariates | None
) -> BoolArray:
    """Return (k, q) whether means certainly exceed (q,) thresholds in the unit range, from (k, n) scores."""
    bets = None if covariates is None else covariate_bet_payoffs(scores, covariates)
    certain = scores.sum(axis=1) / population
    possible = certain + (population - scores.shape[1]) / population
    above = np.empty((len(scores), len(thresholds)), dtype=bool)
    for index, threshold in enumerate(thresholds):
        if threshold < 0 or threshold >= 1:
            above[:, index] = threshold < 0
            continue
        means = np.full(len(scores), threshold)
        above[:, index] = max_wealth(scores, population, means, bets) >= 1 / risk
        above[:, index] |= certain > threshold + 1e-12
        above[:, index] &= possible > threshold  # unlikely scores can exclude every mean that remains possible
    return above
