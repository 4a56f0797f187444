"""Change detector of a mean with a guaranteed false-alarm rate, from restarted betting martingales.

The e-detector is of the Shiryaev-Roberts kind (Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", New England Journal of Statistics in Data Science, 2024), with the bets of
`circinus.statistics.martingale`. The stakes of new bets accrue with time, not with values, so that the
false-alarm rate is per hour at any traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.statistics.martingale import FRACTIONS, PARTS

UP, DOWN = 0, 1
_MIN_MEAN = 1e-6
"""Minimum of a maximum mean: a single positive value is then strong but finite evidence."""
_UNBET = 1.0 - FRACTIONS
_BEST, _START, _VALUES, _TOTAL, _EXPECTED = range(5)
"""Rows of `Detector.bets`."""


@dataclass(frozen=True)
class ScaledObservation:
    """Observed value as payoffs of the bets on an increase and on a decrease.

    `payoff` is in [0, 1] and grows with the deviation to the side. Without drift, its conditional mean is at most
    `max_mean_payoff`. Both functions are fixed before the value is observed.
    """

    payoff: tuple[float, float]
    max_mean_payoff: tuple[float, float]
    value: float
    """Value in its original unit."""
    expected: float
    """Expected value in its original unit."""

    @classmethod
    def within(cls, scaled: float, minimum: float, maximum: float, value: float, expected: float) -> ScaledObservation:
        """Return the observation of a value, scaled to [0, 1], whose mean lies within bounds without drift."""
        return cls((scaled, 1.0 - scaled), (maximum, 1.0 - minimum), value, expected)


@dataclass(frozen=True)
class Change:
    """Detected change of a mean."""

    side: int
    """`UP` or `DOWN`."""
    since_s: float
    """Most likely time of the change."""
    values: int
    """Number of values since the change."""
    mean: float
    """Mean since the change, in the original unit."""
    expected: float
    """Mean of the expected values since the change."""


@dataclass(frozen=True, eq=False)
class Detector:
    """Wealth of the betting martingales, by direction and bet fraction."""

    wealth: FloatArray
    """(2, f) total wealth of all bets started so far."""
    bets: FloatArray
    """(5, 2, f) best start per direction and fraction: wealth of a unit stake, start time, number of values, sum of the
    values and sum of the expected values, both in the original unit."""

    @classmethod
    def initial(cls) -> Detector:
        """Return the detector with zero wealth."""
        return cls(np.zeros((2, len(FRACTIONS))), np.zeros((5, 2, len(FRACTIONS))))

    def updated(self, observation: ScaledObservation, time_s: float, stakes: tuple[float, float]) -> Detector:
        """Return the detector after one more value.

        Of the wealth with bet fraction c, the share c buys the payoff at the maximum fair price. Without drift, the
        expected total wealth grows by at most the stakes, under arbitrary dependence of the values.

        Args:
            observation: observed value.
            time_s: time of the value.
            stakes: stakes of new bets on an increase and on a decrease, fixed before the value is observed.
        """
        price = np.maximum(observation.max_mean_payoff, _MIN_MEAN)
        growth = _UNBET + FRACTIONS * (np.array(observation.payoff) / price)[:, None]
        restarted = np.array([1.0, time_s, 0.0, 0.0, 0.0])[:, None, None]
        bets = np.where(self.bets[_BEST] <= 1.0, restarted, self.bets)
        bets[_BEST] *= growth
        bets[_VALUES:] += np.array([1.0, observation.value, observation.expected])[:, None, None]
        return Detector((self.wealth + np.array(stakes)[:, None]) * growth, bets)

    def change(self, threshold: float) -> Change | None:
        """Return the detected change, or None.

        With a restart after each alarm, the expected number of false alarms up to any time is at most the total stakes
        divided by the threshold, because each alarm consumes at least `threshold` of a wealth whose expectation is at
        most the total stakes.

        The threshold is in the unit of the stakes.
        """
        by_side = self.wealth @ PARTS
        side = int(by_side.argmax())
        if by_side[side] < threshold:
            return None
        bet = self.bets[:, side, int((self.wealth[side] * PARTS).argmax())].tolist()
        count = bet[_VALUES]
        return Change(side, bet[_START], int(count), bet[_TOTAL] / count, bet[_EXPECTED] / count)
