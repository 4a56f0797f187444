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
