"""A quick answer by insertion and improvement: the exact solver's start, and the answer when time runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.matching.cuts import ChurnCut, Cut
from circinus.matching.problem import (
    CAPACITY_TOLERANCE,
    BoolArray,
    FloatArray,
    IntArray,
    Problem,
    Usage,
    round_up_replicas,
)
from circinus.matching.standing import IncrementalSolution

_PASSES = 8
"""Rounds of improvement; nearly all instances are at rest after three."""


@dataclass(frozen=True, eq=False)
class MarginalCosts:
    """Every candidate of one query, laid beside a usage that holds the other queries."""

    rows: FloatArray
    """(candidates, rows) what each capacity row would come to."""
    added_usd_per_h: FloatArray
    """(candidates,) what all deployments and transfers would cost more."""
    counted_usd_per_h: FloatArray
    """(candidates,) the same, and what a change of the query's plan counts."""
    fits: BoolArray
    """(candidates,) whether all linear capacities would hold."""


def marginal_costs(problem: Problem, query: int, usage: Usage) -> MarginalCosts:
    """Lay every candidate of `query` beside `usage`, which must not contain the query itself."""
    candidates, block = problem.candidates_of(query), problem.blocks[query]
    after = round_up_replicas(usage.fractional_load[block.deployments] + block.fractional_load, block.uses)
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
    changing = problem.change_usd_per_h[candidates.start : candidates.stop]
    return MarginalCosts(rows=rows, added_usd_per_h=cost, counted_usd_per_h=cost + changing, fits=fits)


def is_feasible(problem: Problem, chosen: IntArray, cuts: Sequence[Cut]) -> bool:
    """Whether a choice keeps every capacity, every cost objective at its share, and every cut."""
    return IncrementalSolution(problem, chosen).is_feasible(cuts)


def greedy(problem: Problem, cuts: Sequence[Cut] = (), *, should_stop: Callable[[], bool] = lambda: False) -> IntArray:
    """(Q,) a choice that keeps capacities, cost objectives and cuts: the better of two orders, improved.

    Queries are inserted by falling weight; each takes what adds the least cost, or (second try) what takes the
    least of the fullest resource.

    Args:
        problem: what to choose from.
        cuts: what must be kept.
        should_stop: whether to stop improving.
    """
    nobody = np.full(len(problem.queries), -1, dtype=np.int64)
    best = nobody
    for by_cost in (True, False):
        standing = IncrementalSolution(problem, nobody)
        for query in np.argsort(-problem.weight, kind="stable").tolist():
            _insert(standing, query, (), by_cost=by_cost, objectives=False)
        best = max(
            best,
            local_search(problem, standing.chosen, cuts, should_stop=should_stop),
            key=lambda found: objective_key(problem, found),
        )
    return best


def objective_key(problem: Problem, chosen: IntArray) -> tuple[float, ...]:
    """What choices are compared by: more weight, rank by rank, then less cost (rounded: noise is no improvement)."""
    return *problem.priority_levels.own_weights_of(chosen), -round(
        problem.cost_with_churn_usd_per_h(problem.usage_of(chosen)), 9
    )


def local_search(
    problem: Problem, chosen: IntArray, cuts: Sequence[Cut] = (), *, should_stop: Callable[[], bool] = lambda: False
) -> IntArray:
    """(Q,) a choice at least as good as `chosen` without what it breaks.

    Moves until none helps: a query is put where it adds the least cost, or a whole deployment is closed and its
    queries go elsewhere, each in turn (queries that share would never leave one by one).

    Args:
        problem: what to choose from.
        chosen: (Q,) to begin with; it may break anything.
        cuts: what must be kept.
        should_stop: whether to stop; asked between moves.
    """
    others = [cut for cut in cuts if not isinstance(cut, ChurnCut)]
    standing = IncrementalSolution(problem, chosen)
    drop_violating_queries(standing, others)
    for cut in cuts:
        if isinstance(cut, ChurnCut) and not cut.is_satisfied(problem, standing.chosen, standing.usage):
            standing = IncrementalSolution(
                problem, cut.kept
            )  # which of too many changes are worth most is not looked into
            drop_violating_queries(standing, others)
    for _ in range(_PASSES):
        standing.recompute()
        before = standing.goodness
        for query in range(len(problem.queries)):
            if should_stop():
                break
            _insert(standing, query, cuts, by_cost=True, objectives=True)
        standing.recompute()
        for deployment in np.flatnonzero(standing.usage.used).tolist():
            if should_stop():
                break
            _close(standing, deployment, cuts)
        if standing.goodness <= before:
            break
    return standing.chosen


def _insert(
    standing: IncrementalSolution,
    query: int,
    cuts: Sequence[Cut],
    *,
    by_cost: bool,
    objectives: bool,
    closed: int | None = None,
) -> None:
    """Give `query` its best fitting candidate (not on the `closed` deployment); where there is none, change nothing."""
    problem = standing.problem
    before = standing.move(query, -1)
    laid = marginal_costs(problem, query, standing.usage)
    allowed = laid.fits if closed is None else laid.fits & ~_uses(problem, query, closed)
    fullest = (laid.rows / problem.rows.limit).max(axis=1, initial=0.0)
    keys = (fullest, laid.counted_usd_per_h) if by_cost else (laid.counted_usd_per_h, fullest)
    for position in np.lexsort(keys).tolist():
        if not allowed[position]:
            continue
        candidate = int(problem.block[query]) + position
        standing.move(query, candidate)
        if candidate == before or not objectives or standing.is_feasible(cuts):
            return
        standing.move(query, -1)
    standing.move(query, before)


def _uses(problem: Problem, query: int, deployment: int) -> BoolArray:
    """(candidates of the query,) whether each uses the deployment."""
    block = problem.blocks[query]
    return np.asarray(block.uses[:, block.deployments == deployment].any(axis=1))


def _close(standing: IncrementalSolution, deployment: int, cuts: Sequence[Cut]) -> None:
    """Put all queries of a deployment elsewhere, if that is better as a whole; what finds no place is not served."""
    problem, goodness_before = standing.problem, standing.goodness
    served = np.flatnonzero(standing.chosen >= 0)
    users = served[problem.fractional_load.has(standing.chosen[served], deployment)]
    before = [(query, standing.move(query, -1)) for query in users.tolist()]
    for query in users[np.argsort(-problem.weight[users], kind="stable")].tolist():
        _insert(standing, query, (), by_cost=True, objectives=False, closed=deployment)
    if standing.goodness <= goodness_before or not standing.is_feasible(cuts):
        for query, candidate in before:
            standing.move(query, candidate)


def drop_violating_queries(standing: IncrementalSolution, cuts: Sequence[Cut]) -> None:
    """Take queries out, worst over its cost objective first, until everything is kept."""
    while not standing.is_feasible(cuts):
        over = standing.cost_violations()
        served = np.flatnonzero(standing.chosen >= 0)
        victim = over[0][1] if over else int(served[np.argmin(standing.problem.weight[served])])
        standing.move(victim, -1)
