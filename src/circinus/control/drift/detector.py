"""Noticing that a mean has moved, however long one watches: restarted bets, with a promise on false alarms.

An e-detector of the Shiryaev-Roberts kind (Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", New England Journal of Statistics in Data Science, 2024), made of the bets of
`circinus.profiling.confidence_sequences`. What may be put on new bets is earned by time, not by values, so that the
promise is one per hour whatever the traffic is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.confidence_sequences.wealth_process import FRACTIONS, PARTS

UP, DOWN = 0, 1
_LEAST_FAIR = 1e-6
"""Where nothing at all is allowed: a single value above 0 is then very much, and not infinitely much."""
_KEPT = 1.0 - FRACTIONS
_BEST, _SINCE, _VALUES, _TOTAL, _EXPECTED = range(5)
"""Rows of `Detector.bets`."""


@dataclass(frozen=True)
class ScaledObservation:
    """A value that was seen, as either side takes it.

    `worth` is in [0, 1] and the greater the further the value lies on that side; as long as nothing moved, its mean is
    at most `fair`, whatever came before. Both are fixed before the value is seen, but for the value itself.
    """

    worth: tuple[float, float]
    fair: tuple[float, float]
    shown: float
    """The value as it is spoken of."""
    expected: float
    """What was expected, likewise."""

    @classmethod
    def within(cls, value: float, least: float, most: float, shown: float, expected: float) -> ScaledObservation:
        """A value in [0, 1] whose mean is between two bounds as long as nothing moved."""
        return cls((value, 1.0 - value), (most, 1.0 - least), shown, expected)


@dataclass(frozen=True)
class Change:
    """That a mean has moved."""

    side: int
    """`UP` or `DOWN`."""
    since_s: float
    """When it most likely did."""
    values: int
    """How many came since."""
    mean: float
    """Of those values, as they are spoken of."""
    expected: float
    """Mean of what was expected of them."""


@dataclass(frozen=True, eq=False)
class Detector:
    """What is owned, by side and by share of the capital that is bet each time."""

    wealth: FloatArray
    """(2, f) of all bets that were begun at any time and went on until now, together."""
    bets: FloatArray
    """(5, 2, f) of the one that was begun at the best time: what it made of 1, that time, how many values came since,
    the sum of those values as they are spoken of, and the sum of what was expected of them."""

    @classmethod
    def initial(cls) -> Detector:
        """Owns nothing."""
        return cls(np.zeros((2, len(FRACTIONS))), np.zeros((5, 2, len(FRACTIONS))))

    def updated(self, seen: ScaledObservation, time_s: float, stakes: tuple[float, float]) -> Detector:
        """One more value was seen.

        Of the capital that was put on fraction c, the share c buys what the value is worth at the greatest price that
        is fair as long as nothing moved. So long expected capital grows by the stakes and no more, however values
        depend on each other.

        Args:
            seen: it.
            time_s: when it came.
            stakes: for either side what is put on new bets, fixed before the value was seen.
        """
        payoff = [[worth / max(fair, _LEAST_FAIR)] for worth, fair in zip(seen.worth, seen.fair, strict=True)]
        growth = _KEPT + FRACTIONS * np.array(payoff)
        anew = np.array([1.0, time_s, 0.0, 0.0, 0.0])[:, None, None]
        bets = np.where(self.bets[_BEST] <= 1.0, anew, self.bets)
        bets[_BEST] *= growth
        bets[_VALUES:] += np.array([1.0, seen.shown, seen.expected])[:, None, None]
        return Detector((self.wealth + np.array(stakes)[:, None]) * growth, bets)

    def change(self, threshold: float) -> Change | None:
        """What is noticed.

        If one begins anew after each alarm, the expected number of false alarms until any time is at most the stakes
        until then over the threshold: each takes at least `threshold` out of a capital that is expected to be no more
        than all that was put in.

        Args:
            threshold: in the units of the stakes.
        """
        by_side = self.wealth @ PARTS
        side = int(by_side.argmax())
        if by_side[side] < threshold:
            return None
        bet = self.bets[:, side, int((self.wealth[side] * PARTS).argmax())].tolist()
        count = bet[_VALUES]
        return Change(side, bet[_SINCE], int(count), bet[_TOTAL] / count, bet[_EXPECTED] / count)
