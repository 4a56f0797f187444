"""Operator that prepares a page for recognition: less noise, or fewer bytes to send and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circinus.operators import operator
from documents.page import Page

if TYPE_CHECKING:
    from numpy.typing import NDArray

_METHODS = ("none", "despeckle", "binarise")
_SPECK_TONES = 60
"""Minimum difference in grey tone between a speck and all its neighbours."""


@operator
class Preprocess:
    """Image preprocessing. Knobs: `method` and `scale`.

    `despeckle` removes single pixels that are darker or paler than all their neighbours. `binarise` makes each pixel
    black or white by comparison with its neighbourhood, as scanners do. Recognizers trained on photographs then lose
    accuracy, because they use grey tones. Finally, `scale` shrinks the page: 0.5 leaves a quarter of the bytes.
    """

    def __init__(self, *, method: str, scale: float, cpus: float = 1.0) -> None:
        """Set the knobs; raise ValueError if the method is unknown or the scale is not in (0, 1]."""
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        if not 0 < scale <= 1:
            raise ValueError(f"scale must be in (0, 1], got {scale}")
        import cv2

        cv2.setNumThreads(max(1, int(cpus)))
        self._cv2: Any = cv2
        self._method = method
        self._scale = scale

    def process(self, pages: Sequence[Page]) -> list[Page]:
        """Return the preprocessed pages."""
        return [self._preprocessed(page) for page in pages]

    def _preprocessed(self, page: Page) -> Page:
        pixels = page.pixels
        if self._method == "despeckle":
            pixels = self._despeckled(pixels)
        elif self._method == "binarise":
            pixels = self._cv2.adaptiveThreshold(
                pixels, 255, self._cv2.ADAPTIVE_THRESH_GAUSSIAN_C, self._cv2.THRESH_BINARY, 21, 15
            )
        if self._scale != 1:
            pixels = self._cv2.resize(pixels, None, fx=self._scale, fy=self._scale, interpolation=self._cv2.INTER_AREA)
        return Page(pixels, page.scale * self._scale)

    def _despeckled(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        neighbours = np.ones((3, 3), dtype=np.uint8)
        neighbours[1, 1] = 0
        darkest = self._cv2.erode(pixels, neighbours).astype(np.int16)
        palest = self._cv2.dilate(pixels, neighbours).astype(np.int16)
        speck = (pixels < darkest - _SPECK_TONES) | (pixels > palest + _SPECK_TONES)
        return np.where(speck, self._cv2.medianBlur(pixels, 3), pixels).astype(np.uint8)
