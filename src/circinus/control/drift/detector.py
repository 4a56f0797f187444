"""Noticing that a mean has moved, however long one watches: restarted bets, with a promise on false alarms.

An e-detector of the Shiryaev-Roberts kind (Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", New England Journal of Statistics in Data Science, 2024), made of the bets of
`circinus.profiling.sequences`. What may be put on new bets is earned by time, not by values, so that the promise is one
per hour whatever the traffic is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.sequences.capital import FRACTIONS, PARTS

FloatArray = NDArray[np.float64]

UP, DOWN = 0, 1
_LEAST_FAIR = 1e-6
"""Where nothing at all is allowed: a single value above 0 is then very much, and not infinitely much."""


@dataclass(frozen=True)
class Placed:
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
    def within(cls, value: float, least: float, most: float, shown: float, expected: float) -> Placed:
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

    capital: FloatArray
    """(2, f) of all bets that were begun at any time and went on until now, together."""
    best: FloatArray
    """(2, f) of the one that was begun at the best time: what it made of 1."""
    since_s: FloatArray
    """(2, f) that time."""
    values: FloatArray
    """(2, f) how many values came since."""
    total: FloatArray
    """(2, f) sum of those values, as they are spoken of."""
    expected: FloatArray
    """(2, f) sum of what was expected of them."""

    @classmethod
    def fresh(cls) -> Detector:
        """Owns nothing."""
        shape = (2, len(FRACTIONS))
        return cls(*(np.zeros(shape) for _ in range(6)))

    def after(self, seen: Placed, time_s: float, stakes: tuple[float, float]) -> Detector:
        """One more value was seen.

        Of the capital that was put on fraction c, the share c buys what the value is worth at the greatest price that
        is fair as long as nothing moved. So long expected capital grows by the stakes and no more, however values
        depend on each other.

        Args:
            seen: it.
            time_s: when it came.
            stakes: for either side what is put on new bets, fixed before the value was seen.
        """
        payoff = np.array([worth / max(fair, _LEAST_FAIR) for worth, fair in zip(seen.worth, seen.fair, strict=True)])
        growth = 1.0 - FRACTIONS + FRACTIONS * payoff[:, None]
        begins = self.best <= 1.0
        return replace(
            self,
            capital=(self.capital + np.array(stakes)[:, None]) * growth,
            best=np.where(begins, 1.0, self.best) * growth,
            since_s=np.where(begins, time_s, self.since_s),
            values=np.where(begins, 0.0, self.values) + 1.0,
            total=np.where(begins, 0.0, self.total) + seen.shown,
            expected=np.where(begins, 0.0, self.expected) + seen.expected,
        )

    def change(self, threshold: float) -> Change | None:
        """What is noticed.

        If one begins anew after each alarm, the expected number of false alarms until any time is at most the stakes
        until then over the threshold: each takes at least `threshold` out of a capital that is expected to be no more
        than all that was put in.

        Args:
            threshold: in the units of the stakes.
        """
        owned = self.capital * PARTS
        by_side = owned.sum(axis=1)
        side = int(by_side.argmax())
        if by_side[side] < threshold:
            return None
        bet = side, int(owned[side].argmax())
        count = float(self.values[bet])
        mean, expected = float(self.total[bet]) / count, float(self.expected[bet]) / count
        return Change(side, float(self.since_s[bet]), int(count), mean, expected)
