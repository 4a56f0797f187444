"""Sequential test whether a mean is above or below thresholds, with work proportional to the new items only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.statistics.betting import normalize_scores
from circinus.statistics.covariate_bets import covariate_bet_payoffs
from circinus.statistics.covariates import Covariates
from circinus.statistics.martingale import UNLIMITED, BettingMartingales
from circinus.statistics.prediction import predicted_means, predictions

_ROUNDING = 1e-12
"""Rounding error of a mean of many equal scores, as a share of the range."""


@dataclass(frozen=True, eq=False)
class ThresholdDecisions:
    """Certain statements about a mean relative to q thresholds."""

    above: BoolArray
    """(q,) whether the mean is certainly greater."""
    below: BoolArray
    """(q,) whether the mean is certainly less. Both only if a guarantee failed."""
    exhausted: bool
    """True if all items of a finite population were observed, so that a mean neither above nor below is equal."""

    @property
    def at_least(self) -> BoolArray:
        """(q,) whether the mean is certainly at least the threshold."""
        return self.above | ~self.below if self.exhausted else self.above

    @property
    def at_most(self) -> BoolArray:
        """(q,) whether the mean is certainly at most the threshold."""
        return self.below | ~self.above if self.exhausted else self.below


class SequentialThresholdTest:
    """Decisions whether the mean of a population is certainly above or below each threshold.

    Equivalent to comparing thresholds with `betting_bounds`, without its bisection: the wealth of betting against a
    threshold decides. As this wealth decreases in the threshold, a wrongly excluded threshold implies that the true
    mean itself was excluded; so the risk covers any number of thresholds at once.
    """

    def __init__(
        self,
        population: int,
        thresholds: FloatArray,
        *,
        risk: float,
        low: float = 0.0,
        high: float = 1.0,
        covariates: Covariates | None = None,
    ) -> None:
        """Start without items.

        Args:
            population: number of all items, or `UNLIMITED` for what the items stand for (`betting_bounds`).
            thresholds: (q,) thresholds in the units of the scores.
            risk: probability that any threshold is ever wrongly decided to be exceeded; likewise undercut; in (0, 1).
            low: minimum possible score.
            high: maximum possible score, greater than `low`.
            covariates: see `betting_bounds`.

        Raises:
            ValueError: covariates do not cover all items, or the range is empty.
        """
        if not low < high:
            raise ValueError(f"score range [{low}, {high}] is empty")
        if covariates is not None:
            covariates.check(population)
        self._population, self._risk, self._low, self._high = population, risk, low, high
        self._thresholds = np.asarray(thresholds, dtype=np.float64)
        unit_thresholds = (self._thresholds - low) / (high - low)
        self._unit_thresholds = unit_thresholds, 1.0 - unit_thresholds
        self._martingales = tuple(BettingMartingales(population, side) for side in self._unit_thresholds)
        self._covariates = covariates
        self._scores = np.zeros(0)

    @property
    def items(self) -> int:
        """Number of added items."""
        return len(self._scores)

    def extend(self, scores: FloatArray) -> None:
        """Add the (n,) scores of the next items.

        Raises:
            ValueError: a score is outside the range, or there are more scores than items.
        """
        grown = np.concatenate([self._scores, scores])
        unit = normalize_scores(grown[None], self._population, self._low, self._high)
        sides = np.concatenate([unit, 1.0 - unit])
        new, bets = sides[:, self.items :], None
        if self._covariates is not None:
            bets = covariate_bet_payoffs(sides, self._covariates, self.items, population=self._population)
            if self._population == UNLIMITED:
                new = new * self._covariates.own_weights(self.items, len(grown))
        for side, martingales in enumerate(self._martingales):
            own = slice(side, side + 1)
            martingales.extend(new[own], None if bets is None else bets[:, own])
        self._scores = grown

    @property
    def estimate(self) -> float:
        """Estimated mean of all items: observed scores, and predictions from covariates for the rest."""
        if not self.items:
            return (self._low + self._high) / 2
        mean = predicted_means(self._unit[None], self._covariates, self._population)[0]
        return self._low + (self._high - self._low) * float(mean)

    @property
    def residual_sum_of_squares(self) -> float:
        """Sum over the items of the squared difference between score and prediction."""
        if not self.items:
            return 0.0
        if self._covariates is None:
            predicted = self._unit.mean()
        else:
            predicted = predictions(self._unit[None], self._covariates)[0, self._covariates.kind[: self.items]]
        return float(((self._unit - predicted) ** 2).sum()) * (self._high - self._low) ** 2

    @property
    def _unit(self) -> FloatArray:
        return np.clip((self._scores - self._low) / (self._high - self._low), 0.0, 1.0)

    @property
    def decisions(self) -> ThresholdDecisions:
        """Current decisions."""
        if self.items == self._population:
            beyond, rounding = self._scores.mean() - self._thresholds, _ROUNDING * (self._high - self._low)
            return ThresholdDecisions(beyond > rounding, beyond < -rounding, exhausted=True)
        above, below = map(self._certainly_above, self._martingales, self._unit_thresholds)
        return ThresholdDecisions(above, below, exhausted=False)

    def _certainly_above(self, martingales: BettingMartingales, thresholds: FloatArray) -> BoolArray:
        """Return (q,) whether a mean in [0, 1] certainly exceeds each threshold."""
        certain = martingales.sums / self._population
        possible = certain + (self._population - self.items) / self._population
        above = (martingales.max_wealth >= 1 / self._risk) | (certain > thresholds + 1e-12)
        above &= possible > thresholds  # unlikely scores can exclude every mean that remains possible
        return np.where((thresholds >= 0) & (thresholds < 1), above, thresholds < 0)
