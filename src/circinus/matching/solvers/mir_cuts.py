"""Cuts that say what whole replicas cost where the linear relaxation would take fractions of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.problem import REPLICA_TOLERANCE

_LISTED_QUERIES = 10
"""Up to so many queries on a deployment every set of them is tried; beyond, only those in order of their shares."""

_LEAST_PART = 0.01
"""Cuts whose last replica would hold less than this are left out: their coefficients are too large."""

_LEAST_VIOLATION = 1e-4


@dataclass(frozen=True, eq=False)
class DeploymentColumns:
    """The columns of one shared deployment."""

    replicas: int
    """Column of its number of replicas."""
    candidates: IntArray
    """Columns of the candidates that use it."""
    fluid: FloatArray
    """What each of them needs of it."""
    query_of: IntArray
    """The query of each."""


@dataclass(frozen=True, eq=False)
class CutRow:
    """values @ columns >= lower"""

    columns: IntArray
    values: FloatArray
    lower: float


def mir_cut(load: DeploymentColumns, values: FloatArray) -> CutRow | None:
    """The most violated rounding cut of a deployment, if there is any.

    Let the queries of a set S need f_q replicas each, together F = h - 1 + r with an integer h and 0 < r <= 1. All of
    them on the deployment make h replicas. Every amount d that one of them leaves out lowers that by g(d) =
    floor(d) + min(1, frac(d) / r) at most, hence

        replicas >= h - sum over q in S of (g(f_q) (1 - share of q) + sum over its candidates p of g(f_q - f_p) x_p).

    This is the mixed-integer rounding of the load, known for the loading of networks as residual capacity
    inequalities (Magnanti, Mirchandani and Vachani, "The convex hull of two core capacitated network design
    problems", 1993). Candidates that need more than f_q count as if they needed f_q.

    Args:
        load: the deployment's columns.
        values: (columns,) the relaxation's solution.
    """
    x = values[load.candidates]
    if x.sum() < _LEAST_VIOLATION:
        return None
    queries, position = np.unique(load.query_of, return_inverse=True)
    share: FloatArray = np.bincount(position, weights=x, minlength=len(queries)).astype(np.float64)
    kept = np.flatnonzero(share > _LEAST_VIOLATION)
    if not len(kept):
        return None
    best: CutRow | None = None
    worst = _LEAST_VIOLATION
    for level in _levels(load, x, position, kept):
        sets = _sets(share[kept])
        total = sets @ level
        whole = np.ceil(total - REPLICA_TOLERANCE)
        part = total - (whole - 1)
        lowered = _lowered(np.broadcast_to(level, sets.shape), part[:, None]) * (1 - share[kept])
        for column, query in enumerate(kept):
            of_query = (position == query) & (x > 0)
            less = np.maximum(level[column] - load.fluid[of_query], 0.0)
            lowered[:, column] += _lowered(less[None, :], part[:, None]) @ x[of_query]
        violation = whole - REPLICA_TOLERANCE / part - (sets * lowered).sum(axis=1) - values[load.replicas]
        violation[(part < _LEAST_PART) | (part > 1 - REPLICA_TOLERANCE)] = -np.inf
        most = int(np.argmax(violation))
        if violation[most] > worst:
            worst = float(violation[most])
            inside = sets[most]
            best = _row(load, position, kept[inside], level[inside], float(whole[most]), float(part[most]))
    return best


def _row(
    load: DeploymentColumns, position: IntArray, queries: IntArray, level: FloatArray, whole: float, part: float
) -> CutRow:
    columns, values = [np.array([load.replicas])], [np.array([1.0])]
    lower = whole - REPLICA_TOLERANCE / part
    for query, needed in zip(queries, level, strict=True):
        of_query = np.flatnonzero(position == query)
        all_gone = float(_lowered(np.array(needed), np.array(part)))
        less = np.maximum(needed - load.fluid[of_query], 0.0)
        columns.append(load.candidates[of_query])
        values.append(_lowered(less, np.array(part)) - all_gone)
        lower -= all_gone
    return CutRow(np.concatenate(columns), np.concatenate(values), lower)


def _lowered(amount: FloatArray, part: FloatArray) -> FloatArray:
    """g(amount) above."""
    whole = np.floor(amount + 1e-9)
    return np.asarray(whole + np.minimum(1.0, np.maximum(amount - whole, 0.0) / part))


def _levels(load: DeploymentColumns, x: FloatArray, position: IntArray, kept: IntArray) -> Sequence[FloatArray]:
    """Values to try for each query's f_q: of its most used candidate here, and the least of those in use."""
    members = [np.flatnonzero((position == query) & (x > 0)) for query in kept]
    most_used = np.array([load.fluid[of_query[np.argmax(x[of_query])]] for of_query in members])
    least = np.array([load.fluid[of_query].min() for of_query in members])
    return [most_used] if np.array_equal(most_used, least) else [most_used, least]


def _sets(share: FloatArray) -> BoolArray:
    """(sets, queries) which queries are in each set."""
    count = len(share)
    if count <= _LISTED_QUERIES:
        return ((np.arange(1, 1 << count)[:, None] >> np.arange(count)) & 1).astype(bool)
    rank = np.argsort(np.argsort(-share, kind="stable"), kind="stable")
    return np.asarray(rank[None, :] <= np.arange(count)[:, None])
