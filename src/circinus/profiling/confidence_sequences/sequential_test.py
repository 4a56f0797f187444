"""Sequential test against thresholds, with work proportional to the new items only."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.confidence_sequences.covariate_bets import CovariateBets
from circinus.profiling.confidence_sequences.covariates import Covariates, normalize_scores
from circinus.profiling.confidence_sequences.prediction import predicted_means, predictions
from circinus.profiling.confidence_sequences.thresholds import ThresholdDecisions, full_population_decisions
from circinus.profiling.confidence_sequences.wealth_process import FRACTIONS, PARTS


class SequentialThresholdTest:
    """Incremental `threshold_decisions` of one configuration.

    The wealth of each threshold and fraction is stored, so that each analysis only processes new items.
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
        """Start without items; the arguments are those of `threshold_decisions`, with low < high.

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
        self._sides = tuple(_Side(population, side, covariates) for side in (unit_thresholds, 1.0 - unit_thresholds))
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
        unit = normalize_scores(grown[None], self._population, self._low, self._high)[0]
        self._scores = grown
        self._sides[0].extend(unit)
        self._sides[1].extend(1.0 - unit)

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
    def verdicts(self) -> ThresholdDecisions:
        """(1, q) current decisions."""
        if self.items == self._population:
            return full_population_decisions(self._scores[None], self._thresholds, self._high - self._low)
        above, below = (side.certainly_above(self._risk)[None] for side in self._sides)
        return ThresholdDecisions(above, below, exhausted=False)


class _Side:
    """Bets that a mean in [0, 1] is greater than each of q thresholds."""

    def __init__(self, population: int, thresholds: FloatArray, covariates: Covariates | None) -> None:
        self._population, self._thresholds = population, thresholds
        self._bets = None if covariates is None else CovariateBets(covariates)
        self._wealth = np.tile(PARTS[:, None], (1, len(thresholds)))
        self._max_wealth = np.ones(len(thresholds))
        self._sum, self._items = 0.0, 0

    def extend(self, scores: FloatArray) -> None:
        """Update the wealth with all scores, of which those beyond the old ones are new."""
        begin, end = self._items, len(scores)
        if begin == end:
            return
        new = scores[begin:]
        previous_sum = self._sum + np.cumsum(new) - new
        fair = (self._population * self._thresholds[:, None] - previous_sum) / (
            self._population - np.arange(begin, end)
        )
        payoff = np.where(fair > 0, new / np.maximum(fair, 1e-12), 1.0)
        side = np.ones((len(FRACTIONS), end - begin)) if self._bets is None else self._bets.extend(scores)
        with np.errstate(over="ignore", invalid="ignore"):  # as in `max_wealth`
            growth = (1.0 - FRACTIONS)[:, None, None] * side[:, None, :] + FRACTIONS[:, None, None] * payoff
            running = self._wealth[:, :, None] * np.cumprod(growth, axis=2)
            self._max_wealth = np.fmax(self._max_wealth, np.fmax.reduce(running.sum(axis=0), axis=1))
        self._wealth = running[:, :, -1]
        self._sum, self._items = self._sum + float(new.sum()), end

    def certainly_above(self, risk: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Return (q,) whether the mean certainly exceeds each threshold."""
        certain = self._sum / self._population > self._thresholds + 1e-12
        inside = (self._thresholds >= 0) & (self._thresholds < 1)
        return np.where(inside, (self._max_wealth >= 1 / risk) | certain, self._thresholds < 0)
