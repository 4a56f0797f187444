"""Compiled sorting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.compiled import compiled

_BITS, _PASSES = 11, 6
"""Bits of a digit, and number of digits of 64 bits."""


def stable_order(values: FloatArray) -> IntArray:
    """Return (n,) indexes that sort n >= 1 floats >= 0, equal ones in their order, in a quarter of the time of NumPy.

    Floats >= 0 are ordered as their bits, which are sorted digit by digit from the last one.
    """
    order, spare = np.arange(len(values)), np.empty(len(values), dtype=np.int64)
    counts = np.zeros((_PASSES, 1 << _BITS), dtype=np.int64)
    moves = _sort_by_digits(np.ascontiguousarray(values).view(np.uint64), order, spare, counts)
    return spare if moves % 2 else order


def sorted_times_s(times_s: FloatArray, duration_s: float, rate_per_s: float) -> FloatArray:
    """Return (n,) sorted times of Poisson arrivals, in a quarter of the time of NumPy.

    Args:
        times_s: (n,) times in [0, `duration_s`].
        duration_s: duration of the arrivals.
        rate_per_s: their rate.
    """
    ascending_s = np.empty_like(times_s)
    _sort_by_buckets(times_s, rate_per_s, np.zeros(int(duration_s * rate_per_s) + 2, dtype=np.int32), ascending_s)
    return ascending_s


@compiled
def _sort_by_buckets(
    times_s: FloatArray, rate_per_s: float, starts: NDArray[np.int32], ascending_s: FloatArray
) -> None:
    """Sort times by buckets with one time each in the mean, and then by insertion.

    Args:
        times_s: (n,)
        rate_per_s: number of buckets per second.
        starts: (buckets + 1,) zeros, updated.
        ascending_s: (n,) sorted times, updated.
    """
    for time_s in times_s:
        starts[int(time_s * rate_per_s) + 1] += 1
    for bucket in range(1, len(starts)):
        starts[bucket] += starts[bucket - 1]
    for time_s in times_s:
        bucket = int(time_s * rate_per_s)
        ascending_s[starts[bucket]] = time_s
        starts[bucket] += 1
    for index in range(1, len(ascending_s)):
        time_s = ascending_s[index]
        while index > 0 and ascending_s[index - 1] > time_s:
            ascending_s[index] = ascending_s[index - 1]
            index -= 1
        ascending_s[index] = time_s


@compiled
def _sort_by_digits(keys: NDArray[np.uint64], order: IntArray, spare: IntArray, counts: IntArray) -> int:
    """Sort `order` by keys, and return how often it was moved between `order` and `spare`.

    Args:
        keys: (n,)
        order: (n,) indexes of the keys, updated.
        spare: (n,) buffer.
        counts: (digits, 2^bits) zeros, updated.
    """
    mask = np.uint64((1 << _BITS) - 1)
    for index in range(len(keys)):
        for digit in range(_PASSES):
            counts[digit, (keys[index] >> np.uint64(digit * _BITS)) & mask] += 1
    moves = 0
    for digit in range(_PASSES):
        shift, start = np.uint64(digit * _BITS), 0
        if counts[digit, (keys[0] >> shift) & mask] == len(keys):  # all keys have the same digit
            continue
        for value in range(1 << _BITS):
            start, counts[digit, value] = start + counts[digit, value], start
        for index in order:
            value = (keys[index] >> shift) & mask
            spare[counts[digit, value]] = index
            counts[digit, value] += 1
        order, spare, moves = spare, order, moves + 1
    return moves
