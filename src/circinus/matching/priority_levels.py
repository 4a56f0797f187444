"""Priority levels (pins, tenants' guarantees, priorities) and the weights that encode them lexicographically."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.errors import PlanningError
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


@dataclass(frozen=True)
class IntegerWeightsByLevel:
    """Weights of queries by priority level, each level in its own unit, highest level first."""

    ranks: tuple[IntArray, ...]
    """Queries of each level."""
    weights: tuple[IntegerWeights, ...]
    """Weights of each level."""

    @classmethod
    def of(cls, weight: FloatArray, ranks: Sequence[IntArray]) -> IntegerWeightsByLevel:
        """Convert the weights of queries (Q,) whose levels are listed from the highest."""
        return cls(tuple(ranks), tuple(IntegerWeights.of(weight[queries]) for queries in ranks))

    def total(self, chosen: IntArray) -> tuple[int, ...]:
        """Return the sums over the queries that a choice (Q,) serves, by level; compare lexicographically."""
        return tuple(w.total(chosen[queries]) for queries, w in zip(self.ranks, self.weights, strict=True))

    def multiples(self, level: int, queries: int) -> IntArray:
        """Return (queries,) multiples of one level; 0 for other queries."""
        multiples = np.zeros(queries, dtype=np.int64)
        multiples[self.ranks[level]] = self.weights[level].multiples
        return multiples


def _fraction(weight: float) -> Fraction:
    """Return the simple fraction that equals `weight`, or its exact value if there is none."""
    simple = Fraction(weight).limit_denominator(1000)
    return simple if float(simple) == weight else Fraction(weight)


_ROUNDING = 1e-14
"""Relative error of a sum over the weights of all levels in double precision."""


@dataclass(frozen=True, eq=False)
class PriorityLevels:
    """Priority levels of queries: no weight of lower levels makes up for any of a higher one."""

    rank: IntArray
    """(Q,) level, 0 is the lowest; higher levels are served first."""
    user_weight: FloatArray
    """(Q,) weight in the specification."""
    factor: FloatArray
    """(levels,) factor of weights, so that no sum over lower levels reaches the smallest difference in a higher one.
    With many levels, double precision loses the lowest of them in sums: compare by `own_weights_of`.
    """

    @classmethod
    def of(
        cls, queries: Sequence[Query], guaranteed: Collection[str] = (), preferred: Collection[str] = ()
    ) -> PriorityLevels:
        """Order queries: pinned ones, then guaranteed ones, then preferred ones, then all others by their priority.

        Args:
            queries: to be matched.
            guaranteed: names of queries that must be served to meet a tenant's share.
            preferred: names of the queries of tenants that lack some of their share.

        Raises:
            PlanningError: so many priorities of so many queries that no number is large enough.
        """
        keys = [_key(query, guaranteed, preferred) for query in queries]
        order = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        rank = np.array([order[key] for key in keys], dtype=np.int64)
        user_weight = np.array([query.weight for query in queries], dtype=np.float64)
        return cls(rank, user_weight, _level_factors(rank, user_weight))

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self.factor)

    @property
    def descending(self) -> tuple[IntArray, ...]:
        """Queries of each level, highest level first."""
        return tuple(np.flatnonzero(self.rank == rank) for rank in reversed(range(self.count)))

    def level_weight(self, level: int, above: float) -> FloatArray:
        """Return (Q,) weights for choosing queries of one level together with those of higher levels.

        Sums of `weight` differ by so many orders of magnitude that prices for them are meaningless for lower levels.

        Args:
            level: index of the level, counted from the highest (0).
            above: factor on the weight of higher levels.
        """
        higher = self.rank > self.count - 1 - level
        return np.where(higher, above * self.user_weight, self.user_weight)

    @property
    def weight(self) -> FloatArray:
        """(Q,) weight of queries in the objective."""
        return self.user_weight * self.factor[self.rank] if len(self.rank) else self.user_weight

    def own_weights_of(self, chosen: IntArray) -> tuple[float, ...]:
        """Return the satisfied user weight by level, highest first; compare lexicographically."""
        served = chosen >= 0
        sums = np.bincount(self.rank[served], weights=self.user_weight[served], minlength=self.count)
        return tuple(round(float(weight), 9) for weight in sums[::-1])

    def own_weight_of(self, chosen: IntArray) -> float:
        """Return the satisfied user weight; `chosen` (Q,) is -1 for queries that are not served."""
        return float(self.user_weight[chosen >= 0].sum())

    def bound(self, bounds: Sequence[float], proved: Sequence[bool], max_weights: Sequence[float]) -> float:
        """Return a bound on the weight of any choice from bounds by level, highest first.

        Args:
            bounds: on user weight, each valid for choices that satisfy as much of the higher levels.
            proved: whether a choice reaches them.
            max_weights: user weight that could be satisfied at most, regardless of other levels.
        """
        total, higher_proved = 0.0, True
        for level, factor in enumerate(self.factor[::-1]):
            total += float(factor) * (min(bounds[level], max_weights[level]) if higher_proved else max_weights[level])
            higher_proved = higher_proved and proved[level]
        return total

    def own_bound(self, chosen: IntArray, bound: float) -> float:
        """Return a bound on user weight, summed over levels, for choices that serve as much of every higher level.

        Args:
            chosen: (Q,) a choice.
            bound: on the weight of any choice, as in the objective.
        """
        gap, total_bound = max(bound - float(self.weight[chosen >= 0].sum()), 0.0), 0.0
        gap += _ROUNDING * max(bound, 0.0) if self.count > 1 else 0.0
        for rank in reversed(range(self.count)):
            in_level = self.rank == rank
            served, total = (
                float(self.user_weight[in_level & (chosen >= 0)].sum()),
                float(self.user_weight[in_level].sum()),
            )
            # A choice with more weight in this level may have less in the lower ones.
            lower = float(self.weight[(self.rank < rank) & (chosen >= 0)].sum())
            extra = (gap + lower) / float(self.factor[rank])
            weights = IntegerWeights.of(self.user_weight[in_level])
            if self.count > 1 and not weights.rounding and math.isfinite(extra):
                extra = math.floor(extra / weights.unit * (1 + 1e-9) + 1e-6) * weights.unit
            total_bound += min(served + extra, total)
            # If a higher level may still gain, the lower ones are unbounded.
            gap = math.inf if extra > 0 else gap
        return total_bound


def _key(query: Query, guaranteed: Collection[str], preferred: Collection[str]) -> tuple[int, int]:
    if query.pin is not None:
        return (3, 0)
    if query.name in guaranteed:
        return (2, 0)
    return (1, 0) if query.name in preferred else (0, query.priority)


def _level_factors(rank: IntArray, user_weight: FloatArray) -> FloatArray:
    factors: list[float] = []
    below = 0.0
    for level in range(int(rank.max(initial=-1)) + 1):
        weights = user_weight[rank == level]
        # Sums of a level's weights differ by at least its unit, which must outweigh all lower levels together.
        factors.append(1.0 if not factors else float(np.ceil(below / IntegerWeights.of(weights).unit)) + 1.0)
        below += factors[-1] * float(weights.sum())
    if not math.isfinite(below):
        raise PlanningError(
            f"{len(factors)} priority levels (priorities, pins, tenants' shares) of {len(rank)} queries exceed the "
            "range of weights",
            code="query.too_many_priorities",
            location="queries",
            hint="Use fewer distinct priorities.",
        )
    return np.array(factors, dtype=np.float64)
