"""Greedy insertion and local search: the exact solver's warm start, and the answer if time runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import ChurnCut, Cut
from circinus.matching.problem import Problem, Usage, meets_cost_slo, round_up_replicas, whole_replicas
from circinus.matching.settings import MATCHING
from circinus.matching.tolerances import CAPACITY_TOLERANCE


class IncrementalSolution:
    """A choice with its usage. A move takes time proportional to the deployments it affects, not to the queries."""

    def __init__(self, problem: Problem, chosen: IntArray) -> None:
        """Start with a choice (Q,), which may be infeasible."""
        self.problem = problem
        self.chosen = chosen.copy()
        max_entries = int(np.diff(problem.fractional_load.start).max(initial=0))
        self._column = np.zeros((len(chosen), max_entries), dtype=np.int64)
        self._fractional = np.zeros((len(chosen), max_entries))
        """(Q, deployments of a candidate) fractional replicas; padded with 0 for the first deployment."""
        self._transfer = np.zeros(len(chosen))
        for query, candidate in problem.served(chosen):
            self._store_row(query, candidate)
        self.recompute()

    def recompute(self) -> None:
        """Recompute all sums, as repeated additions drift."""
        self._usage = self.problem.usage_of(self.chosen)
        served = self.chosen[self.chosen >= 0]
        self._users = np.zeros(len(self.problem.deployments), dtype=np.int64)
        for candidate in served.tolist():
            self._users[self.problem.fractional_load.row(candidate)[0]] += 1

    def copy(self) -> IncrementalSolution:
        """Return a solution whose moves do not change this one."""
        other, usage = copy(self), self._usage
        other.chosen, other._users = self.chosen.copy(), self._users.copy()
        other._column, other._fractional = self._column.copy(), self._fractional.copy()
        other._transfer = self._transfer.copy()
        other._usage = replace(
            usage,
            fractional_load=usage.fractional_load.copy(),
            used=usage.used.copy(),
            replicas=usage.replicas.copy(),
            traffic_bytes_per_s=usage.traffic_bytes_per_s.copy(),
        )
        return other

    @property
    def usage(self) -> Usage:
        """Usage of the choice. Its arrays change with the next move."""
        return self._usage

    @property
    def key(self) -> tuple[float, ...]:
        """Key by which choices are compared: weight by level, then negative cost, rounded against noise."""
        return objective_key(self.problem, self.chosen, self._usage)

    def min_cost_usd_per_h(self, unserved: int) -> float:
        """Return a lower bound of the cost in `key` when a number of queries more are served."""
        price = 0.0 if self.problem.incumbent is None else self.problem.incumbent.change_usd_per_h
        return round(self.problem.cost_with_churn_usd_per_h(self._usage) - price * unserved, 9)

    def move(self, query: int, candidate: int) -> int:
        """Give a query another candidate, -1 for none, and return its previous one."""
        previous = int(self.chosen[query])
        if previous != candidate:
            if previous >= 0:
                self._add(previous, -1)
            if candidate >= 0:
                self._add(candidate, 1)
            self.chosen[query] = candidate
            self._store_row(query, candidate)
        return previous

    def _store_row(self, query: int, candidate: int) -> None:
        self._column[query], self._fractional[query], self._transfer[query] = 0, 0.0, 0.0
        if candidate >= 0:
            columns, fractional = self.problem.fractional_load.row(candidate)
            self._column[query, : len(columns)], self._fractional[query, : len(columns)] = columns, fractional
            self._transfer[query] = self.problem.transfer_cost_usd_per_h[candidate]

    def _add(self, candidate: int, sign: int) -> None:
        problem, usage = self.problem, self._usage
        columns, fractional = problem.fractional_load.row(candidate)
        links, volume = problem.traffic.row(candidate)
        changed, added = [], []
        for column, load in zip(columns.tolist(), fractional.tolist(), strict=True):  # a few: faster than arrays
            self._users[column] += sign
            used = self._users.item(column) > 0
            total = usage.fractional_load.item(column) + sign * load if used else 0.0
            spare, previous = problem.spare_replicas.item(column), usage.replicas.item(column)
            replicas = whole_replicas(total, spare) if used else 0
            usage.fractional_load[column], usage.used[column] = total, used
            if replicas != previous:
                usage.replicas[column] = replicas
                changed.append(column)
                added.append(replicas - previous)
        if len(links):
            usage.traffic_bytes_per_s[links] += sign * volume
        cost = sign * problem.transfer_cost_usd_per_h.item(candidate)
        rows, nodes = usage.rows, usage.nodes
        if changed:
            rows = rows + problem.rows.coefficients[:, changed] @ added
            cost += float(problem.billed_usd_per_h[changed] @ added)
            if len(problem.elastic):
                nodes = problem.with_nodes(nodes, usage.replicas, problem.pool_of[changed])
                cost += float(problem.node_price_usd_per_h @ (nodes - usage.nodes))
        self._usage = Usage(
            fractional_load=usage.fractional_load,
            used=usage.used,
            replicas=usage.replicas,
            traffic_bytes_per_s=usage.traffic_bytes_per_s,
            rows=rows,
            nodes=nodes,
            cost_usd_per_h=usage.cost_usd_per_h + cost,
            changes=usage.changes - sign * int(problem.runs[candidate]),
        )

    @cached_property
    def _cost_limited(self) -> IntArray:
        """Queries with a cost SLO."""
        return np.flatnonzero(np.isfinite(self.problem.cost_limit_usd_per_h)).astype(np.int64)

    def shares_usd_per_h(self, queries: IntArray) -> FloatArray:
        """Return the queries' cost shares of whole replicas by load, plus transfers; 0 if not served."""
        usage = self._usage
        load = np.where(usage.used, usage.fractional_load, 1.0)
        unit = self.problem.paid_usd_per_h(usage.replicas, usage.nodes) * usage.replicas / load
        return np.asarray(
            (unit[self._column[queries]] * self._fractional[queries]).sum(axis=1) + self._transfer[queries]
        )

    def cost_violations(self) -> list[tuple[float, int]]:
        """Return (excess in US dollars per hour, query) of violated cost SLOs, worst first."""
        limited = self._cost_limited
        if not len(limited):
            return []
        limit = self.problem.cost_limit_usd_per_h[limited]
        shares = self.shares_usd_per_h(limited)
        violating = np.flatnonzero(~meets_cost_slo(shares, limit))
        return sorted(((float(shares[row] - limit[row]), int(limited[row])) for row in violating), reverse=True)

    def is_feasible(self, cuts: Sequence[Cut]) -> bool:
        """Return whether the choice satisfies every capacity, every cost SLO at its share, and every cut."""
        return (
            self.problem.fits(self._usage)
            and not self.cost_violations()
            and all(cut.is_satisfied(self.problem, self.chosen, self._usage) for cut in cuts)
        )


