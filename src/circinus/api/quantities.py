"""Paths, and durations as numbers or as the specification's texts."""

from __future__ import annotations

import os

from circinus.specification.units import DURATION

AnyPath = str | os.PathLike[str]
Duration = float | str
"""Seconds, or a text such as `"2min"`."""


def seconds(duration: Duration) -> float:
    """Return a duration in seconds, from a number or a text such as `"2min"`.

    Raises:
        UnitError: the text is no duration.

    Example:
        >>> seconds("2min"), seconds(0.5)
        (120.0, 0.5)
    """
    return DURATION.parse(duration) if isinstance(duration, str) else float(duration)
