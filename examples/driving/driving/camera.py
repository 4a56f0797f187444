"""Simulated weather and camera: rain, night and fog, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from driving.traffic import HEIGHT, WIDTH, scale_at_row

if TYPE_CHECKING:
    from PIL import Image

_FOG_TONE = 190
_QUALITY = 40
"""JPEG quality of frames, as cheap cameras send them."""
_NOISE_SEED = 79
_NOISE_MARGIN_PX = 160


@dataclass(frozen=True)
class Weather:
    """Light and weather of a clip."""

    name: str
    noise: float
    """Standard deviation, in grey tones from 0 to 255."""
    brightness: float = 1.0
    """Light of the surroundings; lamps and reflecting plates add theirs."""
    fog: float = 0.0
    """Attenuation per unit of distance."""
    drops: int = 0
    """Number of streaks of rain in a frame."""


WEATHER = (
    Weather("clear", noise=3.0),
    Weather("rain", noise=5.0, brightness=0.7, drops=260),
    Weather("night", noise=9.0, brightness=0.22),
    Weather("fog", noise=4.0, fog=0.75),
)

BLUR_PX = {"sharp": 0.0, "blurred": 1.0}
"""Radius of the Gaussian blur of a lens that is in focus, or is not."""


def take(
    frame: Image.Image, lights: Image.Image, weather: Weather, blur_px: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the pixels of a frame as the camera sees it, shape (height, width)."""
    from PIL import Image, ImageFilter

    tones: NDArray[np.float32] = np.asarray(frame, dtype=np.float32)
    if weather.brightness < 0.5:
        lit = np.asarray(lights, dtype=np.float32) / 255
        glare = np.asarray(lights.filter(ImageFilter.BoxBlur(9)), dtype=np.float32)
        tones = tones * np.maximum(np.float32(weather.brightness), lit) + np.float32(0.3) * glare
    elif weather.brightness < 1:
        # Wet surfaces and grey light take contrast, too.
        tones = np.float32(weather.brightness) * (64 + np.float32(0.75) * tones)
    if weather.fog:
        tones = _in_fog(tones, weather.fog)
    image = Image.fromarray(np.clip(tones, 0, 255).astype(np.uint8))
    if weather.drops:
        _rain(image, weather.drops, rng)
    if blur_px:
        image = image.filter(ImageFilter.GaussianBlur(blur_px))
    top, left = rng.integers(0, _NOISE_MARGIN_PX, size=2)
    noise = _noise()[top : top + HEIGHT, left : left + WIDTH]
    pixels: NDArray[np.uint8] = np.clip(np.asarray(image) + weather.noise * noise, 0, 255).astype(np.uint8)
    return pixels


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a frame as a JPEG image."""
    import io

    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format="JPEG", quality=_QUALITY)
    return target.getvalue()


@cache
def _noise() -> NDArray[np.float32]:
    """Return standard normal noise larger than a frame; to draw it anew for each frame takes a third of the time."""
    rng = np.random.default_rng(_NOISE_SEED)
    return rng.standard_normal((HEIGHT + _NOISE_MARGIN_PX, WIDTH + _NOISE_MARGIN_PX), dtype=np.float32)


def _in_fog(tones: NDArray[np.float32], attenuation: float) -> NDArray[np.float32]:
    distance = np.array([1 / scale_at_row(y) for y in range(HEIGHT)], dtype=np.float32)
    visible = np.exp(-attenuation * distance)[:, None]
    foggy: NDArray[np.float32] = tones * visible + _FOG_TONE * (1 - visible)
    return foggy


def _rain(image: Image.Image, drops: int, rng: np.random.Generator) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    xs, ys = rng.uniform(0, WIDTH, size=drops), rng.uniform(-20, HEIGHT, size=drops)
    lengths = rng.uniform(6, 22, size=drops)
    for x, y, length in zip(xs.tolist(), ys.tolist(), lengths.tolist(), strict=True):
        pen.line((x, y, x + 0.2 * length, y + length), fill=185, width=1)
