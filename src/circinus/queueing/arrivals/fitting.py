"""Fitting of an arrival process to observed arrivals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.queueing.arrivals.markov_modulated import MarkovModulatedPoisson, idc_saturation
from circinus.queueing.arrivals.process import ArrivalProcess, Periodic, Poisson

MIN_WINDOWS = 10
"""Minimum number of windows for an estimate of the variance."""
MIN_ARRIVALS_PER_WINDOW = 5
"""Mean number of arrivals in the shortest window; below it, the chi-squared approximation fails (Cochran, 1954)."""


def window_counts(times_s: FloatArray, duration_s: float, window_s: float) -> IntArray:
    """Return (k,) arrivals in each of the consecutive windows that fit into the duration."""
    windows = _windows(duration_s, window_s)
    index = (np.asarray(times_s) / window_s).astype(np.int64)
    return np.bincount(index[index < windows], minlength=windows)


def _windows(duration_s: float, window_s: float) -> int:
    """Return the number of whole windows; the tolerance prevents rounding from losing the last one."""
    return int(duration_s / window_s * (1 + 1e-12))


def empirical_idc(times_s: FloatArray, duration_s: float, windows_s: FloatArray) -> FloatArray:
    """Return the observed index of dispersion of counts.

    Args:
        times_s: (n,) arrival times in [0, `duration_s`).
        duration_s: duration of the observation.
        windows_s: (w,) lengths of windows.

    Returns:
        (w,) variance over mean of the counts in consecutive windows; NaN if fewer than `MIN_WINDOWS` fit or nothing
        arrived.
    """
    idc = np.full(len(windows_s), np.nan)
    for position, window_s in enumerate(windows_s):
        counts = window_counts(times_s, duration_s, float(window_s))
        if len(counts) >= MIN_WINDOWS and counts.any():
            idc[position] = counts.var(ddof=1) / counts.mean()
    return idc


@dataclass(frozen=True)
class DispersionTest:
    """Test of Poisson arrivals by the index of dispersion over windows of many lengths.

    Given their number, the counts of Poisson arrivals in k equal windows are multinomial, so (k - 1) times the index is
    nearly chi-squared with k - 1 degrees of freedom (Cox and Lewis, 1966, chapter 6). The limits are its quantiles, by
    Wilson and Hilferty (1931). Divided among all windows and both sides (Bonferroni), the risk that Poisson arrivals
    exceed the limits anywhere is at most `risk`; it is actually less, since windows of several lengths share the same
    arrivals.
    """

    windows_s: FloatArray
    """(w,) lengths, each twice the previous one; empty if there are too few arrivals."""
    counts: IntArray
    """(w,) number of windows of each length."""
    index: FloatArray
    """(w,) observed index."""
    lower: FloatArray
    """(w,) lower limits for Poisson arrivals."""
    upper: FloatArray
    """(w,) upper limits for Poisson arrivals."""

    @classmethod
    def of(cls, times_s: FloatArray, duration_s: float, risk: float) -> DispersionTest:
        """Test arrivals observed in [0, `duration_s`).

        The shortest windows have a mean of `MIN_ARRIVALS_PER_WINDOW` arrivals; there are at least `MIN_WINDOWS` of the
        longest.

        Args:
            times_s: (n,) arrival times in [0, `duration_s`), ascending.
        """
        max_count = len(times_s) // MIN_ARRIVALS_PER_WINDOW
        lengths = int(np.log2(max_count / MIN_WINDOWS)) + 1 if max_count >= MIN_WINDOWS else 0
        min_s = MIN_ARRIVALS_PER_WINDOW * duration_s / max(len(times_s), 1)
        windows_s = np.array([min_s * 2.0**doubled for doubled in range(lengths)])
        counts = np.array([_windows(duration_s, float(window_s)) for window_s in windows_s], dtype=np.int64)
        index = empirical_idc(times_s, duration_s, windows_s)
        each = risk / (2 * max(lengths, 1))
        lower, upper = (chi2_quantile(counts - 1, p) / (counts - 1) for p in (each, 1 - each))
        return cls(windows_s, counts, index, lower, upper)

    @property
    def overdispersed(self) -> bool:
        """True if arrivals are burstier than a Poisson process."""
        return bool((self.index > self.upper).any())

    @property
    def underdispersed(self) -> bool:
        """True if arrivals are nowhere bursty, and somewhere more regular than a Poisson process."""
        return not self.overdispersed and bool((self.index < self.lower).any())


def chi2_quantile(degrees_of_freedom: IntArray, probability: float) -> FloatArray:
    """Return chi-squared quantiles by Wilson and Hilferty (1931).

    They are within 5 % of the degrees of freedom from 9 degrees on, for probabilities from 1e-4 to 1 - 1e-4.
    """
    variance = 2.0 / (9.0 * degrees_of_freedom)
    root = np.maximum(0.0, 1.0 - variance + NormalDist().inv_cdf(probability) * variance**0.5)
    return np.asarray(degrees_of_freedom * root**3)


RISK = 0.01
"""Risk of rejecting Poisson arrivals wrongly."""

_PHASES = 8
"""Number of start phases of windows of whole periods."""
_STEPS = 33
"""Grid size of each of two parameters in a round of the fit of bursts."""
_ROUNDS = 5
_MIN_MEMORY = 1 / 8
"""Minimum memory of bursts, in shortest windows: windows are insensitive to shorter ones."""
_MAX_INDEX = 100.0
"""Maximum limit of the index, relative to the highest observed one."""


def fit_arrival_process(times_s: FloatArray, duration_s: float | None = None, *, risk: float = RISK) -> ArrivalProcess:
    """Fit an arrival process: Poisson unless it is rejected, else bursty or periodic arrivals.

    `DispersionTest` decides, over windows from a mean of 5 arrivals up to a tenth of the time. Bursts are fitted by
    their rate, by the index of dispersion over all windows (least squares of logarithms, weighted by the number of
    windows), which gives memory and strength of the bursts, and by the skewness of the counts in windows about as long
    as the memory, which gives the share of time in bursts (Heffes and Lucantoni, 1986, match the same moments).
    Arrivals are periodic if counts vary no more than with the largest jitter; the period is fitted to their times in
    order (least squares), and the jitter to the residuals.

    Limits: with fewer than 50 arrivals the result is always Poisson, and weak bursts need many more. Bursts of only a
    few arrivals, and those longer than a tenth of the observation, are detected in part only. The skewness needs tens
    of bursts: with fewer, rate and index hold and the share of time in bursts is rough. A trend or a daily cycle looks
    like bursts. Arrivals that are more regular than Poisson ones, but not periodic with a jitter of up to half a period
    (two cameras combined, lost frames), are fitted as Poisson, which is conservative.

    Args:
        times_s: (n,) arrival times, ascending, n >= 2 and not all the same.
        duration_s: duration of the observation, from 0 on; None: from the first to the last arrival.
        risk: maximum probability that Poisson arrivals are rejected.

    Raises:
        PlanningError: there are fewer than two distinct times, or times do not ascend or are outside [0, `duration_s`].
    """
    times = np.asarray(times_s, dtype=np.float64)
    _check(times, duration_s)
    observed, observed_s = times, duration_s
    if observed_s is None:
        # Given the first and the last arrival, the others of a Poisson process are uniform between them.
        observed, observed_s = times[1:-1] - times[0], float(times[-1] - times[0])
    test = DispersionTest.of(observed, observed_s, risk)
    rate_per_s = len(times) / duration_s if duration_s is not None else (len(times) - 1) / observed_s
    if test.overdispersed:
        return _bursts(observed, observed_s, test, rate_per_s)
    periodic = _periodic(times, test, risk) if test.underdispersed else None
    return periodic if periodic is not None else Poisson(rate_per_s)


def _check(times: FloatArray, duration_s: float | None) -> None:
    if len(times) < 2 or times[0] == times[-1]:
        raise PlanningError(
            f"found {len(np.unique(times))} distinct arrival times, expected at least 2",
            code="arrivals.too_few_times",
        )
    if not (np.isfinite(times).all() and (np.diff(times) >= 0).all()):
        raise PlanningError("arrival times are not finite and ascending", code="arrivals.not_ascending")
    if duration_s is not None and not 0 <= times[0] <= times[-1] <= duration_s:
        raise PlanningError(
            f"found arrivals from {times[0]:g} s to {times[-1]:g} s, expected them between 0 and the observed "
            f"{duration_s:g} s",
            code="arrivals.outside_duration",
        )


def _periodic(times: FloatArray, test: DispersionTest, risk: float) -> Periodic | None:
    """Return fitted periodic arrivals, or None if counts vary more than with the largest jitter.

    In windows of whole periods the variance of the counts is a third of the share of the period that the jitter spreads
    an arrival over, for any length: in the mean over all phases, which a few represent.
    """
    order = np.arange(len(times)) - (len(times) - 1) / 2
    period_s = float(order @ times / (order @ order))
    residuals = times - float(times.mean()) - period_s * order
    begins_s = times - times[0] + period_s * (np.arange(_PHASES) + 0.5)[:, None] / _PHASES
    for window in range(len(test.windows_s)):
        length_s = period_s * MIN_ARRIVALS_PER_WINDOW * 2.0**window
        by_phase = [window_counts(begin_s, period_s * len(times), length_s) for begin_s in begins_s]
        degrees = np.array([len(by_phase[0]) - 1])
        max_variance = float(chi2_quantile(degrees, 1 - risk / len(test.windows_s))[0]) / degrees[0] / 3
        if np.mean([counts.var(ddof=1) for counts in by_phase]) > max_variance:
            return None
    # The variance of a uniform jitter is a third of the square of its maximum.
    jitter_s = min(period_s / 2, (3.0 * float(residuals.var())) ** 0.5)
    return Periodic(1.0 / period_s, jitter_s)


def _bursts(observed: FloatArray, observed_s: float, test: DispersionTest, rate_per_s: float) -> MarkovModulatedPoisson:
    """Return two phases with this rate, index of dispersion and skewness, as close as two phases allow."""
    excess, memory_s = _excess_and_memory(test)
    variance = excess * rate_per_s / (2 * memory_s)  # of the rate, from the limit of the index
    window_s = float(test.windows_s[np.abs(np.log(test.windows_s / memory_s)).argmin()])
    counts = window_counts(observed, observed_s, window_s)
    third_moment = _third_moment_of_rate(counts, window_s, memory_s)
    # Windows cannot resolve shorter bursts.
    return MarkovModulatedPoisson.of_moments(rate_per_s, variance, third_moment, memory_s, min_share=1 / len(counts))


def _excess_and_memory(test: DispersionTest) -> tuple[float, float]:
    """Return the limit of the index minus 1, and the memory in seconds, that fit the index of `test` best.

    The grid around the best point is refined in rounds: the sum of squares has one valley, but a curved one.
    """
    min_s, max_s = float(test.windows_s[0]) * _MIN_MEMORY, float(test.windows_s[-1])
    log_index = np.log(np.maximum(test.index, 1e-3))
    limits = np.log([[0.01, _MAX_INDEX * float(test.index.max())], [min_s, max_s]])
    low, high = limits[:, 0], limits[:, 1]
    best = low
    for _ in range(_ROUNDS):
        excess, memory = np.linspace(low[0], high[0], _STEPS), np.linspace(low[1], high[1], _STEPS)
        saturation = idc_saturation(test.windows_s / np.exp(memory)[:, None])
        index = np.log1p(np.exp(excess)[:, None, None] * saturation)
        errors = ((index - log_index) ** 2) @ test.counts
        row, column = np.unravel_index(errors.argmin(), errors.shape)
        best = np.array([excess[row], memory[column]])
        step = 3 * (high - low) / (_STEPS - 1)
        low, high = np.maximum(best - step, limits[:, 0]), np.minimum(best + step, limits[:, 1])
    return float(np.exp(best[0])), float(np.exp(best[1]))


def _third_moment_of_rate(counts: IntArray, window_s: float, memory_s: float) -> float:
    """Return the third central moment of a rate with two values, from the counts in windows.

    The third factorial cumulant of the counts is the third central moment of the integral of the rate. For a rate with
    two values, deviations at three times have a mean product of that moment times exp(-(last - first) / memory), whose
    integral over a window has a closed form.
    """
    size = len(counts)
    deviations = counts - counts.mean()
    third = size / ((size - 1) * (size - 2)) * float((deviations**3).sum())
    factorial = third - 3 * float(counts.var(ddof=1)) + 2 * float(counts.mean())
    x = window_s / memory_s
    return factorial / (6 * memory_s**3 * (x * (1 + math.exp(-x)) + 2 * math.expm1(-x)))
