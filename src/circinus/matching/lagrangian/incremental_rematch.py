"""From one answer to the next: queries come, change or go, capacities change, and little else does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.errors import PlanningError
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.dual_ascent import DualSolver
from circinus.matching.lagrangian.local_search import ChurnTerms, swap_search
from circinus.matching.lagrangian.primal_rounding import ReducedProfits, greedy_fill, repair_overload
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.lagrangian.solve import (
    RelaxedSolution,
    cost_tiebreak_weight,
    max_cost_usd_per_h,
    solve_relaxed,
    tighten_weight_bound,
)

_STALE = 0.002
"""Share of the bound that may be missing more than before until prices are sought anew."""


@dataclass(frozen=True, eq=False)
class Rematched:
    """The next answer."""

    answer: RelaxedSolution
    changed: IntArray
    """Queries that ran and get another plan or none."""
    stale: bool
    """Whether prices were sought anew, as the old ones did not prove enough."""


def rematch(
    previous: RelaxedSolution, problem: RelaxedProblem, previous_index: IntArray, *, churn: float = 0.0, seed: int = 0
) -> Rematched:
    """The answer to a changed problem that changes little of what runs.

    Queries keep their plans unless these are gone or do not fit any more, or more than `churn` is gained by another.
    Only sites are looked at where something changed; queries that were not served may come in anywhere.

    Args:
        previous: the answer before.
        problem: with the same resources; plans of a query that stays have the same numbers, infinite costs are gone.
        previous_index: (N,) which query of the previous answer each one was; -1: it is new.
        churn: weight that must be gained for every running query that gets another plan.
        seed: of samples, where prices are sought anew.

    Raises:
        PlanningError: other resources than before, or numbers without meaning.
    """
    problem.checked()
    members = ExpandedQueries.of(problem)
    _check_resources(problem, previous.members.problem)
    _check_origins(previous_index, len(members.class_of), len(previous.chosen))
    if not len(members.class_of):
        return Rematched(solve_relaxed(problem), np.zeros(0, dtype=np.int64), stale=False)
    ran = np.full(len(previous_index), NOT_SERVED)
    ran[previous_index >= 0] = previous.chosen[previous_index[previous_index >= 0]]
    chosen, served = ran.copy(), np.flatnonzero(ran >= 0)
    gone = ~np.isfinite(problem.cost_usd_per_h[members.class_of[served], ran[served]])
    chosen[served[gone]] = NOT_SERVED
    sites = np.flatnonzero(_concerned(previous, members, previous_index, chosen, served[gone]))
    objective, running = DualObjective(1.0, cost_tiebreak_weight(problem)), ChurnTerms(ran, churn)

    def completed(prices: Prices) -> tuple[IntArray, float]:
        regrets = ReducedProfits.at(problem, objective, prices)
        found = greedy_fill(members, regrets, repair_overload(members, regrets, chosen))
        found = swap_search(members, regrets, found, objective, running=running, sites=sites)
        return found, tighten_weight_bound(
            problem, regrets.bound(problem, prices) + objective.cost * max_cost_usd_per_h(problem)
        )

    prices = previous.prices
    found, limit = completed(prices)
    stale = members.weight(found) < (1.0 - previous.weight_gap - _STALE) * limit
    if stale:
        prices = DualSolver(problem, np.random.default_rng(seed)).maximize_weight(objective, prices)
        found, tighter = completed(prices)
        limit = min(limit, tighter)
    weight, cost = members.weight(found), members.cost_usd_per_h(found)
    least = -dual_bound(problem, DualObjective(0.0, 1.0, weight), previous.cost_prices)
    answer = RelaxedSolution(
        members=members,
        chosen=found,
        weight=weight,
        weight_bound=max(limit, weight),
        cost_usd_per_h=cost,
        cost_bound_usd_per_h=min(max(least, 0.0), cost),
        prices=prices,
        cost_prices=previous.cost_prices,
        cost_counts=objective.cost,
    )
    return Rematched(answer, served[found[served] != ran[served]], stale)


def _check_resources(problem: RelaxedProblem, before: RelaxedProblem) -> None:
    """Raises PlanningError where there are others than before."""
    if (problem.sites, problem.local, problem.shared) != (before.sites, before.local, before.shared):
        raise PlanningError(
            f"resources: found {problem.sites} sites with {problem.local} resources each and {problem.shared} shared, "
            f"expected {before.sites}, {before.local} and {before.shared} as in the previous answer"
        )


def _check_origins(previous_index: IntArray, queries: int, before: int) -> None:
    """Raises PlanningError where it does not say of every query which one it was, each one once."""
    if previous_index.shape != (queries,):
        raise PlanningError(f"came_from: found the shape {previous_index.shape}, expected ({queries},)")
    known = previous_index[previous_index >= 0]
    if len(known) and known.max() >= before:
        raise PlanningError(f"came_from: found query {known.max()}, expected one of the {before} before, or -1")
    twice = np.flatnonzero(np.bincount(known, minlength=1) > 1)
    if len(twice):
        raise PlanningError(f"came_from: found query {twice[0]} twice, expected every one once")


def _concerned(
    previous: RelaxedSolution, members: ExpandedQueries, previous_index: IntArray, chosen: IntArray, dropped: IntArray
) -> BoolArray:
    """(sites,) where queries came, went or lost their plans, or what they take changed or does not fit."""
    problem, before, found = members.problem, previous.members.problem, np.zeros(members.problem.sites, dtype=bool)
    site = problem.site[members.class_of]
    found[site[previous_index < 0]] = True
    found[site[dropped]] = True
    stayed = np.zeros(len(previous.chosen), dtype=bool)
    stayed[previous_index[previous_index >= 0]] = True
    found[before.site[previous.members.class_of[~stayed]]] = True
    # What a plan takes changes with the capacities: where there is more of one, there may be room for others.
    both = np.flatnonzero((chosen >= 0) & (previous_index >= 0))
    there = previous.members.class_of[previous_index[both]]
    change = problem.amounts[members.class_of[both], chosen[both]] != before.amounts[there, chosen[both]]
    found[site[both[change[:, : problem.local].any(axis=1)]]] = True
    found |= bool(change[:, problem.local :].any())
    own = members.usage(chosen)[: problem.sites * problem.local].reshape(problem.sites, problem.local)
    found[(own > 1.0).any(axis=1)] = True
    return found
