"""Pareto dominance over arrays of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, FloatArray, IntArray

DOMINANCE_TOLERANCE = 1e-9
"""Relative difference up to which two amounts are equal; sums in different orders differ by rounding."""

_BLOCK = 512


class ParetoArchive:
    """Set of points prepared for dominance queries.

    For each column the members are sorted, and every prefix of the sorted order has a bit set of its members. The
    members that are nowhere above a point are the intersection of one such set for each column.
    """

    def __init__(self, members: FloatArray) -> None:
        """Prepare the archive; `members` is (m, columns), nonnegative."""
        self._count = len(members)
        self._columns: list[tuple[int, FloatArray, NDArray[np.uint64]]] = []
        index = np.arange(self._count)
        bit = np.uint64(1) << (index % 64).astype(np.uint64)
        for column in np.flatnonzero(members.any(axis=0)):  # a column of zeros excludes no member
            order = members[:, column].argsort()
            sets = np.zeros((self._count + 1, (self._count + 63) // 64), dtype=np.uint64)
            sets[index + 1, order // 64] = bit[order]
            np.bitwise_or.accumulate(sets, axis=0, out=sets)
            self._columns.append((int(column), members[order, column], sets))

    def below(self, points: FloatArray) -> NDArray[np.uint64]:
        """Return (n, words): for each of (n, columns) points, the bit set of members that are nowhere above it."""
        all_members = np.packbits(np.arange((self._count + 63) // 64 * 64) < self._count, bitorder="little")
        below = np.tile(all_members.view(np.uint64), (len(points), 1))
        for column, values, sets in self._columns:
            below &= sets[values.searchsorted(points[:, column] * (1 + DOMINANCE_TOLERANCE), side="right")]
        return below

    def beats(self, points: FloatArray) -> BoolArray:
        """Return (n,) whether some member is nowhere greater than the point (equal members included)."""
        if not self._count or not len(points):
            return np.zeros(len(points), dtype=np.bool_)
        return np.asarray(self.below(points).any(axis=1))


class GrowingArchive:
    """Set of points for dominance queries, to which points are added.

    It consists of archives of which each is larger than the next, so that a point is sorted few times.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[FloatArray, ParetoArchive]] = []

    def add(self, members: FloatArray) -> None:
        """Add (m, columns) nonnegative points."""
        while self._parts and len(self._parts[-1][0]) <= len(members):
            members = np.concatenate([self._parts.pop()[0], members])
        if len(members):
            self._parts.append((members, ParetoArchive(members)))

    def beats(self, points: FloatArray) -> BoolArray:
        """Return (n,) whether some member is nowhere greater than the point (equal members included)."""
        beaten = np.zeros(len(points), dtype=np.bool_)
        for _, archive in self._parts:
            beaten[~beaten] = archive.beats(points[~beaten])
        return beaten

    def merge(self, existing: FloatArray, additional: FloatArray) -> tuple[BoolArray, IntArray]:
        """Add (n, columns) points that no member dominates.

        Args:
            existing: (m, columns) points that do not dominate each other, all added before.
            additional: (n, columns) points.

        Returns:
            (m,) whether none of the additional points dominates an existing one, and the ascending indexes of the added
            points. Of equal points the first remains.
        """
        added = np.flatnonzero(~self.beats(additional))
        added = added[nondominated(additional[added])]
        self.add(additional[added])
        return ~ParetoArchive(additional[added]).beats(existing), added


def nondominated(points: FloatArray) -> IntArray:
    """Return the ascending indexes of the points that no other point dominates; of equal points the first remains.

    In the order of a weighted sum no point is dominated by a later one (except equal ones), so each block is compared
    only with the survivors so far and within itself.

    Args:
        points: (n, columns), nonnegative.
    """
    if len(points) <= 1:
        return np.arange(len(points))
    varying = points[:, (points != points[0]).any(axis=0)]
    scaled = varying / np.maximum(varying.max(axis=0, initial=0.0), np.finfo(np.float64).tiny)
    order = np.argsort(scaled.sum(axis=1), kind="stable")
    survivors, archive = [np.zeros(0, dtype=np.int64)], GrowingArchive()
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~archive.beats(scaled[block])]
        survivors.append(block[_survivors(scaled[block])])
        archive.add(scaled[survivors[-1]])
    return np.sort(np.concatenate(survivors))


def _survivors(points: FloatArray) -> BoolArray:
    """Return (n,) whether each of few points, sorted by sum, is not dominated by an earlier one."""
    below = ParetoArchive(points).below(points)
    bits = np.unpackbits(below.view(np.uint8), axis=1, bitorder="little")[:, : len(points)]
    return np.asarray(~np.tril(bits.astype(np.bool_), -1).any(axis=1))
