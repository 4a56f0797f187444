"""Checks of the parameters of arrival processes."""

from __future__ import annotations

from circinus.errors import PlanningError


def require_positive(kind: str, *values: float) -> None:
    """Raise PlanningError if one of `values` is not a finite number above 0."""
    invalid = [value for value in values if not 0 < value < float("inf")]
    if invalid:
        raise PlanningError(
            f"{kind} must be a finite number above 0, got {invalid[0]:g}", code=f"arrivals.invalid_{kind}"
        )
