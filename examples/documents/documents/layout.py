"""Seeing how a page is built without reading it: its skew, its table and its stamp."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circinus.operators import operator
from documents.page import Box, Layout, Page

Cells = NDArray[np.float32]
"""One value in 0..1 for each cell of some pages; shape (pages, rows, columns)."""

_CELL_PX = {"coarse": 4, "fine": 2}
_LARGEST_SKEW_DEG = 4.0
_SKEW_STEP_DEG = 0.25
_STAMP_PX = (44, 128)
_FRAME_PX = 6
_LEAST_FRAME = 0.45
_RULE_SHARE = 0.72
"""Of a page's width that a rule of a table crosses at least."""


@operator
class FindLayout:
    """Knob `resolution`: `coarse` looks at cells of 4 x 4 pixels, `fine` at cells of 2 x 2, for four times the work."""

    def __init__(self, *, resolution: str) -> None:
        """Raises ValueError for an unknown resolution."""
        if resolution not in _CELL_PX:
            raise ValueError(f"resolution: found {resolution!r}, expected one of {', '.join(_CELL_PX)}")
        self._cell_px = _CELL_PX[resolution]

    def process(self, pages: Sequence[Page]) -> list[Layout]:
        """The layout of each page; pages of one size are looked at together."""
        found: dict[int, Layout] = {}
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, page in enumerate(pages):
            by_shape.setdefault(page.pixels.shape, []).append(index)
        for indices in by_shape.values():
            together = find_layouts(np.stack([pages[index].pixels for index in indices]), self._cell_px)
            found.update(zip(indices, together, strict=True))
        return [found[index] for index in range(len(pages))]


def find_layouts(pixels: NDArray[np.uint8], cell_px: int) -> list[Layout]:
    """Layouts of pages of one size: `pixels` has shape (pages, height, width)."""
    grey = cell_means(pixels, cell_px)
    paper = np.median(grey[:, ::4, ::4], axis=(1, 2))[:, None, None]
    ink = np.clip((paper - grey) / 220.0, 0.0, 1.0)
    skews_deg = find_skews(ink)
    straight = np.stack([sheared(one[None], skew)[0] for one, skew in zip(ink, skews_deg, strict=True)])
    rules = count_rules(straight)
    stamps = find_stamps(straight, cell_px)
    middle = pixels.shape[2] / 2
    return [
        Layout(float(skew), _leaning(stamp, float(skew), middle), max(0, int(count) - 2))
        for skew, count, stamp in zip(skews_deg, rules, stamps, strict=True)
    ]


def cell_means(pixels: NDArray[np.uint8], cell_px: int) -> Cells:
    """Mean tone of each cell."""
    pages, height, width = pixels.shape
    rows, columns = height // cell_px, width // cell_px
    cut = pixels[:, : rows * cell_px, : columns * cell_px].astype(np.float32)
    means: Cells = cut.reshape(pages, rows, cell_px, columns, cell_px).mean(axis=(2, 4))
    return means


def find_skews(ink: Cells) -> NDArray[np.float64]:
    """The skew of each page in degrees, shape (pages,).

    Along the right direction lines of text and the gaps between them stand out most: the sum of squares of the ink
    projected on the left margin is largest there (Postl 1986).
    """
    angles_deg = np.arange(-_LARGEST_SKEW_DEG, _LARGEST_SKEW_DEG + _SKEW_STEP_DEG / 2, _SKEW_STEP_DEG)
    sharpness = np.stack([(sheared(ink, angle).sum(axis=2) ** 2).sum(axis=1) for angle in angles_deg])
    sharpest: NDArray[np.float64] = angles_deg[np.argmax(sharpness, axis=0)]
    return sharpest


def sheared(ink: Cells, skew_deg: float) -> Cells:
    """Pages with each column moved up or down so that lines of that skew become level."""
    rows, columns = ink.shape[1:]
    shift = np.rint(np.tan(np.radians(skew_deg)) * (np.arange(columns) - columns / 2)).astype(int)
    source = np.clip(np.arange(rows)[:, None] + shift[None, :], 0, rows - 1)
    return ink[:, source, np.arange(columns)[None, :]]


def count_rules(straight: Cells) -> NDArray[np.int64]:
    """How many horizontal rules cross each level page, shape (pages,)."""
    # A thin rule may fall between two rows of cells, so each cell counts with the one below it.
    dark = (straight[:, :-1] + straight[:, 1:]) > 0.25
    crossed = dark.mean(axis=2) > _RULE_SHARE
    begins = crossed & ~np.pad(crossed, ((0, 0), (1, 0)))[:, :-1]
    count: NDArray[np.int64] = begins.sum(axis=1)
    return count


def find_stamps(straight: Cells, cell_px: int) -> list[Box | None]:
    """The stamp of each level page, in pixels: where pale ink forms a frame of a stamp's size around little ink."""
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
    found: list[Box | None] = []
    for one in density:
        row, column = np.unravel_index(int(np.argmax(one)), one.shape)
        left, top = float(column * cell_px), float(row * cell_px)
        box = Box(left, top, left + width * cell_px, top + height * cell_px)
        found.append(box if one[row, column] >= _LEAST_FRAME else None)
    return found


def _window_sums(total: Cells, height: int, width: int) -> Cells:
    return (
        total[:, height:, width:]
        - total[:, :-height, width:]
        - total[:, height:, :-width]
        + total[:, :-height, :-width]
    )


def _leaning(stamp: Box | None, skew_deg: float, middle_x: float) -> Box | None:
    """Where a box that was found on the level page lies on the page itself."""
    if stamp is None:
        return None
    fall = math.tan(math.radians(skew_deg)) * ((stamp.left + stamp.right) / 2 - middle_x)
    return Box(stamp.left, stamp.top + fall, stamp.right, stamp.bottom + fall)
