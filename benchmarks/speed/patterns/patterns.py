"""Recognition of noisy drawings: real operators of some tens of microseconds to milliseconds, without any model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circinus.operators import Item, operator

Image = NDArray[np.float64]

CLASSES, SIDE = 10, 32
_STROKES = np.random.default_rng(0).random((CLASSES, 3, 4))
_NOISE = (0.4, 0.7, 1.0, 1.4)


def drawing(label: int, rng: np.random.Generator, noise: float) -> Image:
    """Draw the strokes of a class with shaking ends, under noise."""
    image = np.zeros((SIDE, SIDE))
    for start_x, start_y, end_x, end_y in _STROKES[label] + rng.normal(0, 0.05, (3, 4)):
        along = np.linspace(0, 1, 2 * SIDE)
        rows = np.clip((start_x + (end_x - start_x) * along) * (SIDE - 1), 0, SIDE - 1).astype(int)
        columns = np.clip((start_y + (end_y - start_y) * along) * (SIDE - 1), 0, SIDE - 1).astype(int)
        image[rows, columns] = 1.0
    return np.asarray(image + rng.normal(0, noise, image.shape))


def drawings(items: int) -> list[Item]:
    """Return drawings, whose strata are the amounts of noise."""
    rng = np.random.default_rng(2)
    found = []
    for index in range(items):
        label, noise = int(rng.integers(CLASSES)), _NOISE[index % len(_NOISE)]
        value = drawing(label, rng, noise)
        found.append(Item(key=f"{index:04d}", value=value, truth=label, strata={"noise": str(noise)}))
    return found


def is_right(output: int, truth: int) -> float:
    """Return 1 for the right class, else 0."""
    return float(output == truth)


@operator
def smooth(image: Image, *, method: str) -> Image:
    """Replace each point by the mean or the median of its neighbourhood."""
    if method == "none":
        return image
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1, mode="edge"), (3, 3))
    return np.asarray(windows.mean(axis=(2, 3)) if method == "mean" else np.median(windows, axis=(2, 3)))


@operator
def shrink(image: Image, *, side: int) -> Image:
    """Average blocks, so that `side` x `side` points are left."""
    block = SIDE // side
    return np.asarray(image.reshape(side, block, side, block).mean(axis=(1, 3)))


@operator
class Compare:
    """Distances to examples of every class."""

    def __init__(self, *, examples: int) -> None:
        """Draw the examples."""
        rng = np.random.default_rng(1)
        self._drawings = [[drawing(label, rng, 0.8) for _ in range(examples)] for label in range(CLASSES)]
        self._examples: dict[int, Image] = {}

    def process(self, images: Sequence[Image]) -> list[Image]:
        """Return (classes, examples) distances of each image."""
        return [self._distances(image) for image in images]

    def _distances(self, image: Image) -> Image:
        side = len(image)
        if side not in self._examples:
            shrunk = [[shrink(example, side=side) for example in examples] for examples in self._drawings]
            self._examples[side] = np.array(shrunk)
        return np.asarray(((self._examples[side] - image) ** 2).sum(axis=(2, 3)))


@operator
def decide(distances: Image, *, rule: str) -> int:
    """Choose the class of the nearest example, or the class that is nearest on average."""
    of_class = distances.min(axis=1) if rule == "nearest" else distances.mean(axis=1)
    return int(of_class.argmin())
