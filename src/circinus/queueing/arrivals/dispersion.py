"""How bursty arrivals were that were seen, and whether Poisson arrivals could have looked like that."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from circinus.queueing.arrivals.process import FloatArray

FEWEST_WINDOWS = 10
"""Of fewer windows the variance says next to nothing."""
FEWEST_PER_WINDOW = 5
"""Arrivals in the mean of the shortest window: with fewer, chi-squared is no approximation (Cochran, 1954)."""


def window_counts(times_s: FloatArray, duration_s: float, window_s: float) -> NDArray[np.int64]:
    """(k,) arrivals in each of the whole windows that fit into the duration, one after the other.

    Args:
        times_s: (n,) in [0, `duration_s`).
        duration_s: how long arrivals were seen.
        window_s: length of a window.
    """
    windows = _windows(duration_s, window_s)
    places = (np.asarray(times_s) / window_s).astype(np.int64)
    return np.bincount(places[places < windows], minlength=windows)


def _windows(duration_s: float, window_s: float) -> int:
    """How many whole windows fit; rounding must not cost the last one."""
    return int(duration_s / window_s * (1 + 1e-12))


def empirical_idc(times_s: FloatArray, duration_s: float, windows_s: FloatArray) -> FloatArray:
    """The index of dispersion of counts as it was seen.

    Args:
        times_s: (n,) in [0, `duration_s`).
        duration_s: how long arrivals were seen.
        windows_s: (w,) lengths of windows.

    Returns:
        (w,) variance over mean of the counts in consecutive windows; NaN where fewer than `FEWEST_WINDOWS` fit or
        nothing arrived.
    """
    found = np.full(len(windows_s), np.nan)
    for position, window_s in enumerate(windows_s):
        counts = window_counts(times_s, duration_s, float(window_s))
        if len(counts) >= FEWEST_WINDOWS and counts.any():
            found[position] = counts.var(ddof=1) / counts.mean()
    return found


@dataclass(frozen=True)
class DispersionTest:
    """The index of dispersion over windows of many lengths, beside what it would be for Poisson arrivals.

    Given their number, the counts of Poisson arrivals in k equal windows are multinomial, so (k - 1) times the index
    is nearly chi-squared with k - 1 degrees of freedom (Cox and Lewis, 1966, chapter 6). The limits are its
    quantiles, by Wilson and Hilferty (1931). Shared among all windows and both sides (Bonferroni), the risk that
    Poisson arrivals leave the limits anywhere is at most `risk`; in truth it is less, since windows of several lengths
    see the same arrivals.
    """

    windows_s: FloatArray
    """(w,) ascending, each twice the one before; empty where there are too few arrivals to tell anything."""
    counts: NDArray[np.int64]
    """(w,) how many windows of each length there were."""
    index: FloatArray
    """(w,) as seen."""
    lower: FloatArray
    """(w,) the least that is not surprising for Poisson arrivals."""
    upper: FloatArray
    """(w,) the greatest."""

    @classmethod
    def of(cls, times_s: FloatArray, duration_s: float, risk: float) -> DispersionTest:
        """Of arrivals seen in [0, `duration_s`).

        The shortest windows have `FEWEST_PER_WINDOW` arrivals in the mean, of the longest there are `FEWEST_WINDOWS`.

        Args:
            times_s: (n,) in [0, `duration_s`), ascending.
            duration_s: how long arrivals were seen.
            risk: probability at most that Poisson arrivals leave the limits.
        """
        most = len(times_s) // FEWEST_PER_WINDOW
        lengths = int(np.log2(most / FEWEST_WINDOWS)) + 1 if most >= FEWEST_WINDOWS else 0
        shortest_s = FEWEST_PER_WINDOW * duration_s / max(len(times_s), 1)
        windows_s = np.array([shortest_s * 2.0**doubled for doubled in range(lengths)])
        counts = np.array([_windows(duration_s, float(window_s)) for window_s in windows_s], dtype=np.int64)
        index = empirical_idc(times_s, duration_s, windows_s)
        each = risk / (2 * max(lengths, 1))
        lower, upper = (chi2_quantile(counts - 1, p) / (counts - 1) for p in (each, 1 - each))
        return cls(windows_s, counts, index, lower, upper)

    @property
    def overdispersed(self) -> bool:
        """Whether more arrivals came together than those of a Poisson process do."""
        return bool((self.index > self.upper).any())

    @property
    def underdispersed(self) -> bool:
        """Whether arrivals were nowhere bursty, and somewhere more even than those of a Poisson process are."""
        return not self.overdispersed and bool((self.index < self.lower).any())


def chi2_quantile(freedom: NDArray[np.int64], probability: float) -> FloatArray:
    """Quantiles of chi-squared by Wilson and Hilferty (1931): within 5 % of the degrees from 9 degrees of freedom on,
    for probabilities from 1e-4 to 1 - 1e-4."""
    spread = 2.0 / (9.0 * freedom)
    return np.asarray(freedom * np.maximum(0.0, 1.0 - spread + NormalDist().inv_cdf(probability) * spread**0.5) ** 3)
