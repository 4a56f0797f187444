"""Drawing of a road with vehicles, before the weather and the camera change it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from driving.clip import Box
from driving.traffic import HEIGHT, LANE_PX, LANES, WIDTH, Vehicle, scale_at_row

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

_WORDS = ("BAKERY", "CITY CENTRE", "HOTEL", "PARKING", "ONE WAY", "MARKET", "EXPRESS", "TYRES 24H", "MUSEUM", "FUEL")
_PLATE_PX = (384, 96)
"""Size of a plate before it is scaled to its place."""
_LAMP_TONE, _PLATE_LIGHT = 255, 165
"""Brightness of lamps and of plates, which reflect, in the layer of lights."""


def road(rng: np.random.Generator) -> Image.Image:
    """Return the empty road as a greyscale image: lanes, verges, buildings and signs."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (WIDTH, HEIGHT), int(rng.integers(90, 140)))
    pen = ImageDraw.Draw(image)
    for side in (0, 1):
        for _ in range(3):
            left, top = int(rng.integers(0, 150)) + side * 430, int(rng.integers(-20, 120))
            width, height = (int(size) for size in rng.integers(40, 130, size=2))
            pen.rectangle((left, top, left + width, top + height), fill=int(rng.integers(60, 190)))
            for row in range(top + 8, top + height - 12, 20):
                for column in range(left + 6, left + width - 10, 18):
                    pen.rectangle((column, row, column + 9, row + 11), fill=int(rng.integers(40, 220)))
    half = [(LANES * LANE_PX / 2 + 12) * scale_at_row(y) for y in (0, HEIGHT)]
    middle = WIDTH / 2
    asphalt = int(rng.integers(80, 125))
    corners = [(middle - half[0], 0), (middle + half[0], 0), (middle + half[1], HEIGHT), (middle - half[1], HEIGHT)]
    pen.polygon(corners, fill=asphalt)
    for line in range(LANES + 1):
        offset = (line - LANES / 2) * LANE_PX
        is_edge = line in (0, LANES)
        for y in range(0, HEIGHT, 8 if is_edge else 46):
            ends = [y, y + (8 if is_edge else 22)]
            xs = [middle + offset * scale_at_row(end) for end in ends]
            pen.line((xs[0], ends[0], xs[1], ends[1]), fill=min(255, asphalt + 90), width=2 + y // 120)
    for _ in range(int(rng.integers(0, 4))):
        _sign(pen, rng)
    texture = rng.normal(0.0, 4.0, size=(HEIGHT // 2, WIDTH // 2)).repeat(2, axis=0).repeat(2, axis=1)
    return Image.fromarray(np.clip(np.asarray(image) + texture, 0, 255).astype(np.uint8))


def plate_image(vehicle: Vehicle, rng: np.random.Generator) -> Image.Image:
    """Return the plate of a vehicle, large and level."""
    from PIL import Image, ImageDraw

    width, height = _PLATE_PX
    image = Image.new("L", _PLATE_PX, 238)
    pen = ImageDraw.Draw(image)
    pen.rectangle((2, 2, width - 3, height - 3), outline=50, width=4)
    step = (width - 36) / 7.5
    for index, character in enumerate(vehicle.plate):
        x = 18 + step * (index + 0.5 + (0.5 if index > 3 else 0.0))
        pen.text((x, height / 2), character, fill=25, font=_font(74), anchor="mm", stroke_width=2, stroke_fill=25)
    for _ in range(int(vehicle.dirt * 60)):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(5, 13)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=int(rng.integers(70, 160)))
    return image


def draw(
    background: Image.Image, vehicles: list[Vehicle], plates: dict[str, Image.Image], frame: int
) -> tuple[Image.Image, Image.Image]:
    """Return a frame, and the layer of its lights: lamps, and plates that reflect them."""
    from PIL import Image, ImageDraw

    image, lights = background.copy(), Image.new("L", (WIDTH, HEIGHT), 0)
    pen, light_pen = ImageDraw.Draw(image), ImageDraw.Draw(lights)
    visible = [vehicle for vehicle in vehicles if vehicle.is_visible(frame)]
    for vehicle in sorted(visible, key=lambda v: -v.distance_at(frame)):
        body, box = vehicle.body(frame), vehicle.plate_box(frame)
        light_pen.rectangle(_corners(body), fill=0)
        _draw_body(pen, light_pen, vehicle, body)
        plate = _fitted(plates[vehicle.plate], box, vehicle.tilt_deg)
        place = (round(box.center[0] - plate.width / 2), round(box.center[1] - plate.height / 2))
        mask = plate.point(lambda tone: 255 if tone else 0)
        image.paste(plate, place, mask)
        lights.paste(_PLATE_LIGHT, place, mask)
    return image, lights


def _draw_body(pen: ImageDraw.ImageDraw, light_pen: ImageDraw.ImageDraw, vehicle: Vehicle, body: Box) -> None:
    width, height, tone = body.width, body.height, vehicle.tone
    shadow = (body.left + 0.03 * width, body.bottom - 4, body.right - 0.03 * width, body.bottom + 0.07 * height)
    pen.ellipse(shadow, fill=30)
    for x in (body.left + 0.04 * width, body.right - 0.2 * width):
        pen.rectangle((x, body.bottom - 0.1 * height, x + 0.16 * width, body.bottom + 0.04 * height), fill=25)
    top = body.top + (0.0 if vehicle.is_van else 0.38 * height)
    pen.rounded_rectangle((body.left, top, body.right, body.bottom), radius=0.08 * width, fill=tone)
    inset = 0.06 if vehicle.is_van else 0.16
    window = (body.left + inset * width, body.top + 0.04 * height, body.right - inset * width, body.top + 0.4 * height)
    if not vehicle.is_van:
        pen.rounded_rectangle((window[0] - 4, body.top, window[2] + 4, window[3] + 4), radius=0.06 * width, fill=tone)
    pen.rounded_rectangle(window, radius=0.04 * width, fill=max(15, tone // 3))
    for x in (body.left + 0.05 * width, body.right - 0.23 * width):
        lamp = (x, body.bottom - 0.46 * height, x + 0.18 * width, body.bottom - 0.33 * height)
        pen.rounded_rectangle(lamp, radius=3, fill=225)
        light_pen.rounded_rectangle(lamp, radius=3, fill=_LAMP_TONE)
    if vehicle.is_van:
        word = _WORDS[sum(map(ord, vehicle.plate)) % len(_WORDS)]
        place = (body.center[0], body.top + 0.5 * height)
        pen.text(place, word, fill=255 if tone < 128 else 20, font=_font(max(6, round(0.09 * width))), anchor="mm")


def _sign(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    word = str(rng.choice(_WORDS))
    font = _font(int(rng.integers(12, 20)))
    width = font.getlength(word) + 14
    x = rng.uniform(4, 120) if rng.uniform() < 0.5 else rng.uniform(510, 620 - width / 2)
    y = rng.uniform(10, 150)
    is_dark = rng.uniform() < 0.5
    pen.rectangle((x, y, x + width, y + 26), fill=40 if is_dark else 235, outline=128)
    pen.text((x + width / 2, y + 13), word, fill=240 if is_dark else 20, font=font, anchor="mm")


def _fitted(plate: Image.Image, box: Box, tilt_deg: float) -> Image.Image:
    """Return the plate with the size of `box`, tilted; pixels outside of the plate are 0."""
    from PIL import Image

    size = (max(4, round(box.width)), max(2, round(box.height)))
    small = plate.resize(size, resample=Image.Resampling.BOX, reducing_gap=None)
    return small.rotate(tilt_deg, resample=Image.Resampling.BILINEAR, expand=True, fillcolor=0)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, and has no font that scales; install its wheel")
    return font
