"""Operator that recognizes the text of a page."""

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
_MIN_CONFIDENCE = 0.5
_MIN_ANGLE_CONFIDENCE = 0.9
"""Minimum confidence of a piece of text that votes for an upside-down page; blurred pieces are unreliable."""


@operator
class Ocr:
    """Text recognition. Knobs: `size` of the image for text detection, and `angle` to detect upside-down pages.

    The time of the detector grows with the area of its image. The recognizer reads each piece of text at the resolution
    of the page.
    """

    def __init__(self, *, size: str, angle: bool, cpus: float = 1.0) -> None:
        """Load the models; raise ValueError for an unknown size, OperatorError for missing or changed model files."""
        if size not in _LONGER_SIDE_PX:
            raise ValueError(f"size must be one of {', '.join(_LONGER_SIDE_PX)}, got {size!r}")
        import cv2
        from rapidocr import RapidOCR
        from rapidocr.main import RapidOCRError

        threads = max(1, int(cpus))
        cv2.setNumThreads(threads)
        self._cv2: Any = cv2
        self._angle = angle
        self._no_text_error = RapidOCRError
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
        """Return the text of each page."""
        return [self._read(page) for page in pages]

    def _load(self) -> None:
        # The engine loads models lazily, but a replica must not report ready before all of them are loaded.
        blank = np.full((64, 64, 3), 255, dtype=np.uint8)
        with suppress(self._no_text_error):
            self._engine.detect_and_crop(blank, {})
        if self._angle:
            self._engine.cls_and_rotate([blank])
        self._engine.recognize_txt([blank])

    def _read(self, page: Page) -> Reading:
        image = self._cv2.cvtColor(page.pixels, self._cv2.COLOR_GRAY2BGR)
        try:
            pieces, detection = self._engine.detect_and_crop(image, {})
            upside_down = self._angle and self._is_upside_down(pieces)
            if upside_down:
                pieces = [self._cv2.rotate(piece, self._cv2.ROTATE_180) for piece in pieces]
            recognition = self._engine.recognize_txt(pieces)
        except self._no_text_error:
            return Reading(())
        lines = (
            _line(text, corners / page.scale)
            for text, confidence, corners in zip(recognition.txts, recognition.scores, detection.boxes, strict=True)
            if text.strip() and confidence >= _MIN_CONFIDENCE
        )
        return Reading(tuple(lines), upside_down)

    def _is_upside_down(self, pieces: list[NDArray[np.uint8]]) -> bool:
        # All pieces of a page have the same orientation, so a majority vote is more reliable than a single piece.
        _, orientation = self._engine.cls_and_rotate(pieces)
        labels = [label for label, confidence in orientation.cls_res if confidence > _MIN_ANGLE_CONFIDENCE]
        return labels.count("180") > len(pieces) / 2


def _line(text: str, corners: NDArray[np.float32]) -> TextLine:
    """Return a text line; `corners` has shape (4, 2), clockwise from the upper left corner."""
    x, y = corners.mean(axis=0)
    height = (abs(corners[3, 1] - corners[0, 1]) + abs(corners[2, 1] - corners[1, 1])) / 2
    return TextLine(text.strip(), float(x), float(y), float(height))
