"""Data types that the operators exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True)
class Clip:
    """Short recording of a traffic camera."""

    frames: tuple[bytes, ...]
    """Greyscale JPEG images of equal size, in order of time."""


@dataclass(frozen=True)
class Box:
    """Axis-aligned rectangle, in pixels of a frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def center(self) -> tuple[float, float]:
        """Centre as (x, y)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlaps(self, other: Box) -> bool:
        """Return whether both rectangles share an area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width > 0 and height > 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """Region of a frame that may be a number plate: the element between `detect` and the readers."""

    frame: int
    """Index of the frame in its clip."""
    box: Box
    pixels: NDArray[np.uint8]
    """Region at the resolution of the frame, shape (height, width)."""


@dataclass(frozen=True)
class Reading:
    """Recognized text of a candidate."""

    frame: int
    box: Box
    text: str
    """Letters and digits without spaces; empty if none were recognized."""
    confidence: float
    """Lowest probability of a character, or that there is none, in [0, 1)."""


@dataclass(frozen=True)
class Truth:
    """Plates of the vehicles in a clip."""

    readable: Collection[str]
    """Plates that are large enough and not covered in at least one frame."""
    others: Collection[str]
    """Plates that are too small or covered in all frames. To read one of them is neither right nor wrong."""