@dataclass(frozen=True, eq=False)
class MarginalCosts:
    """Marginal costs of every candidate of one query, added to a usage of the other queries."""

    rows: FloatArray
    """(candidates, rows) left side of each capacity row."""
    added_usd_per_h: FloatArray
    """(candidates,) additional cost of all deployments and transfers."""
    counted_usd_per_h: FloatArray
    """(candidates,) additional cost including churn."""
    added_replicas: IntArray
    """(candidates,)"""
    fits: BoolArray
    """(candidates,) whether all linear capacities hold."""


def marginal_costs(problem: Problem, query: int, usage: Usage, *, packed: bool = False) -> MarginalCosts:
    """Compute the marginal cost of every candidate of `query` for a `usage` without the query.

    Unless `packed`, nodes that are paid whole count as if replicas could be divided between them.
    """
    candidates, block = problem.candidates_of(query), problem.blocks[query]
    load, spare = usage.fractional_load[block.deployments] + block.fractional_load, problem.spare_replicas
    replicas = round_up_replicas(load, block.uses, spare[block.deployments])
    added = np.where(block.uses, replicas - usage.replicas[block.deployments], 0.0)
    rows = usage.rows + added @ block.coefficients
    traffic = usage.traffic_bytes_per_s + block.traffic_bytes_per_s
    cost = added @ problem.billed_usd_per_h[block.deployments]
    if len(problem.elastic):
        further = np.maximum(problem.needed_nodes(rows) - usage.nodes, 0)
        for position in range(len(further)) if packed else ():
            replicas_with = usage.replicas.copy()
            replicas_with[block.deployments] += added[position].astype(np.int64)
            further[position] = problem.nodes_of(replicas_with) - usage.nodes
        cost += further @ problem.node_price_usd_per_h
    cost += problem.transfer_cost_usd_per_h[candidates.start : candidates.stop]
    fits = np.asarray(
        (rows <= problem.rows.limit * (1 + CAPACITY_TOLERANCE)).all(axis=1)
        & (traffic <= problem.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE)).all(axis=1)
        & (replicas <= problem.max_replicas[block.deployments]).all(axis=1)
    )
    changing = problem.change_usd_per_h[candidates.start : candidates.stop]
    return MarginalCosts(
        rows=rows,
        added_usd_per_h=cost,
        counted_usd_per_h=cost + changing,
        added_replicas=added.sum(axis=1).astype(np.int64),
        fits=fits,
    )


