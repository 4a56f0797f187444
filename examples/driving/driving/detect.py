"""Operator that finds regions of a clip that may be number plates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circinus.operators import operator
from driving.clip import Box, Candidate, Clip
from driving.inference import session
from driving.models import MOBILE_DETECTOR, SMALL_DETECTOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Boxes = Iterator[Box]
    Finder = Callable[[NDArray[np.uint8]], Boxes]

_MODELS = {"mobile": MOBILE_DETECTOR, "small": SMALL_DETECTOR}
_METHODS = ("edges", *_MODELS)
_MIN_WIDTH_PX, _MIN_HEIGHT_PX = 40, 9
_ASPECT = (1.8, 8.0)
"""Width of a plate relative to its height, including tilted plates and narrow crops."""
_MIN_PROBABILITY = 0.3
_MIN_CONFIDENCE = 0.5
_UNCLIP = 1.6
"""Growth of regions, which the models shrink to separate neighbours (Liao et al. 2020: Real-time scene text detection
with differentiable binarization)."""
_EDGE_STRENGTH = 60
_GAP_PX = 7
"""Gap between two characters that is closed to join them, at half the resolution of the frame."""
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@operator
class Detect:
    """Plate detection. Knobs: `model`, `size` of its image, and `stride`.

    `mobile` and `small` are neural text detectors; `edges` joins neighbouring vertical edges, as the strokes of
    characters have. `size` is the width of the image for the detector, while the regions that are cut out have the
    resolution of the frame. `stride` k processes each k-th frame, so it divides the number of regions by k.
    """

    def __init__(self, *, model: str, size: int, stride: int, cpus: float = 1.0) -> None:
        """Load the model.

        Raises:
            ValueError: the model is unknown, the size is less than 32, or the stride less than 1.
            OperatorError: model files are missing or changed.
        """
        if model not in _METHODS:
            raise ValueError(f"model must be one of {', '.join(_METHODS)}, got {model!r}")
        if size < 32 or stride < 1:
            raise ValueError(f"size must be at least 32 and stride at least 1, got {size} and {stride}")
        import cv2

        threads = max(1, int(cpus))
        cv2.setNumThreads(threads)
        self._cv2: Any = cv2
        self._size = size
        self._stride = stride
        self._session: Any = session(_MODELS[model], threads) if model in _MODELS else None
        self._boxes: Finder = self._boxes_of_text if model in _MODELS else self._boxes_of_edges

    def process(self, clips: Sequence[Clip]) -> list[list[Candidate]]:
        """Return the candidates of each clip, in order of their frames."""
        return [list(self._candidates(clip)) for clip in clips]

    def _candidates(self, clip: Clip) -> Iterator[Candidate]:
        for index in range(0, len(clip.frames), self._stride):
            content = np.frombuffer(clip.frames[index], dtype=np.uint8)
            frame: NDArray[np.uint8] = self._cv2.imdecode(content, self._cv2.IMREAD_GRAYSCALE)
            height, width = frame.shape
            size = (self._size, max(32, round(self._size * height / width / 32) * 32))
            small = self._cv2.resize(frame, size, interpolation=self._cv2.INTER_AREA)
            for box in self._boxes(small):
                candidate = _cut(frame, index, box, width / size[0], height / size[1])
                if candidate is not None:
                    yield candidate

    def _boxes_of_text(self, image: NDArray[np.uint8]) -> Boxes:
        colors = self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2BGR).astype(np.float32) / 255
        batch = ((colors - _MEAN) / _STD).transpose(2, 0, 1)[None]
        (probabilities,) = self._session.run(None, {self._session.get_inputs()[0].name: batch})
        probability = probabilities[0, 0]
        for box in self._regions((probability > _MIN_PROBABILITY).astype(np.uint8)):
            inside = probability[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
            if inside[inside > _MIN_PROBABILITY].mean() >= _MIN_CONFIDENCE:
                yield _grown(box, _UNCLIP * box.width * box.height / (2 * (box.width + box.height)))

    def _boxes_of_edges(self, image: NDArray[np.uint8]) -> Boxes:
        edges = self._cv2.convertScaleAbs(self._cv2.Sobel(image, self._cv2.CV_16S, 1, 0))
        strong = (edges > _EDGE_STRENGTH).astype(np.uint8)
        gap_px = max(3, round(_GAP_PX * image.shape[1] / 320))
        joined = self._cv2.morphologyEx(strong, self._cv2.MORPH_CLOSE, np.ones((1, gap_px), dtype=np.uint8))
        opened = self._cv2.morphologyEx(joined, self._cv2.MORPH_OPEN, np.ones((3, gap_px), dtype=np.uint8))
        for box in self._regions(opened):
            yield _grown(box, 0.12 * box.height)

    def _regions(self, mask: NDArray[np.uint8]) -> Boxes:
        _, _, stats, _ = self._cv2.connectedComponentsWithStats(mask, connectivity=8)
        for left, top, width, height, _ in stats[1:].tolist():
            yield Box(left, top, left + width, top + height)


def _grown(box: Box, margin: float) -> Box:
    return Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)


def _cut(frame: NDArray[np.uint8], index: int, box: Box, scale_x: float, scale_y: float) -> Candidate | None:
    """Return the region of a frame, or None if it cannot be a plate; `box` is in pixels of the detector's image."""
    left, right = max(0, round(box.left * scale_x)), min(frame.shape[1], round(box.right * scale_x))
    top, bottom = max(0, round(box.top * scale_y)), min(frame.shape[0], round(box.bottom * scale_y))
    width, height = right - left, bottom - top
    if width < _MIN_WIDTH_PX or height < _MIN_HEIGHT_PX or not _ASPECT[0] <= width / height <= _ASPECT[1]:
        return None
    return Candidate(index, Box(left, top, right, bottom), frame[top:bottom, left:right].copy())
