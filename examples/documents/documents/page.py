"""Data types that the operators exchange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Page:
    """Image of a page."""

    pixels: NDArray[np.uint8]
    """Shape (height, width); 0 is black."""
    scale: float = 1.0
    """Size relative to the original page."""


@dataclass(frozen=True)
class Box:
    """Axis-aligned rectangle, in pixels of the original page."""

    left: float
    top: float
    right: float
    bottom: float

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies inside the rectangle."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


@dataclass(frozen=True)
class TextLine:
    """Recognized piece of text, with its position."""

    text: str
    x: float
    """Centre of the piece, in pixels of the original page."""
    y: float
    height: float


@dataclass(frozen=True)
class Reading:
    """Recognized text of a page, in no particular order."""

    lines: tuple[TextLine, ...]
    upside_down: bool = False
    """True if the page is upside down, so that its text order is reversed."""


@dataclass(frozen=True)
class Layout:
    """Layout of a page."""

    skew_deg: float
    """Angle by which lines of text fall from left to right."""
    stamp: Box | None
    rows: int
    """Number of table rows without the header; 0 if there is no table."""


@dataclass(frozen=True)
class Document:
    """Output of the pipeline."""

    text: str
    """Text in reading order, without the stamp."""
    fields: tuple[tuple[str, str], ...]
    """Pairs of name and value, sorted."""

    def transcript(self) -> str:
        """Return the text followed by the fields, one per line."""
        return "\n".join([self.text, *(f"{name}: {value}" for name, value in self.fields)])
