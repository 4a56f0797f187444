"""Priority levels (pins, tenants' guarantees, priorities), whose weights are compared lexicographically."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.tolerances import WEIGHT_TOLERANCE
from circinus.specification import Query

_WEIGHT_STEPS = 1_000_000
"""Number of steps to which weights without a common unit are rounded, relative to their sum."""

_QUERIES_PER_STEP = 100_000
"""Number of queries per `_WEIGHT_STEPS` that the sum of weights, in common units, may have."""


@dataclass(frozen=True)
class IntegerWeights:
    """Weights as integer multiples of one unit, so that their sums compare exactly."""

    multiples: IntArray
    """(Q,)"""
    unit: float
    rounding: float
    """Maximum difference between the multiples of a choice and its weight, in total."""

    @classmethod
    def of(cls, weight: FloatArray) -> IntegerWeights:
        """Convert weights; exact if they have a common unit (decimals, thirds, ...) above a millionth of their sum."""
        distinct, position, count = np.unique(weight, return_inverse=True, return_counts=True)
        exact = [_fraction(float(w)) for w in distinct]
        denominator = math.lcm(*(w.denominator for w in exact))
        unit = Fraction(reduce(math.gcd, (int(w * denominator) for w in exact), 0), denominator)
        total = sum((w * int(times) for w, times in zip(exact, count, strict=True)), Fraction(0))
        if unit and total / unit <= _WEIGHT_STEPS * max(1, len(weight) // _QUERIES_PER_STEP):
            return cls(np.array([int(w / unit) for w in exact], dtype=np.int64)[position], float(unit), 0.0)
        step = float(total) / _WEIGHT_STEPS
        return cls(np.maximum(np.rint(weight / step).astype(np.int64), 1), step, step * len(weight))

    def total(self, chosen: IntArray) -> int:
        """Return the sum over the queries that a choice (Q,) serves."""
        return int(self.multiples[chosen >= 0].sum())


def _fraction(weight: float) -> Fraction:
    """Return the simple fraction that equals `weight`, or its exact value if there is none."""
    simple = Fraction(weight).limit_denominator(1000)
    return simple if float(simple) == weight else Fraction(weight)


@dataclass(frozen=True, eq=False)
class PriorityLevels:
    """Priority levels of queries: no weight of lower levels makes up for any of a higher one.

    Weights are therefore compared as tuples, level by level.
    """

    rank: IntArray
    """(Q,) level, 0 is the lowest; higher levels are served first."""
    weight: FloatArray
    """(Q,) weight in the specification."""
    required_weight: float = math.inf
    """Weight of all levels that suffices: what the lowest level has beyond it counts as nothing."""

    @classmethod
    def of(
        cls, queries: Sequence[Query], guaranteed: Collection[str] = (), preferred: Collection[str] = ()
    ) -> PriorityLevels:
        """Order queries: pinned ones, then guaranteed ones, then preferred ones, then all others by their priority.

        Args:
            queries: to be matched.
            guaranteed: names of queries that must be served to meet a tenant's share.
            preferred: names of the queries of tenants that lack some of their share.
        """
        keys = [_key(query, guaranteed, preferred) for query in queries]
        order = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        rank = np.array([order[key] for key in keys], dtype=np.int64)
        return cls(rank, np.array([query.weight for query in queries], dtype=np.float64))

    @property
    def count(self) -> int:
        """Number of levels."""
        return int(self.rank.max(initial=-1)) + 1

    @cached_property
    def descending(self) -> tuple[IntArray, ...]:
        """Queries of each level, highest level first."""
        return tuple(np.flatnonzero(self.rank == rank) for rank in reversed(range(self.count)))

    @cached_property
    def importance(self) -> IntArray:
        """(Q,) position of each query by level, then weight, ascending; equal for equal queries."""
        _, position = np.unique(np.stack([self.rank, self.weight]), axis=1, return_inverse=True)
        return np.asarray(position.reshape(-1), dtype=np.int64)

    @cached_property
    def integer_weights(self) -> tuple[IntegerWeights, ...]:
        """Weights of each level in its own unit, highest level first."""
        return tuple(IntegerWeights.of(self.weight[queries]) for queries in self.descending)

    def level_weight(self, level: int, above: float) -> FloatArray:
        """Return (Q,) weights for choosing queries of one level together with those of higher levels.

        Args:
            level: index of the level, counted from the highest (0).
            above: factor on the weight of higher levels.
        """
        higher = self.rank > self.count - 1 - level
        return np.where(higher, above * self.weight, self.weight)

    @cached_property
    def _sufficient_weight(self) -> float:
        """Weight of the lowest level that suffices if all queries of higher levels are served."""
        return max(self.required_weight - float(self.weight[self.rank > 0].sum()), 0.0)

    def weights_of(self, chosen: IntArray) -> tuple[float, ...]:
        """Return the satisfied weight by level, highest first; `chosen` (Q,) is -1 for queries that are not served."""
        served = chosen >= 0
        sums = np.bincount(self.rank[served], weights=self.weight[served], minlength=self.count)
        sums[:1] = np.minimum(sums[:1], self._sufficient_weight)
        return tuple(round(float(weight), 9) for weight in sums[::-1])

    def is_sufficient(self, chosen: IntArray) -> bool:
        """Return whether no further query counts."""
        return self.weights_of(chosen) == self.total_weights

    @property
    def total_weights(self) -> tuple[float, ...]:
        """Weight of all queries by level, highest first."""
        return self.weights_of(np.zeros(len(self.rank), dtype=np.int64))

    def multiples_of(self, chosen: IntArray) -> tuple[int, ...]:
        """Return the satisfied weight by level, highest first, in multiples of the level's unit."""
        totals = [w.total(chosen[queries]) for queries, w in zip(self.descending, self.integer_weights, strict=True)]
        if totals and math.isfinite(self.required_weight):
            sufficient = math.ceil(self._sufficient_weight / self.integer_weights[-1].unit - WEIGHT_TOLERANCE)
            totals[-1] = min(totals[-1], sufficient)
        return tuple(totals)

    def weight_of(self, chosen: IntArray) -> float:
        """Return the satisfied weight of all levels."""
        return float(self.weight[chosen >= 0].sum())

    @staticmethod
    def lexicographic_bound(
        bounds: Sequence[float], proved: Sequence[bool], max_weights: Sequence[float]
    ) -> tuple[float, ...]:
        """Return a bound on the weights by level of any choice, which is compared lexicographically.

        Args:
            bounds: by level, highest first, each valid for choices that satisfy as much of the higher levels.
            proved: whether a choice reaches them.
            max_weights: weight that could be satisfied at most, regardless of other levels.
        """
        reached = next((level for level, is_reached in enumerate(proved) if not is_reached), len(bounds))
        # Rounded as the weights of choices are: otherwise a last bit of one level decides about all lower ones.
        limits = [round(min(bound, limit), 9) for bound, limit in zip(bounds, max_weights, strict=True)]
        return (*limits[: reached + 1], *max_weights[reached + 1 :])

    def bound(self, chosen: IntArray, bounds: Sequence[float]) -> float:
        """Return a bound on the weight of all levels, for choices that serve as much of every higher level.

        Args:
            chosen: (Q,) a choice.
            bounds: lexicographic bound on the weights by level of any choice.
        """
        total, may_gain = 0.0, False
        for queries, weights, bound in zip(self.descending, self.integer_weights, bounds, strict=True):
            served = float(self.weight[queries[chosen[queries] >= 0]].sum())
            extra = max(bound - served, 0.0)
            if not weights.rounding and math.isfinite(extra):
                extra = math.floor(extra / weights.unit * (1 + 1e-9) + 1e-6) * weights.unit
            level_weight = float(self.weight[queries].sum())
            # If a higher level may still gain, the lower ones are unbounded.
            total += level_weight if may_gain else min(served + extra, level_weight)
            may_gain = may_gain or extra > 0
        return total


def _key(query: Query, guaranteed: Collection[str], preferred: Collection[str]) -> tuple[int, int]:
    if query.pin is not None:
        return (3, 0)
    if query.name in guaranteed:
        return (2, 0)
    return (1, 0) if query.name in preferred else (0, query.priority)
