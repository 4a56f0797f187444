"""The scenarios that latency is represented by: which item, and how lucky with every queue.

A scenario is one measured item and one draw for the wait at every operator and link. Scenarios come in sections that
share no item, so that the percentiles of different sections tell how uncertain the percentile is (`percentiles`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.errors import PlanningError

FloatArray = NDArray[np.floating]

_SCENARIOS = 320
"""As many of them beyond the 95th percentile as of four times as many beyond the 99th."""
_FAR = 98.0
"""Percentiles beyond this take four times as many scenarios."""
_WORD = 64
"""Sections are multiples of this, so that scenarios can be counted by words of bits."""


@dataclass(frozen=True)
class ScenarioGrid:
    """How many sections there are and how many scenarios each has (a multiple of 64). Arrays over scenarios list
    section by section."""

    sections: int
    size: int

    @classmethod
    def for_risk(cls, risk: float, percentile: float = 95.0) -> ScenarioGrid:
        """As many sections as it takes that all of them err to the same side with probability at most `risk`, when
        each does with probability 1/2: five for a risk of 0.05. Far percentiles take larger sections."""
        sections = max(1, math.ceil(-math.log2(risk)))
        count = _SCENARIOS * (4 if percentile > _FAR else 1)
        return cls(sections, _WORD * max(1, round(count / _WORD / sections)))

    @property
    def count(self) -> int:
        """Number of scenarios."""
        return self.sections * self.size

    def items(self, measured: int) -> IntArray:
        """(count,) for each scenario the index of its item among the measured ones.

        Sections share no item and each uses its own items equally often (up to one). Where fewer items were measured
        than there are sections, sections share items, and bounds say less than they promise. Of more items than
        scenarios, evenly spaced ones are used.

        Raises:
            PlanningError: nothing was measured.
        """
        return _items(self, measured)

    def exponentials(self, name: str) -> FloatArray:
        """(count,) draws for the wait in the queue called `name`: -log(1 - u) of uniforms u.

        The uniforms are stratified within each section and, finer, over all of them, and depend on the name alone, so
        that all plans meet the same luck and differences between them are differences of the plans.
        """
        return _exponentials(self, name)


@lru_cache(maxsize=256)
def _items(grid: ScenarioGrid, measured: int) -> IntArray:
    if measured < 1:
        raise PlanningError(
            "found a profile without a measured item, expected at least one; profile the pipeline",
            code="profile.no_measurement",
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
