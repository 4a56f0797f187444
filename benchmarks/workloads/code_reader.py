"""Application that reads codes from noisy pictures, for drift of data and machines.

It is copied next to the specification of `drifting_till`. Answers are computed from the pictures, and noisier pictures
cause more errors. Operators sleep, as if waiting for an accelerator, so that profiles and plans do not depend on the
machine and its load. A file next to the module scales their times.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import numpy as np

from circinus.arrays import FloatArray
from circinus.operators import Item, operator

QUIET, NOISY = (0.0, 0.3), (0.5, 0.9)
"""Ranges of the noise's standard deviation; pixels are 0 or about 1."""
SLOWER = "times_as_long"
"""Name of the file with the factor of all times."""
_DIGITS = 4
_HEIGHT, _WIDTH = 18, 14
"""Pixels of a digit."""
_SMOOTH_S = 0.005
_MODELS = {"small": (0.010, 2, 0, 0), "medium": (0.030, 2, 0, 1), "large": (0.060, 1, 1, 1)}
"""Seconds, side of pixels averaged together, and search range of a digit in pixels, vertically and horizontally."""
_FONT = """
01110 10001 10011 10101 11001 10001 01110
00100 01100 00100 00100 00100 00100 01110
01110 10001 00001 00110 01000 10000 11111
11111 00010 00100 00010 00001 10001 01110
00010 00110 01010 10010 11111 00010 00010
11111 10000 11110 00001 00001 10001 01110
00110 01000 10000 11110 10001 10001 01110
11111 00001 00010 00100 01000 01000 01000
01110 10001 10001 01110 10001 10001 01110
01110 10001 10001 01111 00001 00010 01100
"""


@operator
def smooth(picture: FloatArray, *, passes: int) -> FloatArray:
    """Replace each pixel by the mean of its neighbourhood, which reduces noise and sharpness."""
    _sleep(_SMOOTH_S * passes)
    height, width = picture.shape
    for _ in range(passes):
        padded = np.pad(picture, 1, mode="edge")
        picture = np.mean([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return picture


@operator
class Read:
    """Reads each digit by the most similar pattern."""

    def __init__(self, *, model: str) -> None:
        self._seconds, self._pooling, up, sideways = _MODELS[model]
        offsets = [(y, x) for y in range(-up, up + 1) for x in range(-sideways, sideways + 1)]
        patterns = np.array([[_drawn(digit, *offset) for digit in range(10)] for offset in offsets])
        self._patterns = self._normalized(patterns)

    def process(self, pictures: list[FloatArray]) -> list[str]:
        """Read pictures one by one."""
        return [self._read(picture) for picture in pictures]

    def _read(self, picture: FloatArray) -> str:
        _sleep(self._seconds * (0.7 + 0.6 * zlib.crc32(picture.tobytes()) / 2**32))  # noise does not change the time
        digits = np.stack(np.split(picture, _DIGITS, axis=1))
        similarity = np.einsum("pkn,dn->dkp", self._patterns, self._normalized(digits))
        return "".join(str(digit) for digit in similarity.max(axis=2).argmax(axis=1))

    def _normalized(self, pictures: FloatArray) -> FloatArray:
        """Return (..., height, width) pictures as (..., pixels) with mean 0 and length 1."""
        side = self._pooling
        shape = (*pictures.shape[:-2], _HEIGHT // side, side, _WIDTH // side, side)
        pixels = pictures.reshape(shape).mean(axis=(-3, -1)).reshape(*pictures.shape[:-2], -1)
        centred = pixels - pixels.mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.linalg.norm(centred, axis=-1, keepdims=True))


def pictures(items: int = 200, noise: tuple[float, float] = QUIET, seed: int = 0) -> list[Item]:
    """Return a data set of codes with four digits, each slightly displaced, with noise in a range of strengths."""
    rng = np.random.default_rng(seed)
    return [_item(f"{seed}-{number}", rng, noise) for number in range(items)]


def digits_right(read: str, truth: str) -> float:
    """Return the share of right digits."""
    return sum(digit == expected for digit, expected in zip(read, truth, strict=True)) / len(truth)


def _item(key: str, rng: np.random.Generator, noise: tuple[float, float]) -> Item:
    digits = rng.integers(10, size=_DIGITS).tolist()
    drawn = [_drawn(digit, *rng.integers(-1, 2, size=2).tolist()) * rng.uniform(0.7, 1.0) for digit in digits]
    picture = np.concatenate(drawn, axis=1)
    picture = picture + rng.uniform(*noise) * rng.standard_normal(picture.shape)
    return Item(key, picture, "".join(map(str, digits)))


def _drawn(digit: int, down: int, right: int) -> FloatArray:
    """Draw a digit with a displacement in pixels."""
    rows = _FONT.split("\n")[1 + digit].split()
    small = np.array([[float(pixel) for pixel in row] for row in rows])
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    picture = np.zeros((_HEIGHT, _WIDTH))
    picture[2 + down : 16 + down, 2 + right : 12 + right] = large
    return picture


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds * _time_factor())


def _time_factor() -> float:
    file = Path(__file__).with_name(SLOWER)
    try:
        return float(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 1.0
