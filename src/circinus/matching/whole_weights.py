"""Weights as whole numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_WEIGHT_STEPS = 1_000_000
"""Weights that are no multiples of a common unit are rounded to this fraction of their sum."""

_MANY = 100_000
"""For every so many queries, a common unit may be finer by as much again and still count as one."""


@dataclass(frozen=True)
class IntegerWeights:
    """Weights as multiples of one unit, so that sums of them compare exactly."""

    multiples: IntArray
    """(Q,)"""
    unit: float
    rounding: float
    """Most that the multiples of a choice can be away from its weight, in all."""

    @classmethod
    def of(cls, weight: FloatArray) -> IntegerWeights:
        """Exact where the weights (decimals, thirds, ...) have a common unit above a millionth of their sum."""
        distinct, place, count = np.unique(weight, return_inverse=True, return_counts=True)
        exact = [_fraction(float(w)) for w in distinct]
        denominator = math.lcm(*(w.denominator for w in exact))
        unit = Fraction(reduce(math.gcd, (int(w * denominator) for w in exact), 0), denominator)
        total = sum((w * int(times) for w, times in zip(exact, count, strict=True)), Fraction(0))
        if unit and total / unit <= _WEIGHT_STEPS * max(1, len(weight) // _MANY):
            return cls(np.array([int(w / unit) for w in exact], dtype=np.int64)[place], float(unit), 0.0)
        step = float(total) / _WEIGHT_STEPS
        return cls(np.maximum(np.rint(weight / step).astype(np.int64), 1), step, step * len(weight))

    def total(self, chosen: IntArray) -> int:
        """Of the queries that a choice (Q,) serves."""
        return int(self.multiples[chosen >= 0].sum())


@dataclass(frozen=True)
class IntegerWeightsByLevel:
    """Weights of queries in ranks, each rank in its own unit, the highest first."""

    ranks: tuple[IntArray, ...]
    """The queries of each."""
    weights: tuple[IntegerWeights, ...]
    """Theirs."""

    @classmethod
    def of(cls, weight: FloatArray, ranks: Sequence[IntArray]) -> IntegerWeightsByLevel:
        """Of queries (Q,) whose ranks are listed from the highest."""
        return cls(tuple(ranks), tuple(IntegerWeights.of(weight[queries]) for queries in ranks))

    def total(self, chosen: IntArray) -> tuple[int, ...]:
        """Of the queries that a choice (Q,) serves, rank by rank: of two choices the greater one has more weight."""
        return tuple(w.total(chosen[queries]) for queries, w in zip(self.ranks, self.weights, strict=True))

    def multiples(self, place: int, queries: int) -> IntArray:
        """(queries,) of one rank; 0 for the others."""
        found = np.zeros(queries, dtype=np.int64)
        found[self.ranks[place]] = self.weights[place].multiples
        return found


def _fraction(weight: float) -> Fraction:
    """The simple fraction that `weight` was written as, where there is one."""
    simple = Fraction(weight).limit_denominator(1000)
    return simple if float(simple) == weight else Fraction(weight)
