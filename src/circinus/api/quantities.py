"""Paths, and durations as numbers or as the specification's texts."""

from __future__ import annotations

import math
import os

from circinus.errors import CircinusError
from circinus.specification.units import DURATION, UnitError

AnyPath = str | os.PathLike[str]
Duration = float | str
"""Seconds, or a text such as `"2min"`."""


def seconds(duration: Duration) -> float:
    """Return a duration in seconds, from a number or a text such as `"2min"`.

    Raises:
        CircinusError: the text is no duration, or the number is negative or not finite.

    Example:
        >>> seconds("2min"), seconds(0.5)
        (120.0, 0.5)
    """
    if not isinstance(duration, str):
        if not 0 <= duration < math.inf:
            raise CircinusError(
                f"found {duration}, expected a duration of at least 0, and finite",
                code="duration.invalid",
                hint="Give seconds, or a text such as '2min'.",
            )
        return float(duration)
    if duration.strip() == "0":
        return 0.0
    try:
        return DURATION.parse(duration)
    except UnitError as error:
        hint = error.hint or "Give seconds, or a number with a unit."
        raise CircinusError(
            f"found {error.found}, expected {error.expected}",
            code="duration.invalid",
            hint=f"{hint[0].upper()}{hint[1:]}",
        ) from None
