"""Arrivals as they once were, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.queueing.arrivals.process import require_positive


@dataclass(frozen=True)
class RecordedProcess:
    """A recording played in a loop from a moment of it chosen at random.

    Raises:
        PlanningError: there is no moment, or they do not ascend within the period.
    """

    moments_s: tuple[float, ...]
    """When requests arrive, in [0, `period_s`), ascending."""
    period_s: float
    """How long one round takes."""

    def __post_init__(self) -> None:
        require_positive("a period", self.period_s)
        moments_s = self._moments_s
        if not len(moments_s):
            raise PlanningError("found a recording without arrivals, expected one at least")
        if not (moments_s[0] >= 0 and moments_s[-1] < self.period_s and (np.diff(moments_s) >= 0).all()):
            raise PlanningError(f"found moments that do not ascend from 0 to below the period of {self.period_s:g} s")

    @classmethod
    def of(cls, times_s: Sequence[float] | FloatArray, rate_per_s: float | None = None) -> RecordedProcess:
        """From the times of a recording.

        What was between the last arrival and the next one is not known: in the loop the mean time between two is.

        Args:
            times_s: (n,) ascending, two of them at least different.
            rate_per_s: the mean rate to play it at; None: as recorded.

        Raises:
            PlanningError: no two times differ, or they do not ascend.
        """
        times = np.asarray(times_s, dtype=np.float64)
        if len(times) < 2 or times[0] == times[-1]:
            raise PlanningError(f"found {len(np.unique(times))} different times, expected two at least in a recording")
        moments_s = times - times[0]
        period_s = float(moments_s[-1]) * len(times) / (len(times) - 1)
        slower = 1.0 if rate_per_s is None else len(times) / period_s / rate_per_s
        return cls(tuple((moments_s * slower).tolist()), period_s * slower)

    @property
    def rate_per_s(self) -> float:
        """Arrivals of a round over its length."""
        return len(self.moments_s) / self.period_s

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending moments in [0, `duration_s`)."""
        since_s = np.sort((self._moments_s - rng.uniform(0.0, self.period_s)) % self.period_s)
        rounds = np.arange(int(duration_s / self.period_s) + 1) * self.period_s
        times_s = (rounds[:, None] + since_s).ravel()
        return np.sort(times_s[times_s < duration_s])

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """(w,) measured: exact over all moments at which a window may begin.

        Rounds are all alike, so the index goes to 0 for windows much longer than one.
        """
        return np.array([self._variance(float(window_s)) for window_s in windows_s]) / (self.rate_per_s * windows_s)

    def scaled(self, factor: float) -> RecordedProcess:
        """Time compressed."""
        period_s = self.period_s / factor
        # Rounding must not put a moment at the very end of the round.
        moments_s = np.minimum(self._moments_s / factor, np.nextafter(period_s, 0.0))
        return RecordedProcess(tuple(moments_s.tolist()), period_s)

    @cached_property
    def _moments_s(self) -> FloatArray:
        return np.asarray(self.moments_s, dtype=np.float64)

    def _variance(self, window_s: float) -> float:
        """Of the count in a window that begins anywhere in the round.

        Whole rounds in the window add a constant. As its beginning moves on, the count falls by one where it passes an
        arrival and rises by one where its end does: between those moments it is constant.
        """
        rest_s = window_s % self.period_s
        leaving_s, entering_s = self._moments_s, np.sort((self._moments_s - rest_s) % self.period_s)
        moves_s = np.concatenate([leaving_s, entering_s])
        order = np.argsort(moves_s, kind="stable")
        steps = np.where(order < len(leaving_s), -1.0, 1.0)
        counts = np.concatenate([[0.0], np.cumsum(steps)])  # up to a constant, which no variance sees
        lasts_s = np.diff(moves_s[order], prepend=0.0, append=self.period_s)
        mean = counts @ lasts_s / self.period_s
        return float((counts - mean) ** 2 @ lasts_s / self.period_s)
