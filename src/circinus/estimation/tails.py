"""What service times may be beyond those of few items: a percentile, and the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.percentile_items import percentile_sample_size

FloatArray = NDArray[np.floating]

_SHORTEST_S = 1e-9
"""Stands for no time at all where logarithms are taken."""
UNBOUNDED = 1e12
"""The factor, or the seconds, where no bound can be given: beyond any objective, and finite, as infinite times have no
difference."""


@dataclass(frozen=True)
class SmallSampleInflation:
    """The factors on measured times that keep a bound at its risk when items are few: of a percentile, and of the mean.

    That of a percentile: from `items_for_percentile` items on the slowest item measured is at or beyond it with
    probability 1 - risk, whatever the distribution, and the factor is 1. With fewer it is the upper tolerance limit of
    a log-normal distribution over the slowest item, where that is greater than 1 (Hahn & Meeker, Statistical Intervals,
    1991; tolerance factor by Natrella's approximation, Experimental Statistics, NBS Handbook 91, 1963).

    Limits: the shape is assumed. In simulation normal, gamma and log-normal times keep a risk of 0.05 from 8 items on;
    a rare slow kind of item that was not drawn is seen by no bound. Where times are of two very different kinds the
    factor is large, and only more items make it small: profiling measures such operators on as many as take none
    (`Footprints.uneven`).
    """

    percentile: float
    """Of 100."""
    risk: float

    def of(self, service_s: FloatArray) -> float:
        """The factor, at least 1, for (n,) seconds; `UNBOUNDED` where n is too small for any bound."""
        items = len(service_s)
        if items >= percentile_sample_size(self.percentile, self.risk):
            return 1.0
        factor = tolerance_factor(items, self.percentile / 100, self.risk)
        if math.isinf(factor):
            return UNBOUNDED
        logs = np.log(np.maximum(service_s, _SHORTEST_S))
        beyond = float(logs.mean() + factor * logs.std(ddof=1) - logs.max())
        return math.exp(min(max(0.0, beyond), math.log(UNBOUNDED)))

    def of_mean(self, values: FloatArray) -> float:
        """The factor, at least 1, on the mean of (n,) values beyond which the true mean is with probability `risk`.

        What requests wait for grows with how busy servers are, and so much faster than the mean of their service. The
        bound is Student's, as of a normal sample, with the quantile of Abramowitz & Stegun, Handbook of Mathematical
        Functions, 1964, 26.7.5, to the second term.

        Limits: of skewed values the mean of few is too low more often, in simulation up to three times as often as
        `risk` says with 8 log-normal ones, and hardly more often with 60.

        Args:
            values: (n,) seconds, or bytes.
        """
        items, z = len(values), max(0.0, NormalDist().inv_cdf(1 - self.risk))
        mean = float(values.mean())
        if z == 0 or mean <= 0:
            return 1.0
        if items < 2:
            return UNBOUNDED
        student = z + (z**3 + z) / (4 * (items - 1)) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * (items - 1) ** 2)
        return 1.0 + student * float(values.std(ddof=1)) / mean / math.sqrt(items)

    def inflate(self, service_s: FloatArray) -> FloatArray:
        """The seconds times the factor."""
        return np.asarray(service_s * self.of(service_s))


def tolerance_factor(items: int, share: float, risk: float) -> float:
    """How many standard deviations of a normal sample above its mean a share of the population surely ends.

    Args:
        items: size of the sample.
        share: of the population, between 0 and 1.
        risk: probability with which the limit may be too low.

    Returns:
        Infinity where the sample is too small for the approximation.
    """
    wanted, sure = NormalDist().inv_cdf(share), NormalDist().inv_cdf(1 - risk)
    spread = 1 - sure**2 / (2 * (items - 1)) if items > 1 else 0.0
    if spread <= 0:
        return math.inf
    return (wanted + math.sqrt(max(0.0, wanted**2 - spread * (wanted**2 - sure**2 / items)))) / spread
