"""Operators that recognize the text of a candidate: a cascade of narrow and wide images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circinus import Branch
from circinus.operators import operator
from driving.clip import Candidate, Reading
from driving.inference import session
from driving.models import RECOGNIZER
from driving.plate_format import in_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLASSES = (0, *range(33, 69))
"""Classes of the blank and of `ALPHABET`, among the 18,710 that the model has learnt."""
_HEIGHT_PX = 48
_LARGE_WIDTHS_PX = (160, 224)
_MAX_CONFIDENCE = 0.999
"""Largest confidence of a reading, so that it never reaches a threshold of 1."""


@operator
class ReadSmall:
    """Text recognition on a narrow image. Knobs: `width` of the image, and `threshold`.

    The time of the recognizer grows with the width. A candidate whose reading has at least the confidence `threshold`
    takes the branch `sure` with its reading. Others take the branch `unsure` as they are. All readings reach a
    threshold of 0, and none reaches 1.
    """

    def __init__(self, *, width: int, threshold: float, cpus: float = 1.0) -> None:
        """Load the model.

        Raises:
            ValueError: the width is less than 32, or the threshold is not in [0, 1].
            OperatorError: model files are missing or changed.
        """
        if width < 32:
            raise ValueError(f"width must be at least 32, got {width}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        self._threshold = threshold
        self._recognizer = Recognizer([width], max(1, int(cpus)))

    def process(self, candidates: Sequence[Candidate]) -> list[Branch]:
        """Return for each candidate the branch `sure` with its reading, or `unsure` with the candidate."""
        readings = self._recognizer.read(candidates)
        return [
            Branch("sure", reading) if reading.confidence >= self._threshold else Branch("unsure", candidate)
            for candidate, reading in zip(candidates, readings, strict=True)
        ]


@operator
class ReadLarge:
    """Text recognition on two wide images, of which the better reading counts."""

    def __init__(self, *, cpus: float = 1.0) -> None:
        """Load the model; raise OperatorError for missing or changed model files."""
        self._recognizer = Recognizer(_LARGE_WIDTHS_PX, max(1, int(cpus)))

    def process(self, candidates: Sequence[Candidate]) -> list[Reading]:
        """Return the reading of each candidate."""
        return self._recognizer.read(candidates)


class Recognizer:
    """Recognizer of letters and digits on images of one or more widths, of which the best reading counts."""

    def __init__(self, widths_px: Sequence[int], threads: int) -> None:
        """Load the model; raise OperatorError for a missing or changed model file."""
        import cv2

        cv2.setNumThreads(threads)
        self._cv2: Any = cv2
        self._session = session(RECOGNIZER, threads)
        self._input = self._session.get_inputs()[0].name
        self._classes = np.array(_CLASSES)
        self._widths_px = tuple(widths_px)

    def read(self, candidates: Sequence[Candidate]) -> list[Reading]:
        """Return the reading of each candidate: the most confident one, if possible with the format of plates."""
        return [
            max(
                (self._reading(candidate, width) for width in self._widths_px),
                key=lambda reading: (in_format(reading.text) is not None, reading.confidence),
            )
            for candidate in candidates
        ]

    def _reading(self, candidate: Candidate, width_px: int) -> Reading:
        image = self._cv2.resize(candidate.pixels, (width_px, _HEIGHT_PX), interpolation=self._cv2.INTER_CUBIC)
        batch = np.repeat(image[None, None].astype(np.float32) / 127.5 - 1, 3, axis=1)
        (probabilities,) = self._session.run(None, {self._input: batch})
        text, confidence = decode(probabilities[0][:, self._classes])
        return Reading(candidate.frame, candidate.box, text, confidence)


def decode(probabilities: NDArray[np.float32]) -> tuple[str, float]:
    """Return the text and its confidence by greedy CTC decoding (Graves et al. 2006).

    `probabilities` has shape (steps, 1 + characters of `ALPHABET`), with the blank first. The confidence is the lowest
    probability of a character, or of the blank for an empty text, and at most 0.999.
    """
    best = probabilities.argmax(axis=1)
    begins = np.flatnonzero((best > 0) & np.r_[True, best[1:] != best[:-1]])
    text = "".join(ALPHABET[best[step] - 1] for step in begins)
    lowest = probabilities[begins, best[begins]].min() if text else probabilities[:, 0].min()
    return text, min(_MAX_CONFIDENCE, float(lowest))
