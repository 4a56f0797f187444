"""Division of a query's requests among the parts of a split plan.

Request n goes to the part whose interval of [0, 1) contains the fractional part of s + n φ: an additive low-discrepancy
sequence with the golden ratio φ (Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992, chapter
3). Shares are exact to a few requests after any number of them, and also among every k-th request, so that a period of
the inputs does not meet the same part each time. The start s depends on the query's name, so that the choices of
queries with simultaneous requests differ.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:  # routers do without numpy
    from circinus.arrays import IntArray

_GOLDEN_RATIO = 0.6180339887498949
"""Fractional part of the golden ratio."""


@overload
def split_part(query: str, shares: Sequence[float], number: int) -> int: ...
@overload
def split_part(query: str, shares: Sequence[float], number: IntArray) -> IntArray: ...


def split_part(query: str, shares: Sequence[float], number: Any) -> Any:
    """Return the index of the part that a request takes.

    Args:
        query: name of the query.
        shares: shares of the parts; the last one has what the others leave.
        number: number of earlier requests of the query, or (n,) of them for (n,) requests.

    Returns:
        The index into `shares`, (n,) for (n,) requests.
    """
    phase = (zlib.crc32(query.encode()) / 2**32 + number * _GOLDEN_RATIO) % 1.0
    return sum(((phase >= bound) * 1 for bound in accumulate(shares[:-1])), start=0 * number)
