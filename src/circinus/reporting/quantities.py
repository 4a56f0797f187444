"""Numbers as people read them: three significant digits and a unit that fits."""

from __future__ import annotations

from circinus.profiling import Bounded

_DURATIONS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def duration(seconds: float) -> str:
    """`0.412` -> `412 ms`."""
    return _scaled(seconds, _DURATIONS)


def size(count_bytes: float) -> str:
    """`160000` -> `156 KiB`."""
    return _scaled(count_bytes, _SIZES)


def usd_per_h(value: float) -> str:
    """`0.0123` -> `$0.0123/h`."""
    return f"${_significant(value)}/h"


def score(value: float) -> str:
    """A mean score."""
    return f"{value:.3f}"


def bounded_duration(value: Bounded) -> str:
    """Value and bounds."""
    return f"{duration(value.value)} ({duration(value.lower)} to {duration(value.upper)})"


def bounded_score(value: Bounded) -> str:
    """Value and bounds."""
    return f"{score(value.value)} ({score(value.lower)} to {score(value.upper)})"


def bounded_usd_per_h(value: Bounded) -> str:
    """Value and bounds."""
    return f"{usd_per_h(value.value)} ({usd_per_h(value.lower)} to {usd_per_h(value.upper)})"


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    if value == 0:
        return f"0 {'s' if units is _DURATIONS else 'B'}"
    for factor, unit in units:
        if abs(value) >= factor * 0.9995:
            return f"{_significant(value / factor)} {unit}"
    factor, unit = units[-1]
    return f"{_significant(value / factor)} {unit}"


def _significant(value: float) -> str:
    if value == 0:
        return "0"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text and abs(value) >= 1 else text
