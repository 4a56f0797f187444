"""On which side of thresholds a mean surely is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.profiling.confidence_sequences.covariate_bets import covariate_bet_payoffs
from circinus.profiling.confidence_sequences.covariates import Covariates, normalize_scores
from circinus.profiling.confidence_sequences.wealth_process import max_wealth

_ROUNDING = 1e-12
"""Share of the range by which a mean of many equal scores may be off."""


@dataclass(frozen=True, eq=False)
class ThresholdDecisions:
    """For k configurations and q thresholds, what is sure of the mean."""

    above: BoolArray
    """(k, q) whether the mean is surely greater."""
    below: BoolArray
    """(k, q) whether the mean is surely less. Both only where a promise failed."""
    exhausted: bool
    """Whether all items were seen, so that what is neither above nor below is equal."""

    @property
    def at_least(self) -> BoolArray:
        """(k, q) whether the mean is surely the threshold or greater."""
        return self.above | ~self.below if self.exhausted else self.above

    @property
    def at_most(self) -> BoolArray:
        """(k, q) whether the mean is surely the threshold or less."""
        return self.below | ~self.above if self.exhausted else self.below

    @property
    def undecided(self) -> BoolArray:
        """(k, q) whether more items may tell."""
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
    """Say of each mean on which side of each threshold it surely is.

    The same as comparing thresholds with `betting_bounds`, without its bisection: the capital that was won against a
    threshold says it. Because that capital falls in the threshold, whoever wrongly excludes some threshold has
    excluded the true mean itself; so the risk covers any number of thresholds at once, also those thought of later.

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k configurations.
        population: number of all items, at least n.
        thresholds: (q,) in the units of the scores.
        risk: probability that, ever, any threshold of a configuration is wrongly said to be exceeded; likewise
            undercut; 0 < risk < 1.
        low: least score that can occur.
        high: greatest score that can occur.
        covariates: as for `betting_bounds`.

    Raises:
        ValueError: as for `betting_bounds`.
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
    places = (thresholds - low) / (high - low)
    above = _surely_above(unit, population, places, risk, covariates)
    below = _surely_above(1.0 - unit, population, 1.0 - places, risk, covariates)
    return ThresholdDecisions(above, below, exhausted=False)


def full_population_decisions(scores: FloatArray, thresholds: FloatArray, width: float) -> ThresholdDecisions:
    """(k, N) scores of all items and (q,) thresholds; means within rounding of a threshold are equal to it."""
    beyond = scores.mean(axis=1)[:, None] - thresholds
    return ThresholdDecisions(beyond > _ROUNDING * width, beyond < -_ROUNDING * width, exhausted=True)


def _surely_above(
    scores: FloatArray, population: int, places: FloatArray, risk: float, covariates: Covariates | None
) -> BoolArray:
    """(k, n) scores and (q,) thresholds in the unit range -> (k, q)."""
    bets = None if covariates is None else covariate_bet_payoffs(scores, covariates)
    certain = scores.sum(axis=1) / population
    found = np.empty((len(scores), len(places)), dtype=bool)
    for number, place in enumerate(places):
        if place < 0 or place >= 1:
            found[:, number] = place < 0
            continue
        means = np.full(len(scores), place)
        found[:, number] = max_wealth(scores, population, means, bets) >= 1 / risk
        found[:, number] |= certain > place + 1e-12
    return found
