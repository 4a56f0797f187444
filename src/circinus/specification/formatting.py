"""Quantities as messages and tables say them: three significant digits and a unit that fits.

What a user writes is printed exactly, by `Quantity.format` and `str` of an objective; what was measured or estimated is
printed by these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from circinus.specification.units import BANDWIDTH, DURATION, SIZE, Quantity


class IntervalLike(Protocol):
    """A value that is known between two bounds."""

    @property
    def value(self) -> float: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...


UNBOUNDED_S = 1e6
"""Seconds from which on a bound of a latency is none."""


def format_duration(seconds: float) -> str:
    """`0.4123` -> `412 ms`."""
    return _spoken(seconds, DURATION, ("µs", "ms", "s", "min", "h"), zero="s")


def format_latency_bound(seconds: float) -> str:
    """An upper bound, where there may be none."""
    return "no bound" if seconds >= UNBOUNDED_S else format_duration(seconds)


def format_latency_limit(seconds: float) -> str:
    """`0.441` -> `441ms`: a limit of few digits as it can be written in a specification, without rounding it."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1e3:g}ms"


def format_bytes(count_bytes: float) -> str:
    """`160000` -> `156 KiB`."""
    return _spoken(count_bytes, SIZE, ("B", "KiB", "MiB", "GiB", "TiB"), zero="B")


def format_bandwidth(bytes_per_s: float) -> str:
    """`5000000` -> `40 Mbit/s`."""
    return _spoken(bytes_per_s, BANDWIDTH, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"), zero="bit/s")


def format_usd_per_h(value: float) -> str:
    """`0.01234` -> `$0.0123/h`."""
    sign = "-" if value < 0 else ""
    return f"{sign}${_digits(abs(value))}/h"


def format_range(say: Callable[[float], str], least: float, greatest: float) -> str:
    """`1.2 ms to 3.4 ms`, or one of them where both read alike."""
    words = say(least), say(greatest)
    return words[0] if words[0] == words[1] else " to ".join(words)


def format_score(value: float) -> str:
    """A mean score: three decimals where they are three digits, so that scores stand below each other."""
    return f"{value:.3f}" if value == 0 or 0.0995 <= abs(value) < 10 else _digits(value)


def format_percentage(share: float) -> str:
    """`0.8412` -> `84.1%`."""
    return f"{_digits(100 * share)}%"


def format_amount(resource: str, value: float) -> str:
    """An amount of one of the resources of a node: `2 cpus`, `1 cpu`, `1.5 GiB memory`."""
    if "memory" in resource:
        return f"{format_bytes(value)} {resource}"
    return f"{_digits(value)} {resource.removesuffix('s') if value == 1 else resource}"


def format_interval(spoken: Callable[[float], str], interval: IntervalLike) -> str:
    """Value and bounds, each as `spoken` says it: `412 ms (380 ms to 451 ms)`."""
    return f"{spoken(interval.value)} ({spoken(interval.lower)} to {spoken(interval.upper)})"


def ceil_significant(value: float, digits: int = 3) -> float:
    """The least number of so many significant digits that is not below `value`."""
    return _rounded(value, digits, math.ceil)


def floor_significant(value: float, digits: int = 3) -> float:
    """The greatest number of so many significant digits that is not above `value`."""
    return _rounded(value, digits, math.floor)


def _rounded(value: float, digits: int, towards: Callable[[float], int]) -> float:
    if value == 0:
        return 0.0
    places = digits - 1 - math.floor(math.log10(abs(value)))
    factor = 10.0**places
    nearest = round(value * factor)
    # A number that already has so few digits must stay, however its product came out.
    whole = nearest if math.isclose(value * factor, nearest, rel_tol=1e-12) else towards(value * factor)
    rounded = whole / factor
    wrong_side = rounded < value if towards is math.ceil else rounded > value
    return value if wrong_side else rounded


def _spoken(value: float, quantity: Quantity, units: tuple[str, ...], zero: str) -> str:
    """In the largest of `units`, ascending, in which the number is at least 1; no value at all in `zero`."""
    if value == 0:
        return f"0 {zero}"
    chosen = units[0]
    for unit in units:
        if abs(value) >= quantity.factors[unit] * 0.9995:
            chosen = unit
    return f"{_digits(value / quantity.factors[chosen])} {chosen}"


def _digits(value: float) -> str:
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text and abs(value) >= 1 else text
