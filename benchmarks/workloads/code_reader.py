"""An application that reads codes from noisy pictures: what is measured where data or machines change.

Copied beside the specification of `serving_drift_scene`. What it answers is computed of the pictures, and the noisier
these are the more often it is wrong. It takes its time asleep, as who waits for an accelerator does, so that profiles,
and with them plans, are the same on every machine and however busy it is; times as long where a file beside it says so.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import numpy as np

from circinus.arrays import FloatArray
from circinus.operators import Item, operator

QUIET, NOISY = (0.0, 0.3), (0.5, 0.9)
"""Standard deviations of the noise, of pixels that are 0 or about 1."""
SLOWER = "times_as_long"
"""Name of the file."""
_DIGITS = 4
_HEIGHT, _WIDTH = 18, 14
"""Pixels of a digit."""
_SMOOTH_S = 0.005
_MODELS = {"small": (0.010, 2, 0, 0), "medium": (0.030, 2, 0, 1), "large": (0.060, 1, 1, 1)}
"""Seconds, pixels that are taken together, and by how many pixels up, down and sideways a digit is looked for."""
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
    """Every pixel the mean of its neighbourhood: less noise, and less sharp."""
    _take(_SMOOTH_S * passes)
    height, width = picture.shape
    for _ in range(passes):
        wider = np.pad(picture, 1, mode="edge")
        picture = np.mean([wider[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return picture


@operator
class Read:
    """Names each digit by the pattern that is most like it."""

    def __init__(self, *, model: str) -> None:
        self._seconds, self._together, up, aside = _MODELS[model]
        places = [(y, x) for y in range(-up, up + 1) for x in range(-aside, aside + 1)]
        drawn = np.array([[_drawn(digit, *place) for digit in range(10)] for place in places])
        self._patterns = self._compared(drawn)

    def process(self, pictures: list[FloatArray]) -> list[str]:
        """Picture by picture."""
        return [self._read(picture) for picture in pictures]

    def _read(self, picture: FloatArray) -> str:
        _take(self._seconds * (0.7 + 0.6 * zlib.crc32(picture.tobytes()) / 2**32))  # as noise makes no difference to
        digits = np.stack(np.split(picture, _DIGITS, axis=1))
        alike = np.einsum("pkn,dn->dkp", self._patterns, self._compared(digits))
        return "".join(str(digit) for digit in alike.max(axis=2).argmax(axis=1))

    def _compared(self, pictures: FloatArray) -> FloatArray:
        """(..., height, width) pictures as (..., pixels) of mean 0 and length 1."""
        side = self._together
        shape = (*pictures.shape[:-2], _HEIGHT // side, side, _WIDTH // side, side)
        pixels = pictures.reshape(shape).mean(axis=(-3, -1)).reshape(*pictures.shape[:-2], -1)
        centred = pixels - pixels.mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.linalg.norm(centred, axis=-1, keepdims=True))


def pictures(items: int = 200, noise: tuple[float, float] = QUIET, seed: int = 0) -> list[Item]:
    """A data set: codes of four digits, each a little out of its place, with noise of some strength."""
    rng = np.random.default_rng(seed)
    return [_item(f"{seed}-{number}", rng, noise) for number in range(items)]


def digits_right(read: str, truth: str) -> float:
    """Share of the digits."""
    return sum(one == other for one, other in zip(read, truth, strict=True)) / len(truth)


def _item(key: str, rng: np.random.Generator, noise: tuple[float, float]) -> Item:
    digits = rng.integers(10, size=_DIGITS).tolist()
    drawn = [_drawn(digit, *rng.integers(-1, 2, size=2).tolist()) * rng.uniform(0.7, 1.0) for digit in digits]
    picture = np.concatenate(drawn, axis=1)
    picture = picture + rng.uniform(*noise) * rng.standard_normal(picture.shape)
    return Item(key, picture, "".join(map(str, digits)))


def _drawn(digit: int, down: int, right: int) -> FloatArray:
    """One digit, so many pixels out of its place."""
    rows = _FONT.split("\n")[1 + digit].split()
    small = np.array([[float(pixel) for pixel in row] for row in rows])
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    found = np.zeros((_HEIGHT, _WIDTH))
    found[2 + down : 16 + down, 2 + right : 12 + right] = large
    return found


def _take(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds * _times_as_long())


def _times_as_long() -> float:
    file = Path(__file__).with_name(SLOWER)
    try:
        return float(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 1.0