def is_feasible(problem: Problem, chosen: IntArray, cuts: Sequence[Cut]) -> bool:
    """Return whether a choice satisfies every capacity, every cost SLO at its share, and every cut."""
    return IncrementalSolution(problem, chosen).is_feasible(cuts)


def greedy(problem: Problem, cuts: Sequence[Cut] = (), *, should_stop: Callable[[], bool] = lambda: False) -> IntArray:
    """Return (Q,) a choice that satisfies capacities, cost SLOs and cuts: the better of two greedy ones, improved.

    Queries are inserted by falling weight; each gets the candidate with the least added cost, or (second try) with the
    least usage of the fullest resource.

    Args:
        problem: the matching problem.
        cuts: to be satisfied.
        should_stop: whether to stop improving.
    """
    empty = np.full(len(problem.queries), -1, dtype=np.int64)
    best = empty
    for by_cost in (True, False):
        solution = IncrementalSolution(problem, empty)
        for query in np.argsort(-problem.priority_levels.importance, kind="stable").tolist():
            _insert(solution, query, (), by_cost=by_cost, check_slos=False)
        best = max(
            best,
            local_search(problem, solution.chosen, cuts, should_stop=should_stop),
            key=lambda chosen: objective_key(problem, chosen),
        )
    return best


def objective_key(problem: Problem, chosen: IntArray, usage: Usage | None = None) -> tuple[float, ...]:
    """Return the key by which choices are compared: weight by level, then negative cost, rounded against noise."""
    cost = problem.cost_with_churn_usd_per_h(problem.usage_of(chosen) if usage is None else usage)
    return *problem.priority_levels.weights_of(chosen), -round(cost, 9)


def local_search(
    problem: Problem, chosen: IntArray, cuts: Sequence[Cut] = (), *, should_stop: Callable[[], bool] = lambda: False
) -> IntArray:
    """Return (Q,) a feasible choice at least as good as the feasible part of `chosen`.

    Moves until none helps: a query moves to the candidate with the least added cost, or a whole deployment is closed
    and its queries are reinserted in turn (queries that share it would never leave one by one). A pool whose nodes are
    paid whole is closed likewise.

    Args:
        problem: the matching problem.
        chosen: (Q,) to start from; it may be infeasible.
        cuts: to be satisfied.
        should_stop: whether to stop; checked between moves.
    """
    hard_cuts = [cut for cut in cuts if not isinstance(cut, ChurnCut)]
    solution = IncrementalSolution(problem, chosen)
    drop_violating_queries(solution, hard_cuts)
    for cut in cuts:
        if isinstance(cut, ChurnCut) and not cut.is_satisfied(problem, solution.chosen, solution.usage):
            solution = IncrementalSolution(
                problem, cut.retained
            )  # does not search for the most valuable subset of changes
            drop_violating_queries(solution, hard_cuts)
    for _ in range(MATCHING.max_greedy_passes):
        solution.recompute()
        previous = solution.key
        for query in range(len(problem.queries)):
            if should_stop():
                break
            _insert(solution, query, cuts, by_cost=True, check_slos=True)
        solution.recompute()
        for deployments in _closable(solution):
            if should_stop():
                break
            solution = _with_closed_deployments(solution, deployments, cuts)
        if solution.key <= previous:
            break
    return solution.chosen


