"""Ties of a matching: a plan is exchanged for one that costs as much and comes first in the order of `tie_order`.

A solver returns any of the choices of equal weight and cost, so a plan may cross links for nothing. After the pass, no
exchange of one plan is left that keeps the plans of the other queries, the weight, the cost and every constraint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from circinus.arrays import IntArray
from circinus.matching.backfill import backfill
from circinus.matching.feasibility import Infeasibility, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.problem import Usage
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import IncrementalSolution, marginal_costs, objective_key
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning.tie_order import TieKey, TieOrder

Exchange = tuple[int, int]
"""(query, its new candidate)"""


def break_ties(answer: Answer) -> Answer:
    """Return the answer after all exchanges of a single plan that keep weight, cost and feasibility.

    The key of the whole matching falls with each exchange, so that they end. Exchanges may leave room for unserved
    queries.
    """
    run, exchanged, tried = answer.run, answer, set[Exchange]()
    order = TieOrder(run.queries, run.infrastructure)
    deadline_s = run.deadline_of(MATCHING.tie_time_share)
    while run.clock() < deadline_s and (exchanges := _exchanges(exchanged, order, tried)):
        before, exchanged = exchanged, _apply(exchanged, exchanges, order, tried, deadline_s)
        if exchanged is not before:
            tried.clear()
    return answer if exchanged is answer else backfill(exchanged)


def _exchanges(answer: Answer, order: TieOrder, tried: set[Exchange]) -> list[Exchange]:
    """Return the best exchange of each query within linear capacities, cost SLOs and cuts that was not tried."""
    problem, exchanges = answer.problem, list[Exchange]()
    solution = IncrementalSolution(problem, answer.chosen)
    for query, current in problem.served(answer.chosen):
        solution.move(query, -1)
        start, costs = int(problem.block[query]), marginal_costs(problem, query, solution.usage)
        limit_usd_per_h = costs.counted_usd_per_h[current - start] + EQUAL_USD_PER_H
        eligible = (costs.fits & (costs.counted_usd_per_h <= limit_usd_per_h)).nonzero()[0].tolist()
        keys = {
            start + position: order.key(problem.candidates[start + position], int(costs.added_replicas[position]))
            for position in {*eligible, current - start}
        }
        best = current
        for candidate in sorted(keys, key=keys.__getitem__):
            if keys[candidate] >= keys[current]:
                break
            if (query, candidate) not in tried:
                solution.move(query, candidate)
                if solution.is_feasible(answer.cuts):
                    best = candidate
                    exchanges.append((query, candidate))
                    break
        solution.move(query, best)
    return exchanges


def _apply(
    answer: Answer, exchanges: Sequence[Exchange], order: TieOrder, tried: set[Exchange], deadline_s: float
) -> Answer:
    """Return the answer with as many of the exchanges as hold together, and note those that fail alone."""
    if answer.run.clock() >= deadline_s:
        return answer
    exchanged = _exchanged(answer, exchanges, order)
    if exchanged is not None:
        return exchanged
    if len(exchanges) == 1:
        tried.add(exchanges[0])
        return answer
    half = len(exchanges) // 2
    for part in (exchanges[:half], exchanges[half:]):
        answer = _apply(answer, part, order, tried, deadline_s)
    return answer


def _exchanged(answer: Answer, exchanges: Sequence[Exchange], order: TieOrder) -> Answer | None:
    """Return the answer after exchanges, or None if that is infeasible, dearer or no better in ties."""
    problem, run, current = answer.problem, answer.run, answer.solution
    chosen = answer.chosen.copy()
    for query, candidate in exchanges:
        chosen[query] = candidate
    usage, queries = problem.usage_of(chosen), [query for query, _ in exchanges]
    if not _total_key(answer, chosen, usage, queries, order) < _total_key(
        answer, current.chosen, current.usage, queries, order
    ):
        return None
    if objective_key(problem, chosen, usage) < objective_key(problem, current.chosen, current.usage):
        return None
    if not all(cut.is_satisfied(problem, chosen, usage) for cut in answer.cuts):
        return None
    outcome = check_feasibility(problem, chosen, run.slos, run.reestimate, widely=answer.is_large)
    return None if isinstance(outcome, Infeasibility) else replace(answer, solution=outcome)


def _total_key(answer: Answer, chosen: IntArray, usage: Usage, queries: Sequence[int], order: TieOrder) -> TieKey:
    """Return the summed key of some queries, with the replicas of all."""
    keys = [order.key(answer.problem.candidates[chosen[query]], 0) for query in queries]
    sums = TieKey(*(sum(column) for column in zip(*keys, strict=True)))
    return sums._replace(replicas=int(usage.replicas.sum()))
