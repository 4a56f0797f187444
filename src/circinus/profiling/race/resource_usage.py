"""What running each configuration takes, operator by operator, and which may stand in for which."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray

DEFAULT_TOLERANCE = 0.05
"""Share by which a configuration may take more than another and still stand in for it."""
_NEGLIGIBLE = 0.01
"""Share of the total that no tolerance of an operator is smaller than: microseconds of one that does nothing are
noise."""
_UNEVEN = 0.6
"""Standard deviation of the logarithms of service times above which the allowance for few items is large."""
_SHORTEST_S = 1e-9
_NOTEWORTHY = 0.05
"""Share of the CPU seconds from which an operator's times matter for the tail."""
_ROWS_AT_A_TIME = 64
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class ResourceUsage:
    """For k configurations and o operators what the first m items of the order take.

    Whether one stands in for another is seen on the items that both are known on, so that they differ by what they do
    and not by their items. Scores play no part.
    """

    cpu_s: FloatArray
    """(k, o, m) CPU seconds of each item: service time times the fewest CPUs; NaN beyond `items`."""
    output_bytes: FloatArray
    """(k, o, m) size of each output; NaN beyond `items`."""
    memory_bytes: FloatArray
    """(k, o) peak resident memory of a replica; NaN without a measurement."""
    items: IntArray
    """(k,) how many of the m items each is known on."""
    knob_ids: IntArray
    """(k, o) numbers of the operators' knob values, equal where those are."""
    least_latency_s: FloatArray | None = None
    """(k, m) seconds that no plan undercuts on each item, 0 where the hardware is unknown; NaN beyond `items`."""
    tolerance: float = DEFAULT_TOLERANCE

    @classmethod
    def empty(cls, configurations: int) -> ResourceUsage:
        """Of configurations that nobody has measured: none stands in for another."""
        nothing = np.full((configurations, 1, 1), np.nan)
        none = np.zeros(configurations, dtype=np.int64)
        return cls(nothing, nothing, nothing[:, :, 0], none, none[:, None])

    @cached_property
    def total_cpu_s(self) -> FloatArray:
        """(k,) CPU seconds of an item, on average over those known; NaN where there is none."""
        sums = np.nansum(self.cpu_s, axis=(1, 2))
        return np.where(self.items > 0, sums / np.maximum(self.items, 1), np.nan)

    def no_costlier(self, first: IntArray, second: IntArray) -> BoolArray:
        """(f, s) whether a plan of configuration `first[i]` takes hardly more than the same plan of `second[j]`.

        With the same pools and links, whatever they are: in no operator more CPU seconds, memory or bytes, up to the
        tolerance of what the second takes there (and what is negligible in its total). Plans of the second are then
        not needed where the first will do. Means are compared: tails and what batches and CPUs gain are not.
        """
        common = np.minimum(self.items[first][:, None], self.items[second][None, :])
        found = common > 0
        for means in self._running_means:
            last = np.maximum(common, 1) - 1
            mine = means[first[:, None], :, last]
            its = means[second[None, :], :, last]
            found &= self._hardly_more(mine, its)
        mine, its = np.broadcast_arrays(self.memory_bytes[first][:, None], self.memory_bytes[second][None, :])
        return found & self._hardly_more(mine, its)

    def replaceable_by(self, one: int) -> BoolArray:
        """(k,) which configurations one may stand in for; looked at once."""
        if one not in self._rows:
            self._rows[one] = self.no_costlier(np.array([one]), np.arange(len(self.items)))[0]
        return self._rows[one]

    def reference_no_costlier(self, partners: IntArray) -> BoolArray:
        """(k,) whether each configuration's partner (-1: none) may stand in for it and comes before it."""
        found = np.zeros(len(partners), dtype=bool)
        for number in np.flatnonzero(partners >= 0):
            pair = partners[number : number + 1], np.array([number])
            found[number] = self.no_costlier(*pair)[0, 0] and self.cheaper(*pair)[0, 0]
        return found

    def cheaper(self, first: IntArray, second: IntArray) -> BoolArray:
        """(f, s) whether the first has fewer `total_cpu_s`; of equal ones the first listed. False without an item.

        One order of all, so that nobody comes before itself by way of others, as could be where each two were compared
        on the items known of both.
        """
        total_s = self.total_cpu_s
        mine, its = total_s[first[:, None]], total_s[second[None, :]]
        return np.asarray((mine < its) | ((mine == its) & (first[:, None] < second[None, :])))

    @property
    def heavy_tailed(self) -> BoolArray:
        """(k,) whether an operator that matters takes so different times that few items say little of the tail."""
        found = np.zeros(len(self.items), dtype=bool)
        for number in np.flatnonzero(self.items):
            times_s = np.maximum(self.cpu_s[number, :, : self.items[number]], _SHORTEST_S)
            matters = times_s.mean(axis=1) >= _NOTEWORTHY * self.total_cpu_s[number]
            found[number] = (np.log(times_s).std(axis=1)[matters] > _UNEVEN).any()
        return found

    def references(self) -> IntArray:
        """(k,) for each configuration one that may stand in for it and is most like it; -1 where there is none.

        The fewest operators differ, and of those the one with the most CPU seconds: where the two score alike, the
        costlier need not be measured on. Of two that stand in for each other only the one that comes `before` may.
        """
        everything = np.arange(len(self.items))
        total_s, found = self.total_cpu_s, np.full(len(everything), -1, dtype=np.int64)
        for start in range(0, len(everything), _ROWS_AT_A_TIME):
            rows = everything[start : start + _ROWS_AT_A_TIME]
            candidates = (self.no_costlier(everything, rows) & self.cheaper(everything, rows)).T
            differing = (self.knob_ids[rows][:, None, :] != self.knob_ids[None, :, :]).sum(axis=2)
            distance = np.where(candidates, differing, _FAR)
            alike = candidates & (distance == distance.min(axis=1, keepdims=True))
            best = np.where(alike, total_s[None, :], -np.inf).argmax(axis=1)
            found[rows] = np.where(alike.any(axis=1), best, -1)
        return found

    @cached_property
    def _running_means(self) -> tuple[FloatArray, FloatArray]:
        """(k, o, m) means over the first 1, 2, ... items of CPU seconds and of bytes."""
        counts = np.arange(1, self.cpu_s.shape[2] + 1)
        return np.cumsum(self.cpu_s, axis=2) / counts, np.cumsum(self.output_bytes, axis=2) / counts

    @cached_property
    def _rows(self) -> dict[int, BoolArray]:
        return {}

    def _hardly_more(self, mine: FloatArray, its: FloatArray) -> BoolArray:
        """(..., o) what two take of one thing -> (...)"""
        allowed = self.tolerance * its + _NEGLIGIBLE * its.sum(axis=-1, keepdims=True)
        excess = np.maximum(mine - its, 0.0)
        total = self.tolerance * its.sum(axis=-1)
        return np.asarray((excess <= allowed).all(axis=-1) & (excess.sum(axis=-1) <= total))
