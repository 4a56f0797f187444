"""Reading the text of a page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from circinus.operators import operator
from documents.model_files import model_path
from documents.models import CLASSIFIER, DETECTOR, RECOGNIZER
from documents.page import Page, Reading, TextLine

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGER_SIDE_PX = {"small": 256, "medium": 416, "large": 704}
_LEAST_CONFIDENCE = 0.5
_SURE = 0.9
"""Confidence from which a piece of text may vote for turning the page: blurred ones guess."""


@operator
class Ocr:
    """Knobs `size` (of the picture in which text is looked for) and `angle` (whether to look for pages turned over).

    The detector's time grows with the area it looks at; what it finds is read in the page's own resolution.
    """

    def __init__(self, *, size: str, angle: bool, cpus: float = 1.0) -> None:
        """Raises ValueError for an unknown size, OperatorError when the models are missing or not as expected."""
        if size not in _LONGER_SIDE_PX:
            raise ValueError(f"size: found {size!r}, expected one of {', '.join(_LONGER_SIDE_PX)}")
        import cv2
        from rapidocr import RapidOCR
        from rapidocr.main import RapidOCRError

        threads = max(1, int(cpus))
        cv2.setNumThreads(threads)
        self._cv2: Any = cv2
        self._angle = angle
        self._nothing_found = RapidOCRError
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "error",
                "Det.model_path": str(model_path(DETECTOR)),
                "Cls.model_path": str(model_path(CLASSIFIER)),
                "Rec.model_path": str(model_path(RECOGNIZER)),
                "Det.limit_type": "max",
                "Det.limit_side_len": _LONGER_SIDE_PX[size],
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
        self._load()

    def process(self, pages: Sequence[Page]) -> list[Reading]:
        """What stands on each page."""
        return [self._read(page) for page in pages]

    def _load(self) -> None:
        # The engine loads each model when it is first needed; a replica is ready only when it has all of them.
        blank = np.full((64, 64, 3), 255, dtype=np.uint8)
        with suppress(self._nothing_found):
            self._engine.detect_and_crop(blank, {})
        if self._angle:
            self._engine.cls_and_rotate([blank])
        self._engine.recognize_txt([blank])

    def _read(self, page: Page) -> Reading:
        picture = self._cv2.cvtColor(page.pixels, self._cv2.COLOR_GRAY2BGR)
        try:
            pieces, found = self._engine.detect_and_crop(picture, {})
            upside_down = self._angle and self._most_stand_on_their_head(pieces)
            if upside_down:
                pieces = [self._cv2.rotate(piece, self._cv2.ROTATE_180) for piece in pieces]
            read = self._engine.recognize_txt(pieces)
        except self._nothing_found:
            return Reading(())
        lines = (
            _line(text, corners / page.scale)
            for text, confidence, corners in zip(read.txts, read.scores, found.boxes, strict=True)
            if text.strip() and confidence >= _LEAST_CONFIDENCE
        )
        return Reading(tuple(lines), upside_down)

    def _most_stand_on_their_head(self, pieces: list[NDArray[np.uint8]]) -> bool:
        # A page is turned as a whole: the vote of its pieces is surer than each alone.
        _, told = self._engine.cls_and_rotate(pieces)
        return sum(label == "180" and sure > _SURE for label, sure in told.cls_res) > len(pieces) / 2


def _line(text: str, corners: NDArray[np.float32]) -> TextLine:
    """A piece of text with its place; `corners` has shape (4, 2): from the upper left one clockwise."""
    x, y = corners.mean(axis=0)
    height = (abs(corners[3, 1] - corners[0, 1]) + abs(corners[2, 1] - corners[1, 1])) / 2
    return TextLine(text.strip(), float(x), float(y), float(height))
