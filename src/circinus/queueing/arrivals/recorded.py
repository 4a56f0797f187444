"""Recorded arrivals, repeated periodically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.queueing.arrivals.validation import require_positive


@dataclass(frozen=True)
class RecordedProcess:
    """Recording played in a loop from a random phase.

    Raises:
        PlanningError: there is no arrival, or arrivals do not ascend within the period.
    """

    moments_s: tuple[float, ...]
    """Arrival times in [0, `period_s`), ascending."""
    period_s: float
    """Length of the loop."""

    def __post_init__(self) -> None:
        require_positive("period", self.period_s)
        moments_s = self._moments_s
        if not len(moments_s):
            raise PlanningError("arrivals recording has no arrival", code="arrivals.empty_recording")
        if not (moments_s[0] >= 0 and moments_s[-1] < self.period_s and (np.diff(moments_s) >= 0).all()):
            raise PlanningError(
                f"arrival times do not ascend from 0 to below the period of {self.period_s:g} s",
                code="arrivals.not_ascending",
            )

    @classmethod
    def of(cls, times_s: Sequence[float] | FloatArray, rate_per_s: float | None = None) -> RecordedProcess:
        """Create the process from the times of a recording.

        The time after the last arrival until the next one is unknown, and replaced by the mean interarrival time.

        Args:
            times_s: (n,) arrival times, ascending, at least two of them distinct.
            rate_per_s: mean rate of the process; default: as recorded.

        Raises:
            PlanningError: there are fewer than two distinct times, or times do not ascend.
        """
        times = np.asarray(times_s, dtype=np.float64)
        if len(times) < 2 or times[0] == times[-1]:
            raise PlanningError(
                f"arrivals recording has {len(np.unique(times))} distinct timestamps; at least 2 are needed to "
                "estimate a rate",
                code="arrivals.too_few_times",
            )
        moments_s = times - times[0]
        period_s = float(moments_s[-1]) * len(times) / (len(times) - 1)
        scale = 1.0 if rate_per_s is None else len(times) / period_s / rate_per_s
        return cls(tuple((moments_s * scale).tolist()), period_s * scale)

    @property
    def rate_per_s(self) -> float:
        """Number of arrivals in the loop divided by its length."""
        return len(self.moments_s) / self.period_s

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return (n,) ascending arrival times in [0, `duration_s`)."""
        since_s = np.sort((self._moments_s - rng.uniform(0.0, self.period_s)) % self.period_s)
        rounds = np.arange(int(duration_s / self.period_s) + 1) * self.period_s
        times_s = (rounds[:, None] + since_s).ravel()
        return np.sort(times_s[times_s < duration_s])

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """Return the (w,) index, exact over all start times of a window.

        As all rounds are equal, the index tends to 0 for windows much longer than the loop.
        """
        variances = np.array([self._variance(float(window_s)) for window_s in windows_s])
        return np.asarray(variances / (self.rate_per_s * windows_s))

    def scaled(self, factor: float) -> RecordedProcess:
        """Return the process with compressed time."""
        period_s = self.period_s / factor
        # Rounding must not move an arrival to the end of the loop.
        moments_s = np.minimum(self._moments_s / factor, np.nextafter(period_s, 0.0))
        return RecordedProcess(tuple(moments_s.tolist()), period_s)

    @cached_property
    def _moments_s(self) -> FloatArray:
        return np.asarray(self.moments_s, dtype=np.float64)

    def _variance(self, window_s: float) -> float:
        """Return the variance of the count in a window with a uniformly random start in the loop.

        Whole rounds in the window add a constant. As the start moves on, the count decreases by one when it passes an
        arrival, and increases by one when the end does: between these times it is constant.
        """
        remainder_s = window_s % self.period_s
        leaving_s, entering_s = self._moments_s, np.sort((self._moments_s - remainder_s) % self.period_s)
        moves_s = np.concatenate([leaving_s, entering_s])
        order = np.argsort(moves_s, kind="stable")
        steps = np.where(order < len(leaving_s), -1.0, 1.0)
        counts = np.concatenate([[0.0], np.cumsum(steps)])  # up to a constant, which the variance ignores
        durations_s = np.diff(moves_s[order], prepend=0.0, append=self.period_s)
        mean = counts @ durations_s / self.period_s
        return float((counts - mean) ** 2 @ durations_s / self.period_s)
