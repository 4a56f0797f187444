"""Values of arguments: paths, durations as numbers or as the specification's texts, and checks of all others."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from numbers import Integral, Real

from circinus.errors import CircinusError
from circinus.specification.diagnostics import describe, did_you_mean
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
    if not isinstance(duration, Real) or not 0 <= duration < math.inf or (above_zero and duration == 0):
        expected = f"a duration {'above' if above_zero else 'of at least'} 0"
        raise argument_error(name, found, expected, "Give seconds, or a text such as '2min'.")
    return float(duration)


def factor(value: float, name: str) -> float:
    """Return a finite number above 0.

    Raises:
        CircinusError: it is none.
    """
    if not isinstance(value, Real) or not 0 < value < math.inf:
        raise argument_error(name, describe(value), "a number above 0 such as 2")
    return float(value)


def price(value: float, name: str) -> float:
    """Return a finite number of at least 0.

    Raises:
        CircinusError: it is none.
    """
    if not isinstance(value, Real) or not 0 <= value < math.inf:
        raise argument_error(name, describe(value), "a number of at least 0")
    return float(value)


def fraction(value: float, name: str) -> float:
    """Return a number between 0 and 1.

    Raises:
        CircinusError: it is none.
    """
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise argument_error(name, describe(value), "a fraction such as 0.02")
    return float(value)


def count(value: int, name: str, *, minimum: int = 0) -> int:
    """Return a whole number of at least `minimum`.

    Raises:
        CircinusError: it is none.
    """
    if not isinstance(value, Integral) or value < minimum:
        raise argument_error(name, describe(value), f"a whole number of at least {minimum}")
    return int(value)


def listen_address(value: object, name: str) -> None:
    """Require a pair of host and port.

    Raises:
        CircinusError: it is none.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        raise argument_error(name, describe(value), "a host and a port such as ('127.0.0.1', 9000)")


def choice(value: str, name: str, choices: Collection[str]) -> str:
    """Return one of some texts.

    Raises:
        CircinusError: it is none of them.
    """
    if value not in choices:
        raise argument_error(name, describe(value), " or ".join(choices), did_you_mean(value, choices))
    return value
