"""From one answer to the next: queries come, change or go, capacities change, and little else does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.prices.answer import NOT_SERVED, Members
from circinus.matching.prices.dual import Objective, Prices, bound
from circinus.matching.prices.exchange import exchange
from circinus.matching.prices.fluid import BoolArray, FluidProblem, IntArray
from circinus.matching.prices.moves import Running
from circinus.matching.prices.rounding import Regrets, ease, fill
from circinus.matching.prices.search import PriceSearch
from circinus.matching.prices.solve import FluidAnswer, cost_counts, dearest_usd_per_h, solve_fluid, weight_limit

_STALE = 0.002
"""Share of the bound that may be missing more than before until prices are sought anew."""


@dataclass(frozen=True, eq=False)
class Rematched:
    """The next answer."""

    answer: FluidAnswer
    changed: IntArray
    """Queries that ran and get another plan or none."""
    stale: bool
    """Whether prices were sought anew, as the old ones did not prove enough."""


def rematch(
    previous: FluidAnswer, problem: FluidProblem, came_from: IntArray, *, churn: float = 0.0, seed: int = 0
) -> Rematched:
    """The answer to a changed problem that changes little of what runs.

    Queries keep their plans unless these are gone or do not fit any more, or more than `churn` is gained by another.
    Only sites are looked at where something changed; queries that were not served may come in anywhere.

    Args:
        previous: the answer before.
        problem: with the same resources; plans of a query that stays have the same numbers, infinite costs are gone.
        came_from: (N,) which query of the previous answer each one was; -1: it is new.
        churn: weight that must be gained for every running query that gets another plan.
        seed: of samples, where prices are sought anew.

    Raises:
        PlanningError: other resources than before, or numbers without meaning.
    """
    problem.checked()
    members = Members.of(problem)
    _check_resources(problem, previous.members.problem)
    _check_origins(came_from, len(members.class_of), len(previous.chosen))
    if not len(members.class_of):
        return Rematched(solve_fluid(problem), np.zeros(0, dtype=np.int64), stale=False)
    ran = np.full(len(came_from), NOT_SERVED)
    ran[came_from >= 0] = previous.chosen[came_from[came_from >= 0]]
    chosen, served = ran.copy(), np.flatnonzero(ran >= 0)
    gone = ~np.isfinite(problem.cost_usd_per_h[members.class_of[served], ran[served]])
    chosen[served[gone]] = NOT_SERVED
    sites = np.flatnonzero(_concerned(previous, members, came_from, chosen, served[gone]))
    objective, running = Objective(1.0, cost_counts(problem)), Running(ran, churn)

    def completed(prices: Prices) -> tuple[IntArray, float]:
        regrets = Regrets.at(problem, objective, prices)
        found = fill(members, regrets, ease(members, regrets, chosen))
        found = exchange(members, regrets, found, objective, running=running, sites=sites)
        return found, weight_limit(
            problem, regrets.bound(problem, prices) + objective.cost * dearest_usd_per_h(problem)
        )

    prices = previous.prices
    found, limit = completed(prices)
    stale = members.weight(found) < (1.0 - previous.weight_gap - _STALE) * limit
    if stale:
        prices = PriceSearch(problem, np.random.default_rng(seed)).most_worth(objective, prices)
        found, tighter = completed(prices)
        limit = min(limit, tighter)
    weight, cost = members.weight(found), members.cost_usd_per_h(found)
    least = -bound(problem, Objective(0.0, 1.0, weight), previous.cost_prices)
    answer = FluidAnswer(
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


def _check_resources(problem: FluidProblem, before: FluidProblem) -> None:
    """Raises PlanningError where there are others than before."""
    if (problem.sites, problem.local, problem.shared) != (before.sites, before.local, before.shared):
        raise PlanningError(
            f"resources: found {problem.sites} sites with {problem.local} resources each and {problem.shared} shared, "
            f"expected {before.sites}, {before.local} and {before.shared} as in the previous answer"
        )


def _check_origins(came_from: IntArray, queries: int, before: int) -> None:
    """Raises PlanningError where it does not say of every query which one it was, each one once."""
    if came_from.shape != (queries,):
        raise PlanningError(f"came_from: found the shape {came_from.shape}, expected ({queries},)")
    known = came_from[came_from >= 0]
    if len(known) and known.max() >= before:
        raise PlanningError(f"came_from: found query {known.max()}, expected one of the {before} before, or -1")
    twice = np.flatnonzero(np.bincount(known, minlength=1) > 1)
    if len(twice):
        raise PlanningError(f"came_from: found query {twice[0]} twice, expected every one once")


def _concerned(
    previous: FluidAnswer, members: Members, came_from: IntArray, chosen: IntArray, dropped: IntArray
) -> BoolArray:
    """(sites,) where queries came, went or lost their plans, or what they take changed or does not fit."""
    problem, before, found = members.problem, previous.members.problem, np.zeros(members.problem.sites, dtype=bool)
    site = problem.site[members.class_of]
    found[site[came_from < 0]] = True
    found[site[dropped]] = True
    stayed = np.zeros(len(previous.chosen), dtype=bool)
    stayed[came_from[came_from >= 0]] = True
    found[before.site[previous.members.class_of[~stayed]]] = True
    # What a plan takes changes with the capacities: where there is more of one, there may be room for others.
    both = np.flatnonzero((chosen >= 0) & (came_from >= 0))
    there = previous.members.class_of[came_from[both]]
    change = problem.amounts[members.class_of[both], chosen[both]] != before.amounts[there, chosen[both]]
    found[site[both[change[:, : problem.local].any(axis=1)]]] = True
    found |= bool(change[:, problem.local :].any())
    own = members.usage(chosen)[: problem.sites * problem.local].reshape(problem.sites, problem.local)
    found[(own > 1.0).any(axis=1)] = True
    return found
