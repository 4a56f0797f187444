"""Layout analysis of a page without text recognition: its skew, its table and its stamp."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circinus.operators import operator
from documents.page import Box, Layout, Page

Cells = NDArray[np.float32]
"""Value in 0..1 of each cell of several pages, shape (pages, rows, columns)."""

_CELL_PX = {"coarse": 4, "fine": 2}
_LARGEST_SKEW_DEG = 4.0
_SKEW_STEP_DEG = 0.25
_STAMP_PX = (44, 128)
_FRAME_PX = 6
_MIN_FRAME_DENSITY = 0.45
_RULE_SHARE = 0.72
"""Minimum length of a table rule, as a fraction of the page width."""


@operator
class FindLayout:
    """Layout analysis. Knob `resolution`: cells of 4 x 4 pixels (`coarse`) or 2 x 2 (`fine`, four times the work)."""

    def __init__(self, *, resolution: str) -> None:
        """Set the resolution; raise ValueError if it is unknown."""
        if resolution not in _CELL_PX:
            raise ValueError(f"resolution must be one of {', '.join(_CELL_PX)}, got {resolution!r}")
        self._cell_px = _CELL_PX[resolution]

    def process(self, pages: Sequence[Page]) -> list[Layout]:
        """Return the layout of each page. Pages of equal size are processed as one batch."""
        layouts: dict[int, Layout] = {}
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, page in enumerate(pages):
            by_shape.setdefault(page.pixels.shape, []).append(index)
        for indices in by_shape.values():
            batch = find_layouts(np.stack([pages[index].pixels for index in indices]), self._cell_px)
            layouts.update(zip(indices, batch, strict=True))
        return [layouts[index] for index in range(len(pages))]


def find_layouts(pixels: NDArray[np.uint8], cell_px: int) -> list[Layout]:
    """Return the layouts of pages of equal size; `pixels` has shape (pages, height, width)."""
    grey = cell_means(pixels, cell_px)
    paper = np.median(grey[:, ::4, ::4], axis=(1, 2))[:, None, None]
    ink = np.clip((paper - grey) / 220.0, 0.0, 1.0)
    skews_deg = find_skews(ink)
    straight = np.stack([sheared(page_ink[None], skew)[0] for page_ink, skew in zip(ink, skews_deg, strict=True)])
    rules = count_rules(straight)
    stamps = find_stamps(straight, cell_px)
    center_x = pixels.shape[2] / 2
    return [
        Layout(float(skew), _stamp_on_page(stamp, float(skew), center_x), max(0, int(count) - 2))
        for skew, count, stamp in zip(skews_deg, rules, stamps, strict=True)
    ]


def cell_means(pixels: NDArray[np.uint8], cell_px: int) -> Cells:
    """Return the mean tone of each cell."""
    pages, height, width = pixels.shape
    rows, columns = height // cell_px, width // cell_px
    cut = pixels[:, : rows * cell_px, : columns * cell_px].astype(np.float32)
    means: Cells = cut.reshape(pages, rows, cell_px, columns, cell_px).mean(axis=(2, 4))
    return means


def find_skews(ink: Cells) -> NDArray[np.float64]:
    """Return the skew of each page in degrees, shape (pages,).

    The correct angle separates lines of text from the gaps between them most clearly: it maximises the sum of squares
    of the ink projected onto the left margin (Postl 1986).
    """
    angles_deg = np.arange(-_LARGEST_SKEW_DEG, _LARGEST_SKEW_DEG + _SKEW_STEP_DEG / 2, _SKEW_STEP_DEG)
    sharpness = np.stack([(sheared(ink, angle).sum(axis=2) ** 2).sum(axis=1) for angle in angles_deg])
    sharpest: NDArray[np.float64] = angles_deg[np.argmax(sharpness, axis=0)]
    return sharpest


def sheared(ink: Cells, skew_deg: float) -> Cells:
    """Return pages with each column shifted vertically, so that lines of skew `skew_deg` become level."""
    rows, columns = ink.shape[1:]
    shift = np.rint(np.tan(np.radians(skew_deg)) * (np.arange(columns) - columns / 2)).astype(int)
    source = np.clip(np.arange(rows)[:, None] + shift[None, :], 0, rows - 1)
    return ink[:, source, np.arange(columns)[None, :]]


def count_rules(straight: Cells) -> NDArray[np.int64]:
    """Return the number of horizontal rules on each level page, shape (pages,)."""
    # A thin rule may fall between two rows of cells, so each cell is added to the cell below it.
    dark = (straight[:, :-1] + straight[:, 1:]) > 0.25
    crossed = dark.mean(axis=2) > _RULE_SHARE
    begins = crossed & ~np.pad(crossed, ((0, 0), (1, 0)))[:, :-1]
    count: NDArray[np.int64] = begins.sum(axis=1)
    return count


def find_stamps(straight: Cells, cell_px: int) -> list[Box | None]:
    """Return the stamp of each level page, in pixels: a frame of pale ink of a stamp's size, with little ink inside."""
    pale = ((straight > 0.25) & (straight < 0.62)).astype(np.float32)
    height, width = (max(1, round(side / cell_px)) for side in _STAMP_PX)
    frame = max(1, round(_FRAME_PX / cell_px))
    total = np.pad(pale.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    inner_height, inner_width = height - 2 * frame, width - 2 * frame
    if straight.shape[1] < height or straight.shape[2] < width:
        return [None] * len(straight)
    outer = _window_sums(total, height, width)
    inner = _window_sums(total, inner_height, inner_width)[
        :, frame : frame + outer.shape[1], frame : frame + outer.shape[2]
    ]
    density = (outer - inner) / (height * width - inner_height * inner_width)
    density -= inner / (inner_height * inner_width)
    stamps: list[Box | None] = []
    for page_density in density:
        row, column = np.unravel_index(int(np.argmax(page_density)), page_density.shape)
        left, top = float(column * cell_px), float(row * cell_px)
        box = Box(left, top, left + width * cell_px, top + height * cell_px)
        stamps.append(box if page_density[row, column] >= _MIN_FRAME_DENSITY else None)
    return stamps


def _window_sums(total: Cells, height: int, width: int) -> Cells:
    return (
        total[:, height:, width:]
        - total[:, :-height, width:]
        - total[:, height:, :-width]
        + total[:, :-height, :-width]
    )


def _stamp_on_page(stamp: Box | None, skew_deg: float, center_x: float) -> Box | None:
    """Return a stamp of the level page in coordinates of the skewed page."""
    if stamp is None:
        return None
    fall = math.tan(math.radians(skew_deg)) * ((stamp.left + stamp.right) / 2 - center_x)
    return Box(stamp.left, stamp.top + fall, stamp.right, stamp.bottom + fall)
