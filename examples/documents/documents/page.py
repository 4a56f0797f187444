"""What travels between the operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Page:
    """The picture of one page."""

    pixels: NDArray[np.uint8]
    """Shape (height, width); 0 is black."""
    scale: float = 1.0
    """Its size relative to the page as it came in."""


@dataclass(frozen=True)
class Box:
    """An upright rectangle, in pixels of the page as it came in."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies inside."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


@dataclass(frozen=True)
class TextLine:
    """A piece of text that was read in one go, and where."""

    text: str
    x: float
    """Middle of the piece, in pixels of the page as it came in."""
    y: float
    height: float


@dataclass(frozen=True)
class Reading:
    """All text of a page, in no order that could be relied on."""

    lines: tuple[TextLine, ...]
    upside_down: bool = False
    """Whether the page lies on its head, so that its order is the reverse."""


@dataclass(frozen=True)
class Layout:
    """How a page is built."""

    skew_deg: float
    """How far its lines fall from left to right."""
    stamp: Box | None
    rows: int
    """Rows of its table, without the head; 0: no table."""


@dataclass(frozen=True)
class Document:
    """What the pipeline answers."""

    text: str
    """Line by line, without the stamp."""
    fields: tuple[tuple[str, str], ...]
    """Sorted pairs of name and value."""

    def transcript(self) -> str:
        """The text, and after it the fields, one a line."""
        return "\n".join([self.text, *(f"{name}: {value}" for name, value in self.fields)])
