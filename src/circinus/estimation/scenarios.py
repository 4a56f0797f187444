"""Scenarios of latency: a measured item and a random draw for the wait at every operator and link.

Scenarios are divided into sections that share no item, so that the percentiles of the sections show the uncertainty of
the percentile (`percentiles`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.errors import PlanningError

_SCENARIOS = 320
"""Number of scenarios up to the 98th percentile; 16 of them lie beyond the 95th."""
_FAR_PERCENTILE = 98.0
"""Percentile beyond which four times as many scenarios are used."""
_WORD = 64
"""Divisor of section sizes, so that scenarios can be counted by words of bits."""


@dataclass(frozen=True)
class ScenarioGrid:
    """Number of sections and scenarios of each section (a multiple of 64); arrays contain section after section."""

    sections: int
    size: int

    @classmethod
    def for_risk(cls, risk: float, percentile: float = 95.0) -> ScenarioGrid:
        """Return the grid for a risk; far percentiles have larger sections.

        There are enough sections that all of them err to the same side with probability at most `risk`, if each does
        with probability 1/2: five for a risk of 0.05.
        """
        sections = max(1, math.ceil(-math.log2(risk)))
        count = _SCENARIOS * (4 if percentile > _FAR_PERCENTILE else 1)
        return cls(sections, _WORD * max(1, round(count / _WORD / sections)))

    @property
    def count(self) -> int:
        return self.sections * self.size

    def items(self, measured: int) -> IntArray:
        """Return (count,) the index of each scenario's item among the measured ones.

        Sections share no item, and each section uses its items equally often (up to one). If there are fewer items than
        sections, sections share items, and bounds hold less often than intended. If there are more items than
        scenarios, evenly spaced ones are used.

        Raises:
            PlanningError: no item was measured.
        """
        return _items(self, measured)

    def exponentials(self, name: str) -> FloatArray:
        """Return (count,) draws -log(1 - u) of uniforms u, for the wait in the queue `name`.

        The uniforms are stratified within each section and, finer, over all of them. They depend on the name only, so
        that all plans use common random numbers.
        """
        return _exponentials(self, name)


@lru_cache(maxsize=256)
def _items(grid: ScenarioGrid, measured: int) -> IntArray:
    if measured < 1:
        raise PlanningError(
            "the profile has no measured item",
            code="profile.no_measurement",
            hint="Run `circinus profile`.",
        )
    sections = []
    for section in range(grid.sections):
        own = np.arange(section % measured, measured, grid.sections)
        sections.append(own[np.arange(grid.size) * len(own) // grid.size])
    return _read_only(np.concatenate(sections))


@lru_cache(maxsize=4096)
def _exponentials(grid: ScenarioGrid, name: str) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    generator = np.random.default_rng(seed)
    strata = generator.permuted(np.tile(np.arange(grid.size), (grid.sections, 1)), axis=1)
    parts = generator.permuted(np.tile(np.arange(grid.sections), (grid.size, 1)), axis=1)
    part = parts[strata, np.arange(grid.sections)[:, None]].ravel()
    uniforms = (strata.ravel() + (part + generator.random(grid.count)) / grid.sections) / grid.size
    return _read_only(-np.log1p(-uniforms))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
