"""The time that requests spend at a station, over how lucky they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray

LEVELS: FloatArray = np.concatenate(
    (np.linspace(0.0, 0.9, 19), np.linspace(0.91, 0.99, 9), [0.9925, 0.995, 0.9975, 1.0])
)
"""Between these shares of all requests, in order of their time at the station, means are taken."""
MIDDLES: FloatArray = (LEVELS[1:] + LEVELS[:-1]) / 2
_WIDTHS: FloatArray = np.diff(LEVELS)


@dataclass(frozen=True, eq=False)
class ResponseTime:
    """The time at a station as `added + factor x own`, where own is what the request takes alone.

    Both depend on how lucky the request is, from 0 (all others take longer) to 1.
    """

    added_s: FloatArray
    """(levels,) the wait, and the share of others in the batch; means between `LEVELS`."""
    factor: FloatArray
    """(levels,) of the request's own seconds."""
    mean_wait_s: float
    batch_size_distribution: tuple[float, ...] = (1.0,)
    """(batch size,) shares of the batches that have 1, 2, ... requests."""

    def at(self, exponentials: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """(n,) added seconds, and (n,) factors.

        Args:
            exponentials: (n,) draws -log(1 - u) of uniforms u.
        """
        uniforms = -np.expm1(-exponentials)
        return np.interp(uniforms, MIDDLES, self.added_s), np.interp(uniforms, MIDDLES, self.factor)

    def scaled(self, mean_s: float) -> ResponseTime:
        """Of a station whose requests take `mean_s` times as long."""
        return ResponseTime(self.added_s * mean_s, self.factor, self.mean_wait_s * mean_s, self.batch_size_distribution)

    def slower(self, times: float) -> ResponseTime:
        """Of a station that takes so many times as long for the same requests."""
        return ResponseTime(
            self.added_s * times, self.factor * times, self.mean_wait_s * times, self.batch_size_distribution
        )

    def shifted(self, wait_s: FloatArray) -> ResponseTime:
        """With (levels,) seconds more, the more the less lucky."""
        return ResponseTime(
            self.added_s + wait_s, self.factor, self.mean_wait_s + float(wait_s @ _WIDTHS), self.batch_size_distribution
        )


def from_sample(
    wait_s: FloatArray, others_s: FloatArray, factor: FloatArray, fill: IntArray, mean_own_s: float
) -> ResponseTime:
    """From what happened to (n,) requests.

    Args:
        wait_s: (n,) until they were served.
        others_s: (n,) what others in the same batch added.
        factor: (n,) of their own seconds.
        fill: (n,) how many were served at once.
        mean_own_s: luck is that of a request that takes this long alone.
    """
    added_s = wait_s + others_s
    order = np.argsort(added_s + factor * mean_own_s, kind="stable")
    bounds = np.round(LEVELS * len(order)).astype(np.int64)
    means = np.add.reduceat(np.stack((added_s[order], factor[order])), bounds[:-1], axis=1) / np.diff(bounds)
    batches = np.bincount(fill)[1:] / np.arange(1, fill.max() + 1)
    return ResponseTime(means[0], means[1], float(wait_s.mean()), tuple((batches / batches.sum()).tolist()))


def mixture(parts: Sequence[tuple[float, ResponseTime]], mean_own_s: float) -> ResponseTime:
    """Some requests meet one response, others another.

    Args:
        parts: (share of the requests, response); shares sum to 1.
        mean_own_s: see `from_sample`.
    """
    added_s = np.concatenate([part.added_s for _, part in parts])
    factor = np.concatenate([part.factor for _, part in parts])
    weight = np.concatenate([share * _WIDTHS for share, _ in parts])
    order = np.argsort(added_s + factor * mean_own_s, kind="stable")
    ends = np.cumsum(weight[order])
    places = (ends - weight[order] / 2) / ends[-1]
    return ResponseTime(
        np.interp(MIDDLES, places, added_s[order]),
        np.interp(MIDDLES, places, factor[order]),
        sum(share * part.mean_wait_s for share, part in parts),
        mixed_batch_sizes([(share, part.batch_size_distribution) for share, part in parts]),
    )


def mixed_batch_sizes(parts: Sequence[tuple[float, tuple[float, ...]]]) -> tuple[float, ...]:
    """Batch sizes of several stations together.

    Args:
        parts: (share of the requests, shares of its batches that have 1, 2, ... requests).
    """
    if len(parts) == 1:
        return parts[0][1]
    total = np.zeros(max(len(fills) for _, fills in parts))
    for share, fills in parts:
        total[: len(fills)] += share / mean_batch_size(fills) * np.array(fills)
    return tuple((total / total.sum()).tolist())


def mean_batch_size(fills: tuple[float, ...]) -> float:
    """Requests a batch."""
    return sum(size * share for size, share in enumerate(fills, start=1))
