"""Formatting of measured and estimated quantities: three significant digits and a suitable unit.

Values of the specification are printed exactly, by `Quantity.format` and `str` of an SLO.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from circinus.specification.units import BANDWIDTH, DURATION, SIZE, Quantity


class IntervalLike(Protocol):
    """Value between two bounds."""

    @property
    def value(self) -> float: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...


ACCURACY = "accuracy"
"""Name of a mean score where that of the metric is not given."""
_SCORE = (
    r"(?<!`)\b(?:accuracy(?= (?:[<>=≤≥]|at least|at most|-?\d))"
    r"|error(?= \S+ (?:is only guaranteed|\(at most)))"  # see `describe_violation`
)
"""Pattern of the name before a score or its limit, in texts of parts of the program that know no metric."""

_DIGITS, _MAX_DIGITS = 3, 17
"""Significant digits of a quantity, and the number that distinguishes all floating-point numbers."""

UNBOUNDED_S = 1e6
"""Seconds from which a latency bound counts as absent."""
_MIN_S, _MIN_USD_PER_H = 1e-9, 1e-4
"""Duration that is printed as 0 below, and smallest price that is printed."""


def digits_apart(value: float, limit: float) -> int:
    """Return the number of significant digits, at least three, with which a value differs from a limit as printed."""
    return next((n for n in range(_DIGITS, _MAX_DIGITS) if f"{value:.{n}g}" != f"{limit:.{n}g}"), _MAX_DIGITS)


def format_duration(seconds: float, digits: int = _DIGITS) -> str:
    """Return a duration such as `412 ms`; 0 below a nanosecond."""
    units = ("µs", "ms", "s", "min", "h")
    return _with_unit(seconds if abs(seconds) >= _MIN_S else 0.0, DURATION, units, zero="s", digits=digits)


def format_latency_bound(seconds: float, digits: int = _DIGITS) -> str:
    """Return an upper bound of a latency, or `no bound`."""
    return "no bound" if seconds >= UNBOUNDED_S else format_duration(seconds, digits)


def format_bytes(count_bytes: float) -> str:
    """Return a size such as `156 KiB`."""
    return _with_unit(count_bytes, SIZE, ("B", "KiB", "MiB", "GiB", "TiB"), zero="B")


def format_bandwidth(bytes_per_s: float) -> str:
    """Return a bandwidth such as `40 Mbit/s`."""
    return _with_unit(bytes_per_s, BANDWIDTH, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"), zero="bit/s")


def format_usd_per_h(value: float, digits: int = _DIGITS) -> str:
    """Return a price such as `$0.0123/h` or `$0.10/h`; below $0.0001/h, only that it is."""
    amount, sign = abs(value), "-" if value < 0 else ""
    if 0 < amount < _MIN_USD_PER_H:
        return f"{sign}< ${_MIN_USD_PER_H}/h"
    text = _digits(amount, digits)
    return f"{sign}${f'{amount:.2f}' if text[-2:-1] == '.' else text}/h"


def format_range(format_value: Callable[[float], str], lowest: float, highest: float) -> str:
    """Return a range such as `1.2 ms to 3.4 ms`, or a single value if both ends are formatted equally."""
    ends = format_value(lowest), format_value(highest)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def format_score(value: float, digits: int = _DIGITS) -> str:
    """Return a mean score, with three decimals (aligned in tables) if these are about three significant digits."""
    aligned = digits == _DIGITS and (value == 0 or 0.0995 <= abs(value) < 10)
    return f"{value:.3f}" if aligned else _digits(value, digits)


def format_percentage(share: float) -> str:
    """Return a percentage such as `84.1%`."""
    return f"{_digits(100 * share)}%"


def format_amount(resource: str, value: float) -> str:
    """Return an amount of a resource, such as `2 cpus`, `1 cpu` or `1.5 GiB memory`."""
    if "memory" in resource:
        return f"{format_bytes(value)} {resource}"
    return f"{_digits(value)} {resource.removesuffix('s') if value == 1 else resource}"


def format_interval(format_value: Callable[[float], str], interval: IntervalLike) -> str:
    """Return a value with its bounds, such as `412 ms (380 ms to 451 ms)`."""
    return f"{format_value(interval.value)} ({format_value(interval.lower)} to {format_value(interval.upper)})"


def ceil_significant(value: float, digits: int = 3) -> float:
    """Return the smallest number with at most `digits` significant digits that is not below `value`."""
    if value == 0:
        return 0.0
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    factor = 10.0**decimals
    nearest = round(value * factor)
    # A number with few digits must stay unchanged, even if its product is inexact.
    integer = nearest if math.isclose(value * factor, nearest, rel_tol=1e-12) else math.ceil(value * factor)
    return max(value, integer / factor)


def floor_significant(value: float, digits: int = 3) -> float:
    """Return the largest number with at most `digits` significant digits that is not above `value`."""
    return 0.0 - ceil_significant(-value, digits)  # never -0.0


def _with_unit(value: float, quantity: Quantity, units: tuple[str, ...], zero: str, digits: int = _DIGITS) -> str:
    """Return `value` in the largest of the ascending `units` with a number >= 1, and 0 in the unit `zero`."""
    if value == 0:
        return f"0 {zero}"
    selected = units[0]
    for unit in units:
        if abs(value) >= quantity.factors[unit] * 0.9995:
            selected = unit
    return f"{_digits(value / quantity.factors[selected], digits)} {selected}"


def _digits(value: float, digits: int = _DIGITS) -> str:
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.0f}" if abs(value) >= 1 else f"{Decimal(text):f}"


def with_metric(text: str, metric: str) -> str:
    """Return a text with the name of the metric before scores and limits: `f1 >= 0.9`, `f1 0.93`. Idempotent.

    Quoted lines of a specification stay, in which an accuracy is an `accuracy`.
    """
    return re.sub(rf"(?<!\w){re.escape(metric)}(?!\w)|{_SCORE}", lambda _: metric, text)