def _insert(
    solution: IncrementalSolution,
    query: int,
    cuts: Sequence[Cut],
    *,
    by_cost: bool,
    check_slos: bool,
    closed: BoolArray | None = None,
) -> None:
    """Give `query` its best fitting candidate (not on `closed` (D,)); if there is none, change nothing."""
    problem = solution.problem
    previous = solution.move(query, -1)
    costs = marginal_costs(problem, query, solution.usage)
    block = problem.blocks[query]
    fits = costs.fits if closed is None else costs.fits & ~(block.uses & closed[block.deployments]).any(axis=1)
    eligible = np.flatnonzero(fits)
    fullest = (costs.rows[eligible] / problem.rows.limit).max(axis=1, initial=0.0)
    counted_usd_per_h = costs.counted_usd_per_h[eligible]
    keys = (fullest, counted_usd_per_h) if by_cost else (counted_usd_per_h, fullest)
    for position in eligible[np.lexsort(keys)].tolist():
        candidate = int(problem.block[query]) + position
        solution.move(query, candidate)
        if candidate == previous or not check_slos or solution.is_feasible(cuts):
            return
        solution.move(query, -1)
    solution.move(query, previous)


def _closable(solution: IncrementalSolution) -> Iterator[IntArray]:
    """Yield each deployment in use, and those of each elastic pool in use whose nodes are paid whole."""
    problem = solution.problem
    used = np.flatnonzero(solution.usage.used).astype(np.int64)
    yield from used[:, None]
    for pool in np.unique(problem.pool_of[used]).tolist():
        if pool in problem.elastic and problem.node_price_usd_per_h[pool] > 0:
            yield np.flatnonzero(problem.pool_of == pool).astype(np.int64)


def _with_closed_deployments(
    solution: IncrementalSolution, deployments: IntArray, cuts: Sequence[Cut]
) -> IncrementalSolution:
    """Return the solution with all queries of deployments reinserted elsewhere, or as it is unless that is better.

    It is given up as soon as a query loses its plan or the cost is as before, as the remaining queries only add to it.
    """
    problem, key, closed = solution.problem, solution.key, solution.copy()
    served = np.flatnonzero(solution.chosen >= 0)
    used = deployments[solution.usage.used[deployments]]
    if not len(used):
        return solution
    users = served[np.any([problem.fractional_load.has(solution.chosen[served], d) for d in used], axis=0)]
    is_closed = np.zeros(len(problem.deployments), dtype=bool)
    is_closed[deployments] = True
    for query in users.tolist():
        closed.move(query, -1)
    order = users[np.argsort(-problem.priority_levels.importance[users], kind="stable")].tolist()
    if closed.min_cost_usd_per_h(len(order)) >= -key[-1]:
        return solution
    for number, query in enumerate(order, start=1):
        _insert(closed, query, (), by_cost=True, check_slos=False, closed=is_closed)
        if closed.chosen[query] < 0 or closed.min_cost_usd_per_h(len(order) - number) >= -key[-1]:
            return solution
    return closed if closed.key > key and closed.is_feasible(cuts) else solution


def drop_violating_queries(solution: IncrementalSolution, cuts: Sequence[Cut]) -> None:
    """Drop queries, largest cost excess first, until the choice is feasible."""
    while not solution.is_feasible(cuts):
        over = solution.cost_violations()
        served = np.flatnonzero(solution.chosen >= 0)
        victim = over[0][1] if over else int(served[np.argmin(solution.problem.priority_levels.importance[served])])
        solution.move(victim, -1)
