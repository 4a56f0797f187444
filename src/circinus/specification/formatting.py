"""Formatting of measured and estimated quantities: three significant digits and a suitable unit.

Bounds are rounded to the side on which they hold. Values of the specification are printed exactly, by `Quantity.format`
and `str` of an SLO.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from itertools import pairwise
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


class Rounding(Enum):
    """Side to which a printed number is rounded: up for upper bounds, down for lower ones."""

    NEAREST, UP, DOWN = range(3)


class Formatting(Protocol):
    """Formatting of a quantity."""

    def __call__(
        self, value: float, digits: int = ..., /, *, rounding: Rounding = ..., limit: float | None = None
    ) -> str:
        """Return the text of a value; a bound that meets a limit gets as many digits as show it."""
        ...


ACCURACY = "accuracy"
"""Name of a mean score where that of the metric is not given."""
_SCORE = (
    r"(?<!`)\b(?:accuracy(?= (?:[<>=≤≥]|at least|at most|-?\d))"
    r"|error(?= \S+ \((?:measured|at most)))"  # see `describe_violation`
)
"""Pattern of the name before a score or its limit, in texts of parts of the program that know no metric."""

_DIGITS, _MAX_DIGITS = 3, 17
"""Significant digits of a quantity, and the number that distinguishes all floating-point numbers."""
_MAX_NAMES = 12
"""Maximum number of names in a list."""
_ROUNDING_ERROR = 1e-6
"""Excess over a limit, relative to it, that is not printed."""

UNBOUNDED_S = 1e6
"""Seconds from which a latency bound counts as absent."""
_MIN_S, _MIN_USD_PER_H = 1e-9, 1e-4
"""Duration that is printed as 0 below, and smallest price that is printed."""


def digits_apart(value: float, limit: float) -> int:
    """Return the number of significant digits, at least three, with which a value differs from a limit as printed.

    It also differs with one digit more, as scores may be printed.
    """
    apart = [f"{value:.{n}g}" != f"{limit:.{n}g}" for n in range(_DIGITS, _MAX_DIGITS + 1)]
    return next((n for n, both in enumerate(pairwise(apart), _DIGITS) if all(both)), _MAX_DIGITS)


def format_duration(
    seconds: float, digits: int = _DIGITS, *, rounding: Rounding = Rounding.NEAREST, limit: float | None = None
) -> str:
    """Return a duration such as `412 ms`; 0 below a nanosecond."""
    units = ("µs", "ms", "s", "min", "h")
    return _with_unit(seconds if abs(seconds) >= _MIN_S else 0.0, DURATION, units, "s", digits, rounding, limit)


def format_latency_bound(
    seconds: float, digits: int = _DIGITS, *, rounding: Rounding = Rounding.UP, limit: float | None = None
) -> str:
    """Return a bound of a latency, an upper one by default, or `no bound`."""
    return "no bound" if seconds >= UNBOUNDED_S else format_duration(seconds, digits, rounding=rounding, limit=limit)


def format_bytes(count_bytes: float) -> str:
    """Return a size such as `156 KiB`."""
    return _with_unit(count_bytes, SIZE, ("B", "KiB", "MiB", "GiB", "TiB"), zero="B")


def format_bandwidth(bytes_per_s: float) -> str:
    """Return a bandwidth such as `40 Mbit/s`."""
    return _with_unit(bytes_per_s, BANDWIDTH, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"), zero="bit/s")


def format_usd_per_h(
    value: float, digits: int = _DIGITS, *, rounding: Rounding = Rounding.NEAREST, limit: float | None = None
) -> str:
    """Return a price such as `$0.0123/h` or `$0.10/h`; below $0.0001/h, only that it is."""
    value, digits = _within(value, digits, rounding, limit)
    amount, sign = abs(value), "-" if value < 0 else ""
    if 0 < amount < _MIN_USD_PER_H:
        return f"{sign}< ${_MIN_USD_PER_H}/h"
    text = _digits(amount, digits, rounding)
    if text[-2:-1] == ".":
        cents = math.floor(math.log10(amount)) + 3
        text = f"{_rounded(amount, cents, rounding):.2f}"
    return f"{sign}${text}/h"


def format_range(format_value: Callable[[float], str], lowest: float, highest: float) -> str:
    """Return a range such as `1.2 ms to 3.4 ms`, or a single value if both ends are formatted equally."""
    ends = format_value(lowest), format_value(highest)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def format_score(
    value: float, digits: int = _DIGITS, *, rounding: Rounding = Rounding.NEAREST, limit: float | None = None
) -> str:
    """Return a mean score, with three decimals (aligned in tables) if these are about three significant digits."""
    value, digits = _within(value, digits, rounding, limit)
    if digits != _DIGITS or not (value == 0 or 0.0995 <= abs(value) < 10):
        return _digits(value, digits, rounding)
    decimals = 0 if value == 0 else _DIGITS + 1 + math.floor(math.log10(abs(value)))
    return f"{_rounded(value, decimals, rounding):.3f}"


def format_percentage(share: float) -> str:
    """Return a percentage such as `84.1%`."""
    return f"{_digits(100 * share)}%"


def format_share(share: float) -> str:
    """Return a share of requests in whole per cents; `< 1%` and `> 99%` instead of none and all of a part."""
    if 0.0 < share < 1.0 and round(share, 2) in (0.0, 1.0):
        return "< 1%" if share < 0.5 else "> 99%"
    return f"{share:.0%}"


def format_names(names: Sequence[str]) -> str:
    """Format names as a list, of which the first twelve are named."""
    omitted = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{omitted}"


def format_amount(resource: str, value: float) -> str:
    """Return an amount of a resource, such as `2 CPUs`, `1 CPU` or `1.5 GiB memory`."""
    resource = resource.replace("cpu", "CPU").replace("gpu", "GPU")
    if "memory" in resource:
        return f"{format_bytes(value)} {resource}"
    text = _digits(value)
    return f"{text} {resource.removesuffix('s') if text == '1' else resource}"


def format_bounds(format_value: Formatting, interval: IntervalLike, limit: float | None = None) -> str:
    """Return bounds such as `380 ms to 451 ms`, or a single value if they are equal; a limit that they meet is met."""
    lower, upper = interval.lower, interval.upper
    if lower == upper:
        return format_value(lower, rounding=Rounding.NEAREST)
    ends = (lower, Rounding.DOWN), (upper, Rounding.UP)
    return " to ".join(dict.fromkeys(format_value(end, rounding=rounding, limit=limit) for end, rounding in ends))


def format_interval(format_value: Formatting, interval: IntervalLike) -> str:
    """Return a value with its bounds, such as `412 ms (380 ms to 451 ms)`."""
    return f"{format_value(interval.value)} ({format_bounds(format_value, interval)})"


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


def _with_unit(
    value: float,
    quantity: Quantity,
    units: tuple[str, ...],
    zero: str,
    digits: int = _DIGITS,
    rounding: Rounding = Rounding.NEAREST,
    limit: float | None = None,
) -> str:
    """Return `value` in the largest of the ascending `units` with a number >= 1, and 0 in the unit `zero`."""
    if value == 0:
        return f"0 {zero}"

    def number(unit: str) -> str:
        factor = quantity.factors[unit]
        return _digits(*_within(value / factor, digits, rounding, None if limit is None else limit / factor), rounding)

    selected = next((unit for unit in reversed(units) if abs(float(number(unit))) >= 1), units[0])
    return f"{number(selected)} {selected}"


def _within(value: float, digits: int, rounding: Rounding, limit: float | None) -> tuple[float, int]:
    """Return a value, and the number of digits with which it is not printed beyond a limit that it meets.

    A value that could only be printed as the limit or beyond it is replaced by the limit.
    """
    if limit is None:
        return value, digits
    sign, inwards = (1, Rounding.DOWN) if rounding is Rounding.UP else (-1, Rounding.UP)
    for more in range(digits, _MAX_DIGITS):
        excess = sign * (_rounded(value, more, rounding) - limit)
        if excess <= _ROUNDING_ERROR * abs(limit):
            return (value if excess <= 0 else _rounded(limit, more, inwards)), more
    return value, digits


def _rounded(value: float, digits: int, rounding: Rounding) -> float:
    """Return the value with few digits if it is rounded up or down."""
    if rounding == Rounding.NEAREST:
        return value
    return ceil_significant(value, digits) if rounding == Rounding.UP else floor_significant(value, digits)


def _digits(value: float, digits: int = _DIGITS, rounding: Rounding = Rounding.NEAREST) -> str:
    value = _rounded(value, digits, rounding)
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.0f}" if abs(value) >= 1 else f"{Decimal(text):f}"


def with_metric(text: str, metric: str) -> str:
    """Return a text with the name of the metric before scores and limits: `f1 >= 0.9`, `f1 0.93`. Idempotent.

    Quoted lines of a specification stay, in which an accuracy is an `accuracy`.
    """
    return re.sub(rf"(?<!\w){re.escape(metric)}(?!\w)|{_SCORE}", lambda _: metric, text)
