"""Resource usage of configurations by operator, dominance among them, and screening by their service times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.settings import PROFILING
from circinus.specification import LatencySlo, Pipeline
from circinus.statistics.counts import hypergeometric_critical_count

_MIN_S = 1e-9
_ROWS_AT_A_TIME = 64
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class ResourceUsage:
    """Usage of k configurations with o operators on the first m items of the order.

    Whether a configuration may replace another is decided on their common items, so that the items make no difference.
    Scores play no part.
    """

    cpu_s: FloatArray
    """(k, o, m) CPU seconds of each item: service time times the fewest CPUs; NaN beyond `items`."""
    output_bytes: FloatArray
    """(k, o, m) size of each output; NaN beyond `items`."""
    memory_bytes: FloatArray
    """(k, o) peak resident memory of a replica; NaN if not measured."""
    items: IntArray
    """(k,) number of measured items of each configuration."""
    knob_ids: IntArray
    """(k, o) ids of the operators' knob values; equal values have equal ids."""
    min_latency_s: FloatArray | None = None
    """(k, m) lower bounds of each item's latency over all plans, 0 if the hardware is unknown; NaN beyond `items`."""
    tolerance: float = PROFILING.usage_tolerance
    gpu_memory_bytes: FloatArray | None = None
    """(k, o) declared GPU memory of a replica; None if it is that of all configurations. NaN if not measured."""

    @classmethod
    def empty(cls, configurations: int) -> ResourceUsage:
        """Return the usage of unmeasured configurations, none of which may replace another."""
        unmeasured = np.full((configurations, 1, 1), np.nan)
        zeros = np.zeros(configurations, dtype=np.int64)
        return cls(unmeasured, unmeasured, unmeasured[:, :, 0], zeros, zeros[:, None])

    def followed_by_unmeasured(self, configurations: int) -> ResourceUsage:
        """Return the usage with further configurations, which are unmeasured."""
        nan = np.full((configurations, *self.cpu_s.shape[1:]), np.nan)
        latency_s, gpu_memory_bytes = self.min_latency_s, self.gpu_memory_bytes
        return ResourceUsage(
            np.concatenate([self.cpu_s, nan]),
            np.concatenate([self.output_bytes, nan]),
            np.concatenate([self.memory_bytes, nan[:, :, 0]]),
            np.concatenate([self.items, np.zeros(configurations, dtype=np.int64)]),
            np.concatenate([self.knob_ids, np.full((configurations, self.knob_ids.shape[1]), -1)]),
            None if latency_s is None else np.concatenate([latency_s, nan[:, 0]]),
            self.tolerance,
            None if gpu_memory_bytes is None else np.concatenate([gpu_memory_bytes, nan[:, :, 0]]),
        )

    @cached_property
    def total_cpu_s(self) -> FloatArray:
        """(k,) mean CPU seconds of an item; NaN if none was measured."""
        sums = np.nansum(self.cpu_s, axis=(1, 2))
        return np.where(self.items > 0, sums / np.maximum(self.items, 1), np.nan)

    def no_costlier(self, first: IntArray, second: IntArray) -> BoolArray:
        """Return (f, s) whether a plan costs hardly more with configuration `first[i]` than with `second[j]`.

        This holds for any pools and links, if both plans use the same: no operator uses more GPU memory, nor more CPU
        seconds, memory or bytes up to the tolerance (and what is negligible in the total). Plans of the second are then
        not needed where the first meets the SLOs. Means are compared; tails and batch time ratios are not.
        """
        common = np.minimum(self.items[first][:, None], self.items[second][None, :])
        no_costlier = common > 0
        for means in self._running_means:
            last = np.maximum(common, 1) - 1
            own = means[first[:, None], :, last]
            its = means[second[None, :], :, last]
            no_costlier &= self._hardly_more(own, its)
        if self.gpu_memory_bytes is not None:
            own, its = self.gpu_memory_bytes[first][:, None], self.gpu_memory_bytes[second][None, :]
            no_costlier &= (own <= its).all(axis=-1)
        own, its = np.broadcast_arrays(self.memory_bytes[first][:, None], self.memory_bytes[second][None, :])
        return no_costlier & self._hardly_more(own, its)

    def replaceable_by(self, indexes: IntArray) -> BoolArray:
        """Return (n, k) which configurations each of n may replace (cached)."""
        new = np.array([index for index in indexes.tolist() if index not in self._rows], dtype=np.int64)
        for start in range(0, len(new), _ROWS_AT_A_TIME):
            rows = new[start : start + _ROWS_AT_A_TIME]
            self._rows.update(zip(rows.tolist(), self.no_costlier(rows, np.arange(len(self.items))), strict=True))
        return np.array([self._rows[index] for index in indexes.tolist()])

    def reference_no_costlier(self, references: IntArray) -> BoolArray:
        """Return (k,) whether each configuration's reference (-1: none) may replace it and is cheaper."""
        no_costlier = np.zeros(len(references), dtype=bool)
        for index in np.flatnonzero(references >= 0):
            pair = references[index : index + 1], np.array([index])
            no_costlier[index] = self.no_costlier(*pair)[0, 0] and self.cheaper(*pair)[0, 0]
        return no_costlier

    def cheaper(self, first: IntArray, second: IntArray) -> BoolArray:
        """Return (f, s) whether the first has lower `total_cpu_s`, ties broken by index. False without an item.

        This is one total order, so that no cycle can occur, as it could if each pair were compared on its common items.
        """
        total_s = self.total_cpu_s
        own, its = total_s[first[:, None]], total_s[second[None, :]]
        return np.asarray((own < its) | ((own == its) & (first[:, None] < second[None, :])))

    @property
    def heavy_tailed(self) -> BoolArray:
        """(k,) whether the times of a noteworthy operator vary so much that few items say little about the tail."""
        heavy_tailed = np.zeros(len(self.items), dtype=bool)
        for index in np.flatnonzero(self.items):
            cpu_s = self.cpu_s[index, :, : self.items[index]]
            times_s = np.maximum(cpu_s, _MIN_S)
            is_noteworthy = times_s.mean(axis=1) >= PROFILING.noteworthy_share * self.total_cpu_s[index]
            # Items that do not reach an operator have no part in the tail.
            reached = np.ma.masked_array(np.log(times_s), (cpu_s == 0) & (cpu_s > 0).any(axis=1, keepdims=True))
            deviations = np.ma.filled(reached.std(axis=1), 0.0)
            heavy_tailed[index] = (deviations[is_noteworthy] > PROFILING.heavy_tail_log_std).any()
        return heavy_tailed

    def references(self) -> IntArray:
        """Return (k,) for each configuration the most similar one that may replace it; -1 for none.

        The fewest operators differ, and among ties it has the most CPU seconds: if both have equal scores, the costlier
        one need not be measured further. Of two that may replace each other only the `cheaper` one is eligible.
        """
        indexes = np.arange(len(self.items))
        total_s, references = self.total_cpu_s, np.full(len(indexes), -1, dtype=np.int64)
        for start in range(0, len(indexes), _ROWS_AT_A_TIME):
            rows = indexes[start : start + _ROWS_AT_A_TIME]
            candidates = (self.no_costlier(indexes, rows) & self.cheaper(indexes, rows)).T
            differing = (self.knob_ids[rows][:, None, :] != self.knob_ids[None, :, :]).sum(axis=2)
            distance = np.where(candidates, differing, _FAR)
            nearest = candidates & (distance == distance.min(axis=1, keepdims=True))
            best = np.where(nearest, total_s[None, :], -np.inf).argmax(axis=1)
            references[rows] = np.where(nearest.any(axis=1), best, -1)
        return references

    @cached_property
    def _running_means(self) -> tuple[FloatArray, FloatArray]:
        """(k, o, m) means over the first 1, 2, ... items of CPU seconds and of bytes."""
        counts = np.arange(1, self.cpu_s.shape[2] + 1)
        return np.cumsum(self.cpu_s, axis=2) / counts, np.cumsum(self.output_bytes, axis=2) / counts

    @cached_property
    def _rows(self) -> dict[int, BoolArray]:
        return {}

    def _hardly_more(self, own: FloatArray, its: FloatArray) -> BoolArray:
        """Return (...) whether the own usage exceeds the other by at most the tolerance, from (..., o) usages."""
        allowed = self.tolerance * its + PROFILING.min_usage_tolerance * its.sum(axis=-1, keepdims=True)
        excess = np.maximum(own - its, 0.0)
        total = self.tolerance * its.sum(axis=-1)
        return np.asarray((excess <= allowed).all(axis=-1) & (excess.sum(axis=-1) <= total))


