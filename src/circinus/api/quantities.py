"""Values of arguments: paths, durations as numbers or as the specification's texts, and checks of all others."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from numbers import Integral, Real
from typing import TypeGuard

from circinus.errors import CircinusError
from circinus.specification.diagnostics import describe, did_you_mean
from circinus.specification.limits import MAX_INTEGER
from circinus.specification.units import DURATION, UnitError

AnyPath = str | os.PathLike[str]
Duration = float | str
"""Seconds, or a text such as `"2min"`."""


def argument_error(name: str, found: str, expected: str, hint: str = "") -> CircinusError:
    """Return the error of an argument with a wrong value; its code is that of an option with a wrong value."""
    return CircinusError(
        f"found {found}, expected {expected}",
        code="usage.invalid_value",
        location=name,
        hint=f"{hint[:1].upper()}{hint[1:]}",
    )


def _number(value: object) -> float:
    """Return a number as a float; NaN for a truth value, a number beyond the range of floats and anything else."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def seconds(duration: Duration, name: str = "duration", *, above_zero: bool = False) -> float:
    """Return a duration in seconds, from a number or a text such as `"2min"`.

    Args:
        duration: the duration.
        name: name of the argument, for the message.
        above_zero: whether zero is refused.

    Raises:
        CircinusError: the text is no duration, or the number is negative or not finite.

    Example:
        >>> seconds("2min"), seconds(0.5)
        (120.0, 0.5)
    """
    found = describe(duration)
    if isinstance(duration, str):
        try:
            duration = 0.0 if duration.strip() == "0" else DURATION.parse(duration)
        except UnitError as error:
            hint = error.hint or "Give seconds, or a number with a unit."
            raise argument_error(name, error.found, error.expected, hint) from None
    duration_s = _number(duration)
    if not 0 <= duration_s < math.inf or (above_zero and duration_s == 0):
        expected = f"a duration {'above' if above_zero else 'of at least'} 0"
        raise argument_error(name, found, expected, "Give seconds, or a text such as '2min'.")
    return duration_s


def factor(value: float, name: str) -> float:
    """Return a finite number above 0.

    Raises:
        CircinusError: it is none.
    """
    if not 0 < _number(value) < math.inf:
        raise argument_error(name, describe(value), "a number above 0 such as 2")
    return float(value)


def price(value: float, name: str) -> float:
    """Return a finite number of at least 0.

    Raises:
        CircinusError: it is none.
    """
    if not 0 <= _number(value) < math.inf:
        raise argument_error(name, describe(value), "a number of at least 0")
    return float(value)


def fraction(value: float, name: str) -> float:
    """Return a number between 0 and 1.

    Raises:
        CircinusError: it is none.
    """
    if not 0 <= _number(value) <= 1:
        raise argument_error(name, describe(value), "a fraction such as 0.02")
    return float(value)


def _is_whole(value: object) -> TypeGuard[Integral]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def count(value: int, name: str, *, minimum: int = 0) -> int:
    """Return a whole number of at least `minimum`.

    Raises:
        CircinusError: it is none.
    """
    if not _is_whole(value) or value < minimum:
        raise argument_error(name, describe(value), f"a whole number of at least {minimum}")
    if int(value) > MAX_INTEGER:
        raise argument_error(name, describe(value), f"a whole number of at most {MAX_INTEGER}")
    return int(value)


def listen_address(value: object, name: str) -> None:
    """Require a pair of host and port, a text and a whole number from 0 to 65535.

    Raises:
        CircinusError: it is none.
    """
    host, port = value if isinstance(value, tuple) and len(value) == 2 else (None, None)
    if not isinstance(host, str) or not _is_whole(port) or not 0 <= int(port) <= 65_535:
        raise argument_error(name, describe(value), "a host and a port such as ('127.0.0.1', 9000)")


def choice(value: str, name: str, choices: Collection[str]) -> str:
    """Return one of some texts.

    Raises:
        CircinusError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:  # a list has no hash
        raise argument_error(name, describe(value), " or ".join(choices), did_you_mean(value, choices))
    return value
