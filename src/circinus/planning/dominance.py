"""Which of many points no other point beats in every column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray

FloatArray = NDArray[np.floating]

DOMINANCE_TOLERANCE = 1e-9
"""Relative difference below which two amounts are the same; sums in different orders differ by rounding."""

_BLOCK = 512


class ParetoArchive:
    """Points that others are compared with, prepared once.

    For each column the members are sorted, and for every prefix of that order a set of bits says who is in it. The
    members that are nowhere above a point are then the intersection of one such set for each column.
    """

    def __init__(self, members: FloatArray) -> None:
        """`members`: (m, columns), nonnegative."""
        self._count = len(members)
        self._columns: list[tuple[int, FloatArray, NDArray[np.uint64]]] = []
        index = np.arange(self._count)
        bit = np.uint64(1) << (index % 64).astype(np.uint64)
        for column in np.flatnonzero(members.any(axis=0)):  # a column of zeros excludes nobody
            order = members[:, column].argsort()
            sets = np.zeros((self._count + 1, (self._count + 63) // 64), dtype=np.uint64)
            sets[index + 1, order // 64] = bit[order]
            np.bitwise_or.accumulate(sets, axis=0, out=sets)
            self._columns.append((int(column), members[order, column], sets))

    def below(self, points: FloatArray) -> NDArray[np.uint64]:
        """(n, words) for each point, (n, columns), the set of members that are nowhere above it, as bits."""
        everybody = np.packbits(np.arange((self._count + 63) // 64 * 64) < self._count, bitorder="little")
        below = np.tile(everybody.view(np.uint64), (len(points), 1))
        for column, values, sets in self._columns:
            below &= sets[values.searchsorted(points[:, column] * (1 + DOMINANCE_TOLERANCE), side="right")]
        return below

    def beats(self, points: FloatArray) -> NDArray[np.bool_]:
        """(n,) for each point whether some member is nowhere greater (equal ones included)."""
        if not self._count or not len(points):
            return np.zeros(len(points), dtype=np.bool_)
        return np.asarray(self.below(points).any(axis=1))


def nondominated(points: FloatArray) -> IntArray:
    """Indexes, ascending, of the points that no other one beats; of equal points the first stays.

    Sorted by a weighted sum no point can be beaten by a later one (but for equal ones), so each block is compared
    only with the survivors so far and within itself.

    Args:
        points: (n, columns), nonnegative.
    """
    if len(points) <= 1:
        return np.arange(len(points))
    used = points[:, (points != points[0]).any(axis=0)]
    scaled = used / np.maximum(used.max(axis=0, initial=0.0), np.finfo(np.float64).tiny)
    order = np.argsort(scaled.sum(axis=1), kind="stable")
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~ParetoArchive(scaled[kept]).beats(scaled[block])]
        kept = np.concatenate([kept, block[_survivors(scaled[block])]])
    return np.sort(kept)


def _survivors(points: FloatArray) -> NDArray[np.bool_]:
    """(n,) which of few points, sorted by sum, are not beaten by an earlier one."""
    below = ParetoArchive(points).below(points)
    bits = np.unpackbits(below.view(np.uint8), axis=1, bitorder="little")[:, : len(points)]
    return np.asarray(~np.tril(bits.astype(np.bool_), -1).any(axis=1))
