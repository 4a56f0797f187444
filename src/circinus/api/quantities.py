"""Durations and rates as numbers or as the specification's texts."""

from __future__ import annotations


def seconds(duration: float | str) -> float:
    """Return a duration in seconds, from a number or a text such as `"2min"`.

    Raises:
        UnitError: the text is no duration.

    Example:
        >>> seconds("2min"), seconds(0.5)
        (120.0, 0.5)
    """
    from circinus.specification.units import DURATION

    return DURATION.parse(duration) if isinstance(duration, str) else float(duration)
