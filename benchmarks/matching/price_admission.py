"""Online admission of one query at a time at fixed prices, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.local_search import Moves, best_pair, improvement_tolerance, list_moves
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxed_problem import Amounts
from circinus.matching.lagrangian.solve import RelaxedSolution

_MAX_QUERIES, _MAX_MOVES = 4_000, 1_024
"""Maximum number of queries of a site that may yield, and of their cached moves."""
_UNPRICED = 1e-3
"""Price of an unpriced resource, as a share of the highest one, to find the smallest missing capacity."""


@dataclass(frozen=True, eq=False)
class AdmissionRequest:
    """A query to be admitted."""

    weight: float
    cost_usd_per_h: FloatArray
    """(P,) infinite if there is no plan."""
    amounts: Amounts
    """(P, S) shares of the capacities."""
    site: int


@dataclass(frozen=True)
class Admitted:
    """The query is served from now on."""

    plan: int
    moved: tuple[tuple[int, int], ...] = ()
    """(running query, its new plan or -1) that freed capacity."""


@dataclass(frozen=True, eq=False)
class AdmissionRefused:
    """No plan of the query fits."""

    plan: int
    """Plan with the least missing capacity, weighted by prices; -1: the query has no plan."""
    missing_capacity: FloatArray
    """(S,) missing shares of capacities."""
    price: FloatArray
    """(S,) price of whole capacities, in units of weight."""

    @property
    def binding(self) -> IntArray:
        """Slots with missing capacity, most expensive first."""
        order = np.argsort(-self.missing_capacity * self.price, kind="stable")
        return np.asarray(order[self.missing_capacity[order] > 0], dtype=np.int64)


class OnlineAdmission:
    """Admission of queries one by one: usage is updated, prices stay."""

    def __init__(self, answer: RelaxedSolution) -> None:
        """Start from an answer: the running plans."""
        self._answer, self._problem = answer, answer.problem
        self._objective = DualObjective(1.0, answer.cost_counts)
        self._reduced_profits = ReducedProfits.at(self._problem, self._objective, answer.prices)
        self._moves_of_site: dict[int, Moves] = {}
        self.chosen = answer.chosen.copy()
        """(N,) plans of the queries of the initial answer."""
        self.usage = self._problem.usage_of(self.chosen)
        """(capacities,) usage of all running plans."""

    def admit(self, applicant: AdmissionRequest) -> Admitted | AdmissionRefused:
        """Admit a query if it fits, possibly by moving one running query."""
        problem, site = self._problem, applicant.site
        own = site * problem.local + np.arange(problem.local)
        resources = np.concatenate([own, problem.sites * problem.local + np.arange(problem.shared)])
        price = np.concatenate([self._answer.prices.local[site], self._answer.prices.shared])
        headroom = np.maximum(1.0 - self.usage[resources], 0.0)
        has_plan = np.isfinite(applicant.cost_usd_per_h)
        cost = np.where(has_plan, applicant.cost_usd_per_h, 0.0)
        gain = np.where(has_plan, applicant.weight - self._objective.cost * cost, -np.inf)
        amounts = applicant.amounts.astype(np.float64)
        fits = (amounts <= headroom).all(axis=1) & np.isfinite(gain)
        if fits.any():
            plan = int(np.where(fits, gain - amounts @ price, -np.inf).argmax())
            self.usage[resources] += amounts[plan]
            return Admitted(plan)
        plans = np.flatnonzero(np.isfinite(gain))
        admissions = Moves(np.full(len(plans), -1), plans, gain[plans], amounts[plans])
        pair = best_pair(
            admissions, self._yielding_moves(site), headroom, improvement_tolerance(self._problem, self._objective)
        )
        if pair is None:
            return _refusal(amounts, np.isfinite(gain), headroom, price)
        for moves, index in pair:
            self.usage[resources] += moves.change[index]
        moves, index = pair[-1]
        query, option = int(moves.query[index]), int(moves.plan[index])
        self.chosen[query] = option
        self._moves_of_site[site] = self._moves_of_site[site].without([query])
        return Admitted(int(admissions.plan[pair[0][1]]), ((query, option),))

    def leave(self, amounts: FloatArray, site: int) -> None:
        """Remove an admitted query; `amounts` (S,) of its plan. Queries of the initial answer stay."""
        problem = self._problem
        own = site * problem.local + np.arange(problem.local)
        self.usage[own] -= amounts[: problem.local]
        self.usage[problem.sites * problem.local :] -= amounts[problem.local :]

    def _yielding_moves(self, site: int) -> Moves:
        """Return the moves of running queries of a site with the least loss at the prices."""
        if site not in self._moves_of_site:
            starts = self._problem.site_starts
            queries = self._reduced_profits.nearest(
                self._problem, np.arange(starts[site], starts[site + 1]), _MAX_QUERIES
            )
            queries = queries[self.chosen[queries] >= 0]
            self._moves_of_site[site] = list_moves(
                self._problem, self._reduced_profits, self.chosen, self._objective, queries,
                max_gaining=0, max_yielding=_MAX_MOVES,
            )[1]  # fmt: skip
        return self._moves_of_site[site]


def _refusal(amounts: FloatArray, has_plan: BoolArray, headroom: FloatArray, price: FloatArray) -> AdmissionRefused:
    """Return the refusal for the plan with the least missing capacity, weighted by prices."""
    missing = np.maximum(amounts - headroom, 0.0)
    if not has_plan.any():
        return AdmissionRefused(-1, np.zeros(len(headroom)), price)
    missing_value = np.where(has_plan, missing @ (price + max(float(price.max(initial=0.0)), 1.0) * _UNPRICED), np.inf)
    plan = int(missing_value.argmin())
    return AdmissionRefused(plan, missing[plan], price)
