"""How often requests come now, from counters that are read now and then."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

WINDOWS_S = (1.0, 4.0, 16.0)
RECENT_S = 0.25
"""Too short for one query alone; what queries ask together of one deployment shows in it."""
_SURE = 2.0
"""Standard deviations of a Poisson count by which a rate is surely above or below."""


@dataclass(frozen=True)
class RateBounds:
    """Requests a second."""

    likely_per_s: float
    least_per_s: float
    """Surely that many, in some of the windows: a burst shows in a short one, a slow rise in a long one."""
    most_per_s: float
    """Surely no more, over the longest."""
    recent_s: float
    """The last moments: a quarter of a second or little more; less than a second."""
    recent_requests: int
    """That came in them; 0 where readings are further apart."""


class RateEstimator:
    """The rate of one counter over windows of several lengths. Pure: told the time."""

    def __init__(self, windows_s: Sequence[float] = WINDOWS_S) -> None:
        """Nothing was read.

        Args:
            windows_s: ascending.
        """
        self._windows_s = tuple(windows_s)
        self._readings: deque[tuple[float, int]] = deque()
        """Since when a count may have been so, and the count."""

    def read(self, now_s: float, count: int, began_s: float | None = None) -> RateBounds | None:
        """After one more reading; None: it is too early to say anything.

        Args:
            now_s: later than at the last reading.
            count: less than before where what counts was started anew.
            began_s: when the reading began, if it took long: the count may be as old. So a span is never taken for
                shorter than it was, and a rate never for higher.
        """
        if self._readings and count < self._readings[-1][1]:
            self._readings.clear()
        found = self._bounds(now_s, count)
        self._readings.append((now_s if began_s is None else began_s, count))
        return found

    def _bounds(self, now_s: float, count: int) -> RateBounds | None:
        longest_s = self._windows_s[-1]
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - longest_s:
            self._readings.popleft()
        if not self._readings or now_s - self._readings[0][0] < self._windows_s[0]:
            return None
        oldest_s = self._readings[0][0]
        seen = [self._seen(now_s, count, window_s) for window_s in self._windows_s if window_s <= now_s - oldest_s]
        if now_s - oldest_s < longest_s:
            seen.append((now_s - oldest_s, count - self._readings[0][1]))
        least = max(max(0.0, n - _SURE * math.sqrt(n)) / span_s for span_s, n in seen)
        span_s, n = seen[-1]
        # The least mean of which so few are unlikely: about (sqrt(n) + z/2)^2 (Anscombe, Biometrika 35, 1948).
        most = (math.sqrt(n + 0.375) + _SURE / 2) ** 2 / span_s
        recent_s, recent = self._seen(now_s, count, RECENT_S)
        if recent_s >= self._windows_s[0]:
            recent = 0
        return RateBounds(n / span_s, least, max(most, least), recent_s, recent)

    def _seen(self, now_s: float, count: int, window_s: float) -> tuple[float, int]:
        """(seconds, requests) of the shortest span that is no shorter than a window."""
        begin_s, before = next(r for r in reversed(self._readings) if now_s - r[0] >= window_s)
        return now_s - begin_s, count - before
