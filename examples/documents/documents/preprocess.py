"""Making a page easier to read, or cheaper to send and to read."""

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
"""By how much a speck differs from all its neighbours, at least."""


@operator
class Preprocess:
    """Knobs `method` and `scale`.

    `despeckle` takes out single pixels that are darker or paler than all around them. `binarise` makes each pixel black
    or white by comparing it with its surroundings, as scanners do; readers that were trained on photographs miss the
    greys. `scale` shrinks the page afterwards: 0.5 leaves a quarter of the bytes.
    """

    def __init__(self, *, method: str, scale: float, cpus: float = 1.0) -> None:
        """Raises ValueError for an unknown method, or a scale that is not within 0..1."""
        if method not in _METHODS:
            raise ValueError(f"method: found {method!r}, expected one of {', '.join(_METHODS)}")
        if not 0 < scale <= 1:
            raise ValueError(f"scale: found {scale}, expected more than 0 and at most 1")
        import cv2

        cv2.setNumThreads(max(1, int(cpus)))
        self._cv2: Any = cv2
        self._method = method
        self._scale = scale

    def process(self, pages: Sequence[Page]) -> list[Page]:
        """One page for each page."""
        return [self._changed(page) for page in pages]

    def _changed(self, page: Page) -> Page:
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
        around = np.ones((3, 3), dtype=np.uint8)
        around[1, 1] = 0
        darkest = self._cv2.erode(pixels, around).astype(np.int16)
        palest = self._cv2.dilate(pixels, around).astype(np.int16)
        speck = (pixels < darkest - _SPECK_TONES) | (pixels > palest + _SPECK_TONES)
        return np.where(speck, self._cv2.medianBlur(pixels, 3), pixels).astype(np.uint8)
