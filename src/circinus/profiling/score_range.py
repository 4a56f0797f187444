"""Whether what a metric returned is a score."""

from __future__ import annotations

from typing import Any

_ROUNDING = 1e-9


def validate_score(score: Any, score_range: tuple[float, float]) -> float | None:
    """`score` as a number in `score_range` (least, greatest); None when it is none.

    A mean of perfect scores may round to just above the greatest: what is outside by 1e-9 of the range's width is
    clipped.
    """
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        return None
    least, greatest = score_range
    margin = _ROUNDING * (greatest - least)
    if not least - margin <= value <= greatest + margin:  # also NaN
        return None
    return min(max(value, least), greatest)
