"""Quantities in the sentences that give reasons: three significant digits and a unit that fits."""

from __future__ import annotations

import math
from collections.abc import Callable

from circinus.spec.units import BANDWIDTH, DURATION, SIZE, Quantity

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """`0.4123` -> `412 ms`."""
    return _spoken(seconds, DURATION, ("us", "ms", "s", "min", "h"))


def size(count_bytes: float) -> str:
    """`160000` -> `156 KiB`."""
    return _spoken(count_bytes, SIZE, _BINARY)


def bandwidth(bytes_per_s: float) -> str:
    """`5000000` -> `40 Mbit/s`."""
    return _spoken(bytes_per_s, BANDWIDTH, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"))


def usd_per_h(value: float) -> str:
    """`0.01234` -> `$0.0123/h`."""
    return f"${_digits(value)}/h"


def amount(resource: str, value: float) -> str:
    """An amount of one of the resources of a node: `2 cpus`, `1.5 GiB memory`."""
    return f"{size(value)} {resource}" if "memory" in resource else f"{_digits(value)} {resource}"


def rounded_up(value: float, digits: int = 3) -> float:
    """The least number of so many significant digits that is not below `value`."""
    return _rounded(value, digits, math.ceil)


def rounded_down(value: float, digits: int = 3) -> float:
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


def _spoken(value: float, quantity: Quantity, units: tuple[str, ...]) -> str:
    chosen = units[0]
    for unit in units:
        if abs(value) >= quantity.factors[unit] * 0.9995:
            chosen = unit
    return f"{_digits(value / quantity.factors[chosen])} {chosen}"


def _digits(value: float) -> str:
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text and abs(value) >= 1 else text
