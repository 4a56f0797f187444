"""Verdicts on thresholds that are kept up as items come, each item being looked at once."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.confidence_sequences.covariate_bets import CovariateBets
from circinus.profiling.confidence_sequences.covariates import Covariates, normalize_scores
from circinus.profiling.confidence_sequences.prediction import predicted_means, predictions
from circinus.profiling.confidence_sequences.thresholds import ThresholdDecisions, full_population_decisions
from circinus.profiling.confidence_sequences.wealth_process import FRACTIONS, PARTS


class SequentialThresholdTest:
    """`threshold_verdicts` of one configuration, to which items are added.

    What was won so far is kept for each threshold and fraction, so that the work is that of the new items: somebody who
    looks often at thousands of items does not begin from the first one each time.
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
        """Begin with no item; the arguments are those of `threshold_verdicts`, with low < high.

        Raises:
            ValueError: covariates not of all items, or an empty range.
        """
        if not low < high:
            raise ValueError(f"found the range [{low}, {high}], expected a least score below the greatest")
        if covariates is not None:
            covariates.check(population)
        self._population, self._risk, self._low, self._high = population, risk, low, high
        self._thresholds = np.asarray(thresholds, dtype=np.float64)
        places = (self._thresholds - low) / (high - low)
        self._sides = tuple(_Side(population, p, covariates) for p in (places, 1.0 - places))
        self._covariates = covariates
        self._scores = np.zeros(0)

    @property
    def items(self) -> int:
        """How many were added."""
        return len(self._scores)

    def extend(self, scores: FloatArray) -> None:
        """Add the (n,) scores of the next items.

        Raises:
            ValueError: a score outside the range, or more scores than the population has.
        """
        grown = np.concatenate([self._scores, scores])
        unit = normalize_scores(grown[None], self._population, self._low, self._high)[0]
        self._scores = grown
        self._sides[0].extend(unit)
        self._sides[1].extend(1.0 - unit)

    @property
    def estimate(self) -> float:
        """Of the mean of all: what was seen as it is, and what is left as the covariates predict it."""
        if not self.items:
            return (self._low + self._high) / 2
        mean = predicted_means(self._unit[None], self._covariates, self._population)[0]
        return self._low + (self._high - self._low) * float(mean)

    @property
    def residual_sum_of_squares(self) -> float:
        """Sum over the items of the squared distance of the score from what the covariates predict of it."""
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
        """(1, q) what is sure now."""
        if self.items == self._population:
            return full_population_decisions(self._scores[None], self._thresholds, self._high - self._low)
        above, below = (side.surely_above(self._risk)[None] for side in self._sides)
        return ThresholdDecisions(above, below, exhausted=False)


class _Side:
    """Bets that a mean in [0, 1] is greater than each of q places."""

    def __init__(self, population: int, places: FloatArray, covariates: Covariates | None) -> None:
        self._population, self._places = population, places
        self._bets = None if covariates is None else CovariateBets(covariates)
        self._capital = np.tile(PARTS[:, None], (1, len(places)))
        self._greatest = np.ones(len(places))
        self._sum, self._items = 0.0, 0

    def extend(self, scores: FloatArray) -> None:
        """Take note of all scores, of which those beyond the ones known are new."""
        begin, end = self._items, len(scores)
        if begin == end:
            return
        new = scores[begin:]
        before = self._sum + np.cumsum(new) - new
        fair = (self._population * self._places[:, None] - before) / (self._population - np.arange(begin, end))
        payoff = np.where(fair > 0, new / np.maximum(fair, 1e-12), 1.0)
        side = np.ones((len(FRACTIONS), end - begin)) if self._bets is None else self._bets.extend(scores)
        with np.errstate(over="ignore", invalid="ignore"):  # as in `greatest_capital`
            growth = (1.0 - FRACTIONS)[:, None, None] * side[:, None, :] + FRACTIONS[:, None, None] * payoff
            running = self._capital[:, :, None] * np.cumprod(growth, axis=2)
            self._greatest = np.fmax(self._greatest, np.fmax.reduce(running.sum(axis=0), axis=1))
        self._capital = running[:, :, -1]
        self._sum, self._items = self._sum + float(new.sum()), end

    def surely_above(self, risk: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """(q,)"""
        certain = self._sum / self._population > self._places + 1e-12
        inside = (self._places >= 0) & (self._places < 1)
        return np.where(inside, (self._greatest >= 1 / risk) | certain, self._places < 0)
