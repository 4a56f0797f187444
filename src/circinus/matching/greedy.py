"""A quick answer by insertion and improvement: the exact solver's start, and the answer when time runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.matching.cuts import Cut
from circinus.matching.problem import (
    CAPACITY_TOLERANCE,
    BoolArray,
    FloatArray,
    IntArray,
    Problem,
    Usage,
    whole_replicas,
)

_PASSES = 8
"""Rounds of improvement; nearly all instances are at rest after three."""


@dataclass(frozen=True, eq=False)
class Beside:
    """Every candidate of one query, laid beside a usage that holds the other queries."""

    rows: FloatArray
    """(candidates, rows) what each capacity row would come to."""
    added_usd_per_h: FloatArray
    """(candidates,) what all deployments and transfers would cost more."""
    fits: BoolArray
    """(candidates,) whether all linear capacities would hold."""


def beside(problem: Problem, query: int, usage: Usage) -> Beside:
    """Lay every candidate of `query` beside `usage`, which must not contain the query itself."""
    candidates, block = problem.candidates_of(query), problem.blocks[query]
    after = whole_replicas(usage.fluid[block.deployments] + block.fluid, block.uses)
    added = np.where(block.uses, after - usage.replicas[block.deployments], 0.0)
    rows = usage.rows + added @ block.coefficients
    traffic = usage.traffic_bytes_per_s + block.traffic_bytes_per_s
    cost = added @ problem.price_usd_per_h[block.deployments]
    cost += problem.transfer_cost_usd_per_h[candidates.start : candidates.stop]
    fits = np.asarray(
        (rows <= problem.rows.limit * (1 + CAPACITY_TOLERANCE)).all(axis=1)
        & (traffic <= problem.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE)).all(axis=1)
        & (after <= problem.max_replicas[block.deployments]).all(axis=1)
    )
    return Beside(rows=rows, added_usd_per_h=cost, fits=fits)


def keeps_all(problem: Problem, chosen: IntArray, cuts: Sequence[Cut]) -> bool:
    """Whether a choice keeps every capacity, every cost objective at its share, and every cut."""
    usage = problem.usage_of(chosen)
    return (
        problem.fits(usage)
        and not any(True for _ in over_cost(problem, chosen, usage))
        and all(cut.holds(problem, chosen, usage) for cut in cuts)
    )


def over_cost(problem: Problem, chosen: IntArray, usage: Usage) -> list[tuple[float, int, int]]:
    """(share over the limit in US dollars per hour, query, candidate) where a cost objective fails, worst first."""
    found = []
    for query, candidate in problem.served(chosen):
        limit = problem.cost_limit_usd_per_h[query]
        if np.isfinite(limit):
            share = problem.cost_share_usd_per_h(candidate, usage)
            if not within_cost(share, float(limit)):
                found.append((share - float(limit), query, candidate))
    return sorted(found, reverse=True)


def within_cost(share_usd_per_h: float, limit_usd_per_h: float) -> bool:
    """Whether a share keeps a limit, rounding aside."""
    return share_usd_per_h <= limit_usd_per_h * (1 + CAPACITY_TOLERANCE) + 1e-12


def greedy(problem: Problem, cuts: Sequence[Cut] = ()) -> IntArray:
    """(Q,) a choice that keeps capacities, cost objectives and cuts: the better of two orders, improved.

    Queries are inserted by falling weight; each takes what adds the least cost, or (second try) what takes the
    least of the fullest resource.
    """
    best = np.full(len(problem.queries), -1, dtype=np.int64)
    for by_cost in (True, False):
        chosen = np.full(len(problem.queries), -1, dtype=np.int64)
        for query in np.argsort(-problem.weight, kind="stable"):
            chosen = _insert(problem, chosen, int(query), (), by_cost=by_cost, objectives=False)
        best = max(best, improve(problem, chosen, cuts), key=lambda found: goodness(problem, found))
    return best


def goodness(problem: Problem, chosen: IntArray) -> tuple[float, float]:
    """What choices are compared by: more weight, then less cost (rounded, so that noise is no improvement)."""
    return round(problem.weight_of(chosen), 9), -round(problem.usage_of(chosen).cost_usd_per_h, 9)


def improve(problem: Problem, chosen: IntArray, cuts: Sequence[Cut] = ()) -> IntArray:
    """(Q,) a choice at least as good as `chosen` without what it breaks.

    Moves until none helps: a query is put where it adds the least cost, or a whole deployment is closed and its
    queries go elsewhere, each in turn (queries that share would never leave one by one).
    """
    chosen = _keep_objectives(problem, chosen, cuts)
    for _ in range(_PASSES):
        before = goodness(problem, chosen)
        for query in range(len(problem.queries)):
            chosen = _insert(problem, chosen, query, cuts, by_cost=True, objectives=True)
        for deployment in np.flatnonzero(problem.usage_of(chosen).used):
            moved = _close(problem, chosen, int(deployment), cuts)
            if goodness(problem, moved) > goodness(problem, chosen):
                chosen = moved
        if goodness(problem, chosen) <= before:
            break
    return chosen


def _insert(
    problem: Problem,
    chosen: IntArray,
    query: int,
    cuts: Sequence[Cut],
    *,
    by_cost: bool,
    objectives: bool,
    closed: int | None = None,
) -> IntArray:
    """Give `query` its best fitting candidate (not on the `closed` deployment); where there is none, change nothing."""
    without = chosen.copy()
    without[query] = -1
    laid = beside(problem, query, problem.usage_of(without))
    allowed = laid.fits if closed is None else laid.fits & ~_uses(problem, query, closed)
    fullest = (laid.rows / problem.rows.limit).max(axis=1, initial=0.0)
    keys = (fullest, laid.added_usd_per_h) if by_cost else (laid.added_usd_per_h, fullest)
    for position in np.lexsort(keys):
        if not allowed[position]:
            continue
        tried = without.copy()
        tried[query] = problem.block[query] + position
        if tried[query] == chosen[query] or not objectives or keeps_all(problem, tried, cuts):
            return tried
    return chosen


def _uses(problem: Problem, query: int, deployment: int) -> BoolArray:
    """(candidates of the query,) whether each uses the deployment."""
    block = problem.blocks[query]
    return np.asarray(block.uses[:, block.deployments == deployment].any(axis=1))


def _close(problem: Problem, chosen: IntArray, deployment: int, cuts: Sequence[Cut]) -> IntArray:
    """Put every query of a deployment elsewhere; those that find no place are not served."""
    served = np.flatnonzero(chosen >= 0)
    users = served[problem.fluid.has(chosen[served], deployment)]
    moved = chosen.copy()
    moved[users] = -1
    for query in users[np.argsort(-problem.weight[users], kind="stable")].tolist():
        moved = _insert(problem, moved, query, (), by_cost=True, objectives=False, closed=deployment)
    return moved if keeps_all(problem, moved, cuts) else chosen


def _keep_objectives(problem: Problem, chosen: IntArray, cuts: Sequence[Cut]) -> IntArray:
    """Take queries out, worst over its cost objective first, until everything is kept."""
    chosen = chosen.copy()
    while not keeps_all(problem, chosen, cuts):
        over = over_cost(problem, chosen, problem.usage_of(chosen))
        served = np.flatnonzero(chosen >= 0)
        victim = over[0][1] if over else int(served[np.argmin(problem.weight[served])])
        chosen[victim] = -1
    return chosen
