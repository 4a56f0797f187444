"""An application whose operators take fixed times: a reader with a large and a small model.

Copied beside the specification of `serving_scene`. It takes its time asleep, as who waits for an accelerator does, so
that profiles, and with them plans, are the same on every machine and however busy it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from circinus.operators import Item, operator

_MODELS = {"large": (0.050, 0.96), "small": (0.006, 0.86)}
"""Seconds for a page of mean length, and how probably it is right."""


@operator
def crop(page: int) -> int:
    """What is to be read."""
    return page


@operator
class Read:
    """Reads pages."""

    def __init__(self, *, model: str) -> None:
        self._model = model
        self._seconds, self._right = _MODELS[model]

    def process(self, pages: Sequence[int]) -> list[int]:
        """Page by page; what is read wrongly is always the same."""
        return [self._read(page) for page in pages]

    def _read(self, page: int) -> int:
        time.sleep(self._seconds * random.Random(page).uniform(0.6, 1.4))
        return page if random.Random(f"{self._model} {page}").random() < self._right else -1


def pages(items: int = 120) -> list[Item]:
    """The data set."""
    return [Item(f"page-{page:03d}", page, page) for page in range(items)]


def equal(read: int, truth: int) -> float:
    """1 where it is right."""
    return float(read == truth)
