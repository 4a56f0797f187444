"""Operators with several models that take fixed times and differ in quality; the output of an item is its score.

Operators sleep, as if waiting for an accelerator, so that profiles and plans do not depend on the machine and its load.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from circinus.operators import Item, operator

FIND = {"fast": (0.004, 0.92), "exact": (0.012, 1.0)}
READ = {"small": (0.006, 0.72), "medium": (0.016, 0.84), "large": (0.040, 0.95)}
"""Model -> seconds for an item of mean length, and mean quality."""
_SPREAD = 0.05


def _work(value: tuple[int, float], model: str, seconds: float, quality: float) -> tuple[int, float]:
    item, earlier = value
    time.sleep(seconds * random.Random(item).uniform(0.6, 1.4))
    return item, earlier * min(1.0, quality + random.Random(f"{model} {item}").uniform(-_SPREAD, _SPREAD))


@operator
class Find:
    """First operator."""

    def __init__(self, *, model: str) -> None:
        self._model = model

    def process(self, values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """Process item by item."""
        return [_work(value, self._model, *FIND[self._model]) for value in values]


@operator
class Read:
    """Second operator, or the only one."""

    def __init__(self, *, model: str) -> None:
        self._model = model

    def process(self, values: Sequence[tuple[int, float]]) -> list[float]:
        """Process item by item."""
        return [_work(value, self._model, *READ[self._model])[1] for value in values]


def items(count: int = 160) -> list[Item]:
    """Return the data set."""
    return [Item(f"item-{number:03d}", (number, 1.0), 1.0) for number in range(count)]


def quality(output: float, truth: float) -> float:
    """Return the quality of an output."""
    return output