def critical_path_s(pipeline: Pipeline, service_s: FloatArray) -> FloatArray:
    """Return (k, n) seconds from the input to the last output.

    Args:
        pipeline: pipeline of o operators.
        service_s: (k, o, n) service times, operators in the pipeline's order.
    """
    column = {operator.name: index for index, operator in enumerate(pipeline.operators)}
    finish: dict[str, FloatArray] = {}
    for operator in pipeline.topological_order():
        own = service_s[:, column[operator.name]]
        finish[operator.name] = own + np.max([finish[p] for p in operator.parents], axis=0) if operator.parents else own
    return np.asarray(np.max(list(finish.values()), axis=0))


def provably_too_slow(
    min_latency_s: FloatArray, population: int, latencies: tuple[LatencySlo | None, ...], risk: float
) -> BoolArray:
    """Return (k, q) whether a latency SLO is certainly missed.

    An SLO at the p-th percentile allows at most the share 1 - p/100 of the items to exceed the limit. Of n items drawn
    from N without replacement, the observed number or more exceed it with a hypergeometric probability; if that is at
    most the risk, the SLO is certainly missed. This is a single analysis at a sample size fixed in advance: peeking is
    not allowed. Percentiles far from the tails need more than a few items.

    The risk is that of drawing these items. Each was timed once: a machine that was busy throughout is not covered, so
    only times that exceed the limit by `PROFILING.latency_margin` count.

    Args:
        min_latency_s: (k, n) lower bounds of the latency on n items drawn at random; NaN if some are missing, so that
            nothing is decided.
        population: N, the number of items they were drawn from.
        latencies: q SLOs; None is never missed.
        risk: risk of each statement.
    """
    items = min_latency_s.shape[1]
    too_slow = np.zeros((len(min_latency_s), len(latencies)), dtype=np.bool_)
    for column, latency in enumerate(latencies):
        if latency is not None and items:
            exceeding = (min_latency_s > latency.limit_s * (1.0 + PROFILING.latency_margin)).sum(axis=1)
            # Rounded up, as an estimate may interpolate between the items next to the percentile.
            allowed = math.ceil(population * (1.0 - latency.percentile / 100.0))
            too_slow[:, column] = exceeding >= hypergeometric_critical_count(items, population, allowed, risk)
    too_slow[np.isnan(min_latency_s).any(axis=1)] = False
    return too_slow
