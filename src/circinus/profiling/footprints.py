"""What running each configuration takes, operator by operator, and which may stand in for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

DEFAULT_TOLERANCE = 0.05
"""Share by which a configuration may take more than another and still stand in for it."""


@dataclass(frozen=True, eq=False)
class Footprints:
    """For k configurations and o operators what one item takes; NaN rows for configurations without a measurement.

    All is measured on the same few items, so that two configurations differ by what they do and not by their items;
    scores play no part.
    """

    cpu_s: FloatArray
    """(k, o) CPU seconds: mean service time times the fewest CPUs."""
    output_bytes: FloatArray
    """(k, o) mean size of the output."""
    memory_bytes: FloatArray
    """(k, o) peak resident memory of a replica."""
    changes: IntArray
    """(k, o) number of the operator's knob values, equal where they are."""
    tolerance: float = DEFAULT_TOLERANCE

    @classmethod
    def unknown(cls, configurations: int) -> Footprints:
        """Of configurations that nobody has measured: none stands in for another."""
        nothing = np.full((configurations, 1), np.nan)
        return cls(nothing, nothing, nothing, np.zeros((configurations, 1), dtype=np.int64))

    @property
    def total_cpu_s(self) -> FloatArray:
        """(k,) over all operators."""
        return np.asarray(self.cpu_s.sum(axis=1))

    def stands_in(self, first: IntArray, second: IntArray) -> BoolArray:
        """(m, n) whether a plan of configuration `first[i]` takes hardly more than the same plan of `second[j]`.

        With the same pools and links, whatever they are: in no operator more CPU seconds, memory or bytes, up to the
        tolerance of the second's total of each. Plans of the second are then not needed where the first will do.
        """
        found = np.ones((len(first), len(second)), dtype=bool)
        for taken in (self.cpu_s, self.output_bytes, self.memory_bytes):
            mine, its = taken[first][:, None, :], taken[second][None, :, :]
            excess = np.maximum(mine - its, 0.0).sum(axis=2)
            found &= excess <= self.tolerance * its.sum(axis=2)  # False where a side is NaN
        return found

    def partners(self) -> IntArray:
        """(k,) for each configuration one that may stand in for it and is most like it; -1 where there is none.

        The fewest operators differ, and of those the one with the most CPU seconds: where the two score alike, the
        costlier need not be measured on. Of two that stand in for each other the one with fewer CPU seconds may.
        """
        count = len(self.cpu_s)
        everything = np.arange(count)
        total_s, found = self.total_cpu_s, np.full(count, -1, dtype=np.int64)
        for start in range(0, count, _ROWS_AT_A_TIME):
            rows = everything[start : start + _ROWS_AT_A_TIME]
            candidates = self.stands_in(everything, rows).T
            before = (total_s[None, :] < total_s[rows, None]) | (
                (total_s[None, :] == total_s[rows, None]) & (everything[None, :] < rows[:, None])
            )
            candidates &= before
            differing = (self.changes[rows][:, None, :] != self.changes[None, :, :]).sum(axis=2)
            # Fewest differences first, then most CPU seconds.
            order = np.where(candidates, differing, np.iinfo(np.int64).max)
            fewest = order.min(axis=1, keepdims=True)
            alike = candidates & (order == fewest)
            best = np.where(alike, total_s[None, :], -np.inf).argmax(axis=1)
            found[rows] = np.where(alike.any(axis=1), best, -1)
        return found


_ROWS_AT_A_TIME = 256
