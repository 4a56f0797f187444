"""Application whose operators take fixed times: a reader with a large and a small model.

It is copied next to the specification of `burst_shop`. Operators sleep, as if waiting for an accelerator, so that
profiles and plans do not depend on the machine and its load.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from circinus.operators import Item, operator

_MODELS = {"large": (0.050, 0.96), "small": (0.006, 0.86)}
"""Seconds for a page of mean length, and probability of a right answer."""


@operator
def crop(page: int) -> int:
    """Return the part to be read."""
    return page


@operator
class Read:
    """Reads pages."""

    def __init__(self, *, model: str) -> None:
        self._model = model
        self._seconds, self._right = _MODELS[model]

    def process(self, pages: Sequence[int]) -> list[int]:
        """Read page by page; errors are reproducible."""
        return [self._read(page) for page in pages]

    def _read(self, page: int) -> int:
        time.sleep(self._seconds * random.Random(page).uniform(0.6, 1.4))
        return page if random.Random(f"{self._model} {page}").random() < self._right else -1


def pages(items: int = 120) -> list[Item]:
    """Return the data set."""
    return [Item(f"page-{page:03d}", page, page) for page in range(items)]


def equal(read: int, truth: int) -> float:
    """Return 1 for a right answer, else 0."""
    return float(read == truth)
