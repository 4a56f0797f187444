"""Mixed-integer rounding cuts: tighten the linear relaxation, which would use fractional replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.problem import round_up_replicas
from circinus.matching.tolerances import REPLICA_TOLERANCE

_MAX_ENUMERATED_QUERIES = 10
"""Maximum number of queries on a deployment for which all sets are tried; beyond, only sets in order of their shares.
"""

_MIN_LAST_PART = 0.01
"""Minimum load of a cut's last replica; below it, coefficients are too large."""

_MIN_VIOLATION, _MIN_LINK_VIOLATION = 1e-4, 1e-3


@dataclass(frozen=True, eq=False)
class DeploymentColumns:
    """The columns of one shared deployment."""

    replicas: int
    """Column of its number of replicas."""
    candidates: IntArray
    """Columns of the candidates that use it."""
    fractional: FloatArray
    """Fractional replicas that each candidate needs."""
    query_of: IntArray
    """Query of each candidate."""
    times: IntArray
    """Number of queries that are alike, whose candidates the column of each candidate counts."""

    @cached_property
    def apart(self) -> DeploymentColumns:
        """The columns with an entry for each of the queries that are alike, among which a column is divided."""
        entry = np.repeat(np.arange(len(self.times)), self.times)
        number = np.arange(len(entry)) - np.repeat(np.cumsum(self.times) - self.times, self.times)
        query_of = self.query_of[entry] * self.times.max(initial=1) + number
        return DeploymentColumns(
            self.replicas, self.candidates[entry], self.fractional[entry], query_of, self.times[entry]
        )


@dataclass(frozen=True, eq=False)
class CutRow:
    """A row values @ columns >= lower."""

    columns: IntArray
    values: FloatArray
    lower: float


def mir_cut(load: DeploymentColumns, values: FloatArray) -> CutRow | None:
    """Return the most violated rounding cut of a deployment, if there is any.

    Let the queries of a set S need f_q replicas each, together F = h - 1 + r with an integer h and 0 < r <= 1. With all
    of them, the deployment has h replicas. Leaving out an amount d lowers that by at most g(d) = floor(d) + min(1,
    frac(d) / r), hence

        replicas >= h - sum over q in S of (g(f_q) (1 - share of q) + sum over its candidates p of g(f_q - f_p) x_p).

    This is the mixed-integer rounding of the load, known for the loading of networks as residual capacity inequalities
    (Magnanti, Mirchandani and Vachani, "The convex hull of two core capacitated network design problems", 1993).
    Candidates that need more than f_q count as if they needed f_q. Of queries that are alike, each has an equal part of
    every column: cuts that differ in which of them are in S have the same mean.

    Args:
        load: the deployment's columns.
        values: (columns,) the relaxation's solution.
    """
    load = load.apart
    x = values[load.candidates] / load.times
    if x.sum() < _MIN_VIOLATION:
        return None
    queries, position = np.unique(load.query_of, return_inverse=True)
    share: FloatArray = np.bincount(position, weights=x, minlength=len(queries)).astype(np.float64)
    used = np.flatnonzero(share > _MIN_VIOLATION)
    if not len(used):
        return None
    best: CutRow | None = None
    max_violation = _MIN_VIOLATION
    active = np.flatnonzero((x > 0) & (share > _MIN_VIOLATION)[position])
    column = np.searchsorted(used, position[active])
    weights = x[active, None] * (column[:, None] == np.arange(len(used)))  # of each active candidate in its query
    for level in _reference_loads(load.fractional[active], x[active], column):
        sets = _sets(share[used])
        total = sets @ level
        rounded = np.ceil(total - REPLICA_TOLERANCE)
        last_part = total - (rounded - 1)
        reduction = _replica_reduction(np.broadcast_to(level, sets.shape), last_part[:, None]) * (1 - share[used])
        shortfall = np.maximum(level[column] - load.fractional[active], 0.0)
        reduction += _replica_reduction(shortfall[None, :], last_part[:, None]) @ weights
        violation = rounded - REPLICA_TOLERANCE / last_part - (sets * reduction).sum(axis=1) - values[load.replicas]
        violation[(last_part < _MIN_LAST_PART) | (last_part > 1 - REPLICA_TOLERANCE)] = -np.inf
        worst_set = int(np.argmax(violation))
        if violation[worst_set] > max_violation:
            max_violation = float(violation[worst_set])
            inside = sets[worst_set]
            best = _row(
                load, position, used[inside], level[inside], float(rounded[worst_set]), float(last_part[worst_set])
            )
    return best


