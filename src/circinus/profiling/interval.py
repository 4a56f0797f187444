"""A number with its bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A value known between two bounds. Which probability the bounds hold with is said by whoever made them."""

    value: float
    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.value <= self.upper:
            raise ValueError(f"found {self.value} outside [{self.lower}, {self.upper}]")

    @classmethod
    def exact(cls, value: float) -> Interval:
        """A number that is known."""
        return cls(value, value, value)
