"""A quick answer by insertion and improvement: the exact solver's start, and the answer when time runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import ChurnCut, Cut
from circinus.matching.problem import CAPACITY_TOLERANCE, Problem, Usage, meets_cost_slo, round_up_replicas


class IncrementalSolution:
    """At most one candidate for each query. Moving one takes time for what it uses alone, not for all queries."""

    def __init__(self, problem: Problem, chosen: IntArray) -> None:
        """Begin with a choice (Q,), which need not keep anything."""
        self.problem = problem
        self.chosen = chosen.copy()
        most = int(np.diff(problem.fractional_load.start).max(initial=0))
        self._column = np.zeros((len(chosen), most), dtype=np.int64)
        self._fluid = np.zeros((len(chosen), most))
        """What each query's candidate needs of which deployments; nothing of the first one where it needs fewer."""
        self._transfer = np.zeros(len(chosen))
        for query, candidate in problem.served(chosen):
            self._note(query, candidate)
        self._count()

    def _count(self) -> None:
        """All sums anew: added to again and again, they drift."""
        self._usage = self.problem.usage_of(self.chosen)
        picked = self.chosen[self.chosen >= 0]
        self._users = np.zeros(len(self.problem.deployments), dtype=np.int64)
        for candidate in picked.tolist():
            self._users[self.problem.fractional_load.row(candidate)[0]] += 1

    @property
    def usage(self) -> Usage:
        """What the choice takes. The arrays are this object's own: they change with the next move."""
        return self._usage

    @property
    def goodness(self) -> tuple[float, ...]:
        """What choices are compared by: more weight, rank by rank, then less cost (rounded: noise improves nothing)."""
        counted_usd_per_h = self.problem.cost_with_churn_usd_per_h(self._usage)
        return *self.problem.priority_levels.own_weights_of(self.chosen), -round(counted_usd_per_h, 9)

    def move(self, query: int, candidate: int) -> int:
        """Give a query another candidate, -1 for none; returns the one it had."""
        before = int(self.chosen[query])
        if before != candidate:
            if before >= 0:
                self._add(before, -1)
            if candidate >= 0:
                self._add(candidate, 1)
            self.chosen[query] = candidate
            self._note(query, candidate)
        return before

    def recompute(self) -> None:
        """Add everything up anew."""
        self._count()

    def _note(self, query: int, candidate: int) -> None:
        self._column[query], self._fluid[query], self._transfer[query] = 0, 0.0, 0.0
        if candidate >= 0:
            columns, fluid = self.problem.fractional_load.row(candidate)
            self._column[query, : len(columns)], self._fluid[query, : len(columns)] = columns, fluid
            self._transfer[query] = self.problem.transfer_cost_usd_per_h[candidate]

    def _add(self, candidate: int, sign: int) -> None:
        problem, usage = self.problem, self._usage
        columns, fluid = problem.fractional_load.row(candidate)
        links, volume = problem.traffic.row(candidate)
        self._users[columns] += sign
        used = self._users[columns] > 0
        total = np.where(used, usage.fractional_load[columns] + sign * fluid, 0.0)
        replicas = round_up_replicas(total, used)
        added = replicas - usage.replicas[columns]
        usage.fractional_load[columns], usage.used[columns], usage.replicas[columns] = total, used, replicas
        usage.traffic_bytes_per_s[links] += sign * volume
        changed = np.flatnonzero(added)
        cost = sign * float(problem.transfer_cost_usd_per_h[candidate])
        rows = usage.rows
        if len(changed):
            rows = rows + problem.rows.coefficients[:, columns[changed]] @ added[changed]
            cost += float(problem.price_usd_per_h[columns[changed]] @ added[changed])
        self._usage = Usage(
            fractional_load=usage.fractional_load,
            used=usage.used,
            replicas=usage.replicas,
            traffic_bytes_per_s=usage.traffic_bytes_per_s,
            rows=rows,
            cost_usd_per_h=usage.cost_usd_per_h + cost,
            changes=usage.changes - sign * int(problem.runs[candidate]),
        )

    @cached_property
    def _limited(self) -> IntArray:
        """Queries with a cost objective."""
        return np.flatnonzero(np.isfinite(self.problem.cost_limit_usd_per_h)).astype(np.int64)

    def shares_usd_per_h(self, queries: IntArray) -> FloatArray:
        """What queries pay: their shares of whole replicas by load, and their transfers; 0 where one is not served."""
        usage = self._usage
        load = np.where(usage.used, usage.fractional_load, 1.0)
        unit = self.problem.price_usd_per_h * usage.replicas / load
        return np.asarray((unit[self._column[queries]] * self._fluid[queries]).sum(axis=1) + self._transfer[queries])

    def cost_violations(self) -> list[tuple[float, int]]:
        """(share over the limit in US dollars per hour, query) where a cost objective fails, worst first."""
        limited = self._limited
        if not len(limited):
            return []
        limit = self.problem.cost_limit_usd_per_h[limited]
        shares = self.shares_usd_per_h(limited)
        wrong = np.flatnonzero(~meets_cost_slo(shares, limit))
        return sorted(((float(shares[row] - limit[row]), int(limited[row])) for row in wrong), reverse=True)

    def is_feasible(self, cuts: Sequence[Cut]) -> bool:
        """Whether the choice keeps every capacity, every cost objective at its share, and every cut."""
        return (
            self.problem.fits(self._usage)
            and not self.cost_violations()
            and all(cut.is_satisfied(self.problem, self.chosen, self._usage) for cut in cuts)
        )


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
