"""Quantile function of the response time at a station."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray

LEVELS: FloatArray = np.concatenate(
    (np.linspace(0.0, 0.9, 19), np.linspace(0.91, 0.99, 9), [0.9925, 0.995, 0.9975, 1.0])
)
"""Quantile levels; response times are averaged between consecutive levels."""
MIDPOINTS: FloatArray = (LEVELS[1:] + LEVELS[:-1]) / 2
WIDTHS: FloatArray = np.diff(LEVELS)


@dataclass(frozen=True, eq=False)
class ResponseTime:
    """Response time at a station as `added + factor x own`, where own is the request's unbatched service time.

    Both depend on the request's quantile level, from 0 (the fastest) to 1.
    """

    added_s: FloatArray
    """(levels,) waiting time, and the share of other requests in the batch; means between `LEVELS`."""
    factor: FloatArray
    """(levels,) factor of the request's own service time."""
    mean_wait_s: float
    batch_size_distribution: tuple[float, ...] = (1.0,)
    """(batch size,) shares of batches of 1, 2, ... requests."""

    def at(self, exponentials: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (n,) added seconds and (n,) factors.

        Args:
            exponentials: (n,) draws -log(1 - u) of uniforms u.
        """
        uniforms = -np.expm1(-exponentials)
        return np.interp(uniforms, MIDPOINTS, self.added_s), np.interp(uniforms, MIDPOINTS, self.factor)

    def scaled(self, mean_s: float) -> ResponseTime:
        """Return the response time of a station whose requests take `mean_s` times as long."""
        return ResponseTime(self.added_s * mean_s, self.factor, self.mean_wait_s * mean_s, self.batch_size_distribution)

    def slower(self, times: float) -> ResponseTime:
        """Return the response time of a station that is slower by the factor `times`, for the same requests."""
        return ResponseTime(
            self.added_s * times, self.factor * times, self.mean_wait_s * times, self.batch_size_distribution
        )

    def shifted(self, wait_s: FloatArray) -> ResponseTime:
        """Return the response time with (levels,) added waiting time, ascending."""
        return ResponseTime(
            self.added_s + wait_s, self.factor, self.mean_wait_s + float(wait_s @ WIDTHS), self.batch_size_distribution
        )


def from_sample(
    wait_s: FloatArray, excluding_own_s: FloatArray, factor: FloatArray, batch_size: IntArray, *, compiled: bool
) -> ResponseTime:
    """Return the response time from a sample of (n,) requests with a mean service time of one second.

    Args:
        wait_s: (n,) waiting times.
        excluding_own_s: (n,) time added by other requests in the batch.
        factor: (n,) factors of their own service times.
        batch_size: (n,) sizes of their batches.
        compiled: whether to sort by a compiled function, which pays if Numba is loaded anyway.
    """
    added_s = wait_s + excluding_own_s
    order = _stable_order(added_s + factor) if compiled else np.argsort(added_s + factor, kind="stable")
    bounds = np.round(LEVELS * len(order)).astype(np.int64)
    means = np.add.reduceat(np.stack((added_s[order], factor[order])), bounds[:-1], axis=1) / np.diff(bounds)
    batches = np.bincount(batch_size)[1:] / np.arange(1, batch_size.max() + 1)
    return ResponseTime(means[0], means[1], float(wait_s.mean()), tuple((batches / batches.sum()).tolist()))


def _stable_order(times_s: FloatArray) -> IntArray:
    from circinus.queueing.sorting_kernel import stable_order  # imports Numba, which takes a fifth of a second

    return stable_order(times_s)


def mixture(parts: Sequence[tuple[float, ResponseTime]], mean_own_s: float) -> ResponseTime:
    """Return the mixture of response times.

    Args:
        parts: (share of the requests, response time); shares sum to 1.
        mean_own_s: own service time by which the requests are ranked.
    """
    added_s = np.concatenate([part.added_s for _, part in parts])
    factor = np.concatenate([part.factor for _, part in parts])
    weight = np.concatenate([share * WIDTHS for share, _ in parts])
    order = np.argsort(added_s + factor * mean_own_s, kind="stable")
    ends = np.cumsum(weight[order])
    levels = (ends - weight[order] / 2) / ends[-1]
    return ResponseTime(
        np.interp(MIDPOINTS, levels, added_s[order]),
        np.interp(MIDPOINTS, levels, factor[order]),
        sum(share * part.mean_wait_s for share, part in parts),
        mixed_batch_sizes([(share, part.batch_size_distribution) for share, part in parts]),
    )


def mixed_batch_sizes(parts: Sequence[tuple[float, tuple[float, ...]]]) -> tuple[float, ...]:
    """Return the batch size distribution of several stations combined."""
    if len(parts) == 1:
        return parts[0][1]
    total = np.zeros(max(len(sizes) for _, sizes in parts))
    for share, sizes in parts:
        total[: len(sizes)] += share / mean_batch_size(sizes) * np.array(sizes)
    return tuple((total / total.sum()).tolist())


def mean_batch_size(distribution: tuple[float, ...]) -> float:
    """Return the mean number of requests per batch."""
    return sum(size * share for size, share in enumerate(distribution, start=1))
