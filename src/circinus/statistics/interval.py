"""Value with a lower and an upper bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """Value between two bounds. The creator of the interval defines the confidence level of the bounds."""

    value: float
    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.value <= self.upper:
            raise ValueError(f"value {self.value} is outside [{self.lower}, {self.upper}]")

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Return the interval whose bounds equal its value."""
        return cls(value, value, value)
