"""Page drawing, and simulated distortions of scanners and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from documents.templates import HEIGHT, WIDTH, Draft

if TYPE_CHECKING:
    from PIL import Image, ImageFont

STAMP_WIDTH, STAMP_HEIGHT = 128, 44
_STAMP_TONE = 150
"""Grey tone of stamp ink, which is paler than print."""
_PAPER = 245
_TONES = 16
"""Number of grey tones: enough for text, and few enough for noisy pages to compress well."""


@dataclass(frozen=True)
class Condition:
    """Capture condition of a page."""

    name: str
    skew_deg: float = 0.0
    blur_px: float = 0.0
    """Radius of the Gaussian blur."""
    noise: float = 0.0
    """Standard deviation, in grey tones from 0 to 255."""
    specks: float = 0.0
    """Fraction of pixels replaced by black or white."""
    upside_down: bool = False


CONDITIONS = (
    Condition("clean"),
    Condition("skewed a little", skew_deg=1.0, noise=6.0),
    Condition("skewed", skew_deg=3.0, noise=6.0),
    Condition("blurred a little", blur_px=0.9, noise=6.0),
    Condition("blurred", blur_px=1.4, noise=6.0),
    Condition("noisy a little", noise=25.0, specks=0.02),
    Condition("noisy", noise=40.0, specks=0.06),
    Condition("upside down", noise=6.0, upside_down=True),
)


def draw(draft: Draft) -> Image.Image:
    """Return the undistorted page as a greyscale image."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (WIDTH, HEIGHT), _PAPER)
    pen = ImageDraw.Draw(image)
    for text in draft.texts:
        pen.text((text.x, text.y), text.text, fill=20, font=_font(text.size), anchor=_anchor(text.right))
    for left, right, y in draft.rules:
        pen.line((left, y, right, y), fill=40, width=1)
    if draft.stamp is not None:
        left, top, word = draft.stamp
        pen.rectangle((left, top, left + STAMP_WIDTH, top + STAMP_HEIGHT), outline=_STAMP_TONE, width=5)
        middle = (left + STAMP_WIDTH // 2, top + STAMP_HEIGHT // 2)
        pen.text(middle, word, fill=_STAMP_TONE, font=_font(20), anchor="mm")
    return image


def take(image: Image.Image, condition: Condition, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the pixels of `image` captured under `condition`, shape (height, width)."""
    from PIL import Image, ImageFilter

    skew_deg = condition.skew_deg * rng.choice([-1.0, 1.0]) + (180.0 if condition.upside_down else 0.0)
    if skew_deg:
        image = image.rotate(skew_deg, resample=Image.Resampling.BICUBIC, fillcolor=_PAPER)
    if condition.blur_px:
        image = image.filter(ImageFilter.GaussianBlur(condition.blur_px))
    pixels = np.asarray(image, dtype=np.float64)
    pixels = pixels + condition.noise * rng.standard_normal(pixels.shape)
    specks = rng.uniform(size=pixels.shape) < condition.specks
    pixels = np.where(specks, rng.choice([0.0, 255.0], size=pixels.shape), pixels)
    step = 255 / (_TONES - 1)
    return (np.rint(np.clip(pixels, 0, 255) / step) * step).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, and has no font that scales; install its wheel")
    return font


def _anchor(right: bool) -> str:
    return "ra" if right else "la"
