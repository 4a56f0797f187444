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
    """The last moments, some quarter of a second or what there is between two readings."""
    recent_requests: int
    """That came in them."""


class RateMeter:
    """The rate of one counter over windows of several lengths. Pure: told the time."""

    def __init__(self, windows_s: Sequence[float] = WINDOWS_S) -> None:
        """Nothing was read.

        Args:
            windows_s: ascending.
        """
        self._windows_s = tuple(windows_s)
        self._readings: deque[tuple[float, int]] = deque()

    def read(self, now_s: float, count: int) -> RateBounds | None:
        """After one more reading; None: it is too early to say anything.

        Args:
            now_s: later than at the last reading.
            count: less than before where what counts was started anew.
        """
        if self._readings and count < self._readings[-1][1]:
            self._readings.clear()
        self._readings.append((now_s, count))
        longest_s = self._windows_s[-1]
        while len(self._readings) > 2 and self._readings[1][0] <= now_s - longest_s:
            self._readings.popleft()
        oldest_s = self._readings[0][0]
        if now_s - oldest_s < self._windows_s[0]:
            return None
        seen = [self._seen(now_s, count, window_s) for window_s in self._windows_s if window_s <= now_s - oldest_s]
        if now_s - oldest_s < longest_s:
            seen.append((now_s - oldest_s, count - self._readings[0][1]))
        least = max(max(0.0, n - _SURE * math.sqrt(n)) / span_s for span_s, n in seen)
        span_s, n = seen[-1]
        # The least mean of which so few are unlikely: about (sqrt(n) + z/2)^2 (Anscombe, Biometrika 35, 1948).
        most = (math.sqrt(n + 0.375) + _SURE / 2) ** 2 / span_s
        return RateBounds(n / span_s, least, max(most, least), *self._seen(now_s, count, RECENT_S))

    def _seen(self, now_s: float, count: int, window_s: float) -> tuple[float, int]:
        """(seconds, requests) of the shortest span that is no shorter than a window."""
        begin_s, before = next(r for r in reversed(self._readings) if now_s - r[0] >= window_s)
        return now_s - begin_s, count - before
