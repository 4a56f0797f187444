"""Who comes first: pinned queries, what tenants were promised, then priorities; as weights that decide so."""

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


_ROUNDING = 1e-14
"""Of a sum of weights of all ranks: what it may be off by in double precision."""


@dataclass(frozen=True, eq=False)
class PriorityLevels:
    """Queries in ranks: no weight of lower ranks makes up for any of a higher one."""

    rank: IntArray
    """(Q,) from 0, the lowest; a rank more is served first."""
    user_weight: FloatArray
    """(Q,) what the user gave."""
    factor: FloatArray
    """(ranks,) by which weights count, so that no sum of lower ranks reaches the least difference in a higher one.
    Where there are many ranks, double precision loses the lowest of them in sums: compare by `own_weights_of`."""

    @classmethod
    def of(cls, queries: Sequence[Query], held: Collection[str] = (), raised: Collection[str] = ()) -> PriorityLevels:
        """Pinned queries, then those `held`, then those `raised`, then the others by their priority.

        Args:
            queries: what is matched.
            held: names of queries that are to be served because a tenant was promised so much.
            raised: names of queries of which a tenant was promised some.

        Raises:
            PlanningError: so many priorities of so many queries that no number is large enough.
        """
        keys = [_key(query, held, raised) for query in queries]
        order = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        rank = np.array([order[key] for key in keys], dtype=np.int64)
        own = np.array([query.weight for query in queries], dtype=np.float64)
        return cls(rank, own, _factors(rank, own))

    @property
    def count(self) -> int:
        """Number of ranks."""
        return len(self.factor)

    @property
    def descending(self) -> tuple[IntArray, ...]:
        """The queries of each rank, the highest first."""
        return tuple(np.flatnonzero(self.rank == rank) for rank in reversed(range(self.count)))

    def level_weight(self, place: int, above: float) -> FloatArray:
        """(Q,) weights for choosing queries of one rank, counted from the highest, beside those of higher ranks.

        Sums of `weight` differ by so many orders of magnitude that prices for them say nothing of lower ranks.

        Args:
            place: 0 for the highest rank.
            above: what a higher rank counts more.
        """
        higher = self.rank > self.count - 1 - place
        return np.where(higher, above * self.user_weight, self.user_weight)

    @property
    def weight(self) -> FloatArray:
        """(Q,) what queries count."""
        return self.user_weight * self.factor[self.rank] if len(self.rank) else self.user_weight

    def own_weights_of(self, chosen: IntArray) -> tuple[float, ...]:
        """Satisfied weight of each rank as the user gave it, the highest first: of two choices the greater has more."""
        served = chosen >= 0
        sums = np.bincount(self.rank[served], weights=self.user_weight[served], minlength=self.count)
        return tuple(round(float(weight), 9) for weight in sums[::-1])

    def own_weight_of(self, chosen: IntArray) -> float:
        """Satisfied weight as the user gave it; `chosen` (Q,) is -1 where there is none."""
        return float(self.user_weight[chosen >= 0].sum())

    def bound(self, bounds: Sequence[float], proved: Sequence[bool], most: Sequence[float]) -> float:
        """No choice has more weight, as queries count, when this is known of its ranks, the highest first.

        Args:
            bounds: on own weight, each one only of choices that satisfy as much of the higher ranks.
            proved: whether a choice reaches them.
            most: own weight that could be satisfied at most, whatever happens to the others.
        """
        found, sure = 0.0, True
        for place, factor in enumerate(self.factor[::-1]):
            found += float(factor) * (min(bounds[place], most[place]) if sure else most[place])
            sure = sure and proved[place]
        return found

    def own_bound(self, chosen: IntArray, bound: float) -> float:
        """No choice that serves as much of every higher rank satisfies more own weight than this, rank by rank.

        Args:
            chosen: (Q,) a choice.
            bound: no choice has more weight, as queries count.
        """
        missing, found = max(bound - float(self.weight[chosen >= 0].sum()), 0.0), 0.0
        missing += _ROUNDING * max(bound, 0.0) if self.count > 1 else 0.0
        for rank in reversed(range(self.count)):
            here = self.rank == rank
            served, total = float(self.user_weight[here & (chosen >= 0)].sum()), float(self.user_weight[here].sum())
            # Whoever has more of this rank may have less of the lower ones.
            lower = float(self.weight[(self.rank < rank) & (chosen >= 0)].sum())
            more = (missing + lower) / float(self.factor[rank])
            weights = IntegerWeights.of(self.user_weight[here])
            if self.count > 1 and not weights.rounding and math.isfinite(more):
                more = math.floor(more / weights.unit * (1 + 1e-9) + 1e-6) * weights.unit
            found += min(served + more, total)
            # What a higher rank may still gain says nothing of the lower ones.
            missing = math.inf if more > 0 else missing
        return found


def _key(query: Query, held: Collection[str], raised: Collection[str]) -> tuple[int, int]:
    if query.pin is not None:
        return (3, 0)
    if query.name in held:
        return (2, 0)
    return (1, 0) if query.name in raised else (0, query.priority)


def _factors(rank: IntArray, own: FloatArray) -> FloatArray:
    factors: list[float] = []
    below = 0.0
    for number in range(int(rank.max(initial=-1)) + 1):
        weights = own[rank == number]
        # Sums of a rank's weights differ by its unit at least, which has to outweigh all that is below.
        factors.append(1.0 if not factors else float(np.ceil(below / IntegerWeights.of(weights).unit)) + 1.0)
        below += factors[-1] * float(weights.sum())
    if not math.isfinite(below):
        raise PlanningError(
            f"queries: found {len(factors)} ranks (priorities, pins, tenants' shares) of {len(rank)} queries, expected "
            "fewer of them"
        )
    return np.array(factors, dtype=np.float64)