def links(load: DeploymentColumns, dedicated: IntArray) -> Iterator[CutRow]:
    """Yield rows that require at least the replicas of each query in isolation.

    Of queries that are alike, each counts in part, as together they may need no more than one does.
    """
    for query in np.unique(load.query_of):
        of_query = load.query_of == query
        columns = np.append(load.candidates[of_query], load.replicas)
        yield CutRow(columns, np.append(-dedicated[of_query] / load.times[of_query], 1.0), 0.0)


def violated_links(load: DeploymentColumns, values: FloatArray) -> Iterator[CutRow]:
    """Yield the rows of `links` that fractional values violate."""
    dedicated = round_up_replicas(load.fractional, True, np.zeros(1, dtype=np.int64))
    _, position = np.unique(load.query_of, return_inverse=True)
    needed = np.bincount(position, weights=values[load.candidates] * dedicated / load.times)
    is_violated = (needed > values[load.replicas] + _MIN_LINK_VIOLATION)[position]
    if is_violated.any():
        part = DeploymentColumns(
            load.replicas, load.candidates[is_violated], load.fractional[is_violated], load.query_of[is_violated],
            load.times[is_violated],
        )  # fmt: skip
        yield from links(part, dedicated[is_violated])


def _row(
    load: DeploymentColumns, position: IntArray, queries: IntArray, level: FloatArray, rounded: float, last_part: float
) -> CutRow:
    columns, values = [np.array([load.replicas])], [np.array([1.0])]
    lower = rounded - REPLICA_TOLERANCE / last_part
    for query, reference in zip(queries, level, strict=True):
        of_query = np.flatnonzero(position == query)
        full_reduction = float(_replica_reduction(np.array(reference), np.array(last_part)))
        shortfall = np.maximum(reference - load.fractional[of_query], 0.0)
        columns.append(load.candidates[of_query])
        values.append((_replica_reduction(shortfall, np.array(last_part)) - full_reduction) / load.times[of_query])
        lower -= full_reduction
    row = CutRow(np.concatenate(columns), np.concatenate(values), lower)
    if load.times.max(initial=1) == 1:
        return row
    merged, entry = np.unique(row.columns, return_inverse=True)
    return CutRow(merged, np.bincount(entry, weights=row.values).astype(np.float64), lower)


def _replica_reduction(amount: FloatArray, last_part: FloatArray) -> FloatArray:
    """Return g(amount) of `mir_cut`."""
    integral_part = np.floor(amount + 1e-9)
    return np.asarray(integral_part + np.minimum(1.0, np.maximum(amount - integral_part, 0.0) / last_part))


def _reference_loads(fractional: FloatArray, x: FloatArray, query: IntArray) -> Sequence[FloatArray]:
    """Return values of f_q to try: the load of each query's most used candidate, and of its smallest one.

    Args:
        fractional: (active candidates,) replicas that each needs.
        x: (active candidates,) value of each in the relaxation's solution.
        query: (active candidates,) query of each, counted from 0.
    """
    by_use, by_load = np.lexsort((-x, query)), np.lexsort((fractional, query))
    first = np.unique(query[by_use], return_index=True)[1]
    most_used, smallest = fractional[by_use[first]], fractional[by_load[first]]
    return [most_used] if np.array_equal(most_used, smallest) else [most_used, smallest]


def _sets(share: FloatArray) -> BoolArray:
    """Return (sets, queries) the queries of each set."""
    count = len(share)
    if count <= _MAX_ENUMERATED_QUERIES:
        return ((np.arange(1, 1 << count)[:, None] >> np.arange(count)) & 1).astype(bool)
    rank = np.argsort(np.argsort(-share, kind="stable"), kind="stable")
    return np.asarray(rank[None, :] <= np.arange(count)[:, None])
