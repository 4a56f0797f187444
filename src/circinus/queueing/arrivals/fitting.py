"""The arrival process that explains what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.queueing.arrivals.markov_modulated import MarkovModulatedPoisson, idc_saturation
from circinus.queueing.arrivals.process import ArrivalProcess, Periodic, Poisson

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


RISK = 0.01
"""Of not taking Poisson arrivals for Poisson."""

_PHASES = 8
"""Phases at which windows of whole periods begin."""
_STEPS = 33
"""Values of each of two numbers that are tried in a round of the fit of bursts."""
_ROUNDS = 5
_SHORTEST = 1 / 8
"""The shortest memory of bursts that is tried, in shortest windows: of shorter ones windows see the sum alone."""
_GREATEST = 100.0
"""The greatest limit of the index that is tried, in greatest indices seen."""


def fit_arrival_process(times_s: FloatArray, duration_s: float | None = None, *, risk: float = RISK) -> ArrivalProcess:
    """What kind of arrivals was seen: Poisson unless that is refuted, else bursts or evenly spaced ones.

    `DispersionTest` decides, over windows of 5 arrivals in the mean up to a tenth of the time. Bursts are fitted by
    their rate, by the index of dispersion over all windows (least squares of logarithms, weighted by the number of
    windows), which gives the memory and the strength of the bursts, and by the skewness of the counts in windows about
    as long as the memory, which gives the share of time that is spent in bursts (Heffes and Lucantoni, 1986, match the
    same moments). Arrivals are taken for evenly spaced where counts vary no more than those of the greatest jitter do;
    the period is fitted to their times in order (least squares), and the jitter to what is left.

    Limits: with fewer than 50 arrivals the answer is always Poisson, and weak bursts need many more. Bursts that are
    all over within a few arrivals, and those longer than a tenth of the time seen, are seen in part only. The skewness
    needs tens of bursts: with fewer, rate and index hold and the share of time in bursts is rough. A trend or a daily
    course looks like bursts. What is more even than Poisson arrivals and yet no periodic arrivals with a jitter of up
    to half a period (two cameras together, lost frames) is taken for Poisson, which promises less.

    Args:
        times_s: (n,) ascending moments at which requests arrived, n >= 2 and not all the same.
        duration_s: how long arrivals were seen, from 0 on; None: from the first to the last of them.
        risk: probability at most that Poisson arrivals are not taken for such.

    Raises:
        PlanningError: fewer than two different times; times that do not ascend or are not in [0, `duration_s`].
    """
    times = np.asarray(times_s, dtype=np.float64)
    _check(times, duration_s)
    seen, seen_s = times, duration_s
    if seen_s is None:
        # Between the first and the last, which say how long it was, the others of a Poisson process are uniform.
        seen, seen_s = times[1:-1] - times[0], float(times[-1] - times[0])
    test = DispersionTest.of(seen, seen_s, risk)
    rate_per_s = len(times) / duration_s if duration_s is not None else (len(times) - 1) / seen_s
    if test.overdispersed:
        return _bursts(seen, seen_s, test, rate_per_s)
    evenly = _evenly(times, test, risk) if test.underdispersed else None
    return evenly if evenly is not None else Poisson(rate_per_s)


def _check(times: FloatArray, duration_s: float | None) -> None:
    if len(times) < 2 or times[0] == times[-1]:
        raise PlanningError(f"found {len(np.unique(times))} different times of arrivals, expected two at least")
    if not (np.isfinite(times).all() and (np.diff(times) >= 0).all()):
        raise PlanningError("found times of arrivals that do not ascend, expected finite ones in order of time")
    if duration_s is not None and not 0 <= times[0] <= times[-1] <= duration_s:
        raise PlanningError(
            f"found arrivals from {times[0]:g} s to {times[-1]:g} s, expected them between 0 and the {duration_s:g} s "
            f"in which they were seen"
        )


def _evenly(times: FloatArray, test: DispersionTest, risk: float) -> Periodic | None:
    """Evenly spaced arrivals as even as these; None where even the greatest jitter makes counts vary too little.

    In windows of whole periods the variance of the counts is a third of the share of the period that the jitter
    spreads an arrival over, whatever their length: in the mean over all phases, of which a few stand for all.
    """
    order = np.arange(len(times)) - (len(times) - 1) / 2
    period_s = float(order @ times / (order @ order))
    moved = times - float(times.mean()) - period_s * order
    begins_s = times - times[0] + period_s * (np.arange(_PHASES) + 0.5)[:, None] / _PHASES
    for window in range(len(test.windows_s)):
        length_s = period_s * FEWEST_PER_WINDOW * 2.0**window
        each = [window_counts(begin_s, period_s * len(times), length_s) for begin_s in begins_s]
        freedom = np.array([len(each[0]) - 1])
        greatest = float(chi2_quantile(freedom, 1 - risk / len(test.windows_s))[0]) / freedom[0] / 3
        if np.mean([counts.var(ddof=1) for counts in each]) > greatest:
            return None
    # The variance of a uniform jitter is a third of the square of the most that it can be.
    jitter_s = min(period_s / 2, (3.0 * float(moved.var())) ** 0.5)
    return Periodic(1.0 / period_s, jitter_s)


def _bursts(seen: FloatArray, seen_s: float, test: DispersionTest, rate_per_s: float) -> MarkovModulatedPoisson:
    """Two phases with this rate, index of dispersion and skewness, as far as two phases can have them."""
    excess, memory_s = _excess_and_memory(test)
    variance = excess * rate_per_s / (2 * memory_s)  # of the rate, from the limit of the index
    window_s = float(test.windows_s[np.abs(np.log(test.windows_s / memory_s)).argmin()])
    counts = window_counts(seen, seen_s, window_s)
    third_moment = _third_moment_of_rate(counts, window_s, memory_s)
    # No burst is shorter than the windows see.
    return MarkovModulatedPoisson.of_moments(rate_per_s, variance, third_moment, memory_s, least_share=1 / len(counts))


def _excess_and_memory(test: DispersionTest) -> tuple[float, float]:
    """The limit of the index less 1, and the memory in seconds, whose index is nearest to that of `test`.

    A grid around the best is made finer from round to round: the sum of squares has one valley, yet a curved one.
    """
    shortest_s, longest_s = float(test.windows_s[0]) * _SHORTEST, float(test.windows_s[-1])
    seen = np.log(np.maximum(test.index, 1e-3))
    limits = np.log([[0.01, _GREATEST * float(test.index.max())], [shortest_s, longest_s]])
    low, high = limits[:, 0], limits[:, 1]
    best = low
    for _ in range(_ROUNDS):
        excess, memory = np.linspace(low[0], high[0], _STEPS), np.linspace(low[1], high[1], _STEPS)
        reached = idc_saturation(test.windows_s / np.exp(memory)[:, None])
        index = np.log1p(np.exp(excess)[:, None, None] * reached)
        errors = ((index - seen) ** 2) @ test.counts
        row, column = np.unravel_index(errors.argmin(), errors.shape)
        best = np.array([excess[row], memory[column]])
        step = 3 * (high - low) / (_STEPS - 1)
        low, high = np.maximum(best - step, limits[:, 0]), np.minimum(best + step, limits[:, 1])
    return float(np.exp(best[0])), float(np.exp(best[1]))


def _third_moment_of_rate(counts: NDArray[np.int64], window_s: float, memory_s: float) -> float:
    """The third central moment of a rate of two values, from the counts in windows.

    The third factorial cumulant of the counts is the third central moment of the integral of the rate. Of a rate with
    two values, deviations at three moments have a mean product of that moment times exp(-(last - first) / memory), of
    which the integral over a window is closed.
    """
    size = len(counts)
    deviations = counts - counts.mean()
    third = size / ((size - 1) * (size - 2)) * float((deviations**3).sum())
    factorial = third - 3 * float(counts.var(ddof=1)) + 2 * float(counts.mean())
    x = window_s / memory_s
    return factorial / (6 * memory_s**3 * (x * (1 + math.exp(-x)) + 2 * math.expm1(-x)))
