"""One more query beside those that run: answered alone, at the prices there are, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.local_search import ChurnTerms, Moves, best_pair, improvement_tolerance, list_moves
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxed_problem import Amounts
from circinus.matching.lagrangian.solve import RelaxedSolution

_NEAREST, _YIELDING = 4_000, 1_024
"""Queries of a site that may make room, and their moves that are kept at hand."""
_UNPRICED = 1e-3
"""What a resource without a price counts, as a share of the dearest: the least of what lacks is looked for."""


@dataclass(frozen=True, eq=False)
class AdmissionRequest:
    """A query that asks to be served."""

    weight: float
    cost_usd_per_h: FloatArray
    """(P,) infinite where there is no plan."""
    amounts: Amounts
    """(P, S) shares of the capacities."""
    site: int


@dataclass(frozen=True)
class Admitted:
    """It is served from now on."""

    plan: int
    moved: tuple[tuple[int, int], ...] = ()
    """(running query, its new plan or -1) that made room."""


@dataclass(frozen=True, eq=False)
class AdmissionRefused:
    """None of its plans fits beside the others."""

    plan: int
    """The one that lacks least, weighed by prices; -1: it has none."""
    lacking: FloatArray
    """(S,) shares of capacities that it lacks."""
    price: FloatArray
    """(S,) of whole capacities, in units of weight."""

    @property
    def binding(self) -> IntArray:
        """Slots that lack anything, that which costs most to widen first."""
        order = np.argsort(-self.lacking * self.price, kind="stable")
        return np.asarray(order[self.lacking[order] > 0], dtype=np.int64)


class OnlineAdmission:
    """Lets queries in one by one; what they take is kept in mind, prices stay as they are."""

    def __init__(self, answer: RelaxedSolution, *, churn: float = 0.0) -> None:
        """Begin with a whole answer.

        Args:
            answer: what runs.
            churn: weight that must be gained for a running query that gets another plan, or none.
        """
        self._answer, self._members = answer, answer.members
        self._objective = DualObjective(1.0, answer.cost_counts)
        self._regrets = ReducedProfits.at(self._members.problem, self._objective, answer.prices)
        self._running = ChurnTerms(answer.chosen, churn)
        self._yielding: dict[int, Moves] = {}
        self.chosen = answer.chosen.copy()
        """(N,) of the queries that ran at the beginning."""
        self.usage = self._members.usage(self.chosen)
        """(capacities,) of all that runs."""

    def admit(self, applicant: AdmissionRequest) -> Admitted | AdmissionRefused:
        """Let a query in, if there is room or can be made; what runs is changed accordingly.

        Raises:
            PlanningError: numbers without meaning.
        """
        self._check(applicant)
        problem, site = self._members.problem, applicant.site
        own = site * problem.local + np.arange(problem.local)
        resources = np.concatenate([own, problem.sites * problem.local + np.arange(problem.shared)])
        price = np.concatenate([self._answer.prices.local[site], self._answer.prices.shared])
        room = np.maximum(1.0 - self.usage[resources], 0.0)
        listed = np.isfinite(applicant.cost_usd_per_h)
        cost = np.where(listed, applicant.cost_usd_per_h, 0.0)
        gain = np.where(listed, applicant.weight - self._objective.cost * cost, -np.inf)
        amounts = applicant.amounts.astype(np.float64)
        fits = (amounts <= room).all(axis=1) & np.isfinite(gain)
        if fits.any():
            plan = int(np.where(fits, gain - amounts @ price, -np.inf).argmax())
            self.usage[resources] += amounts[plan]
            return Admitted(plan)
        plans = np.flatnonzero(np.isfinite(gain))
        coming = Moves(np.full(len(plans), -1), plans, gain[plans], amounts[plans])
        pair = best_pair(coming, self._making_room(site), room, improvement_tolerance(self._members, self._objective))
        if pair is None:
            return _refused(amounts, np.isfinite(gain), room, price)
        for moves, one in pair:
            self.usage[resources] += moves.change[one]
        moves, one = pair[-1]
        query, option = int(moves.query[one]), int(moves.plan[one])
        self.chosen[query] = option
        self._yielding[site] = self._yielding[site].without([query])
        return Admitted(int(coming.plan[pair[0][1]]), ((query, option),))

    def leave(self, amounts: FloatArray, site: int) -> None:
        """A query that was let in leaves; `amounts` (S,) of its plan. Those that ran at the beginning stay."""
        problem = self._members.problem
        own = site * problem.local + np.arange(problem.local)
        self.usage[own] -= amounts[: problem.local]
        self.usage[problem.sites * problem.local :] -= amounts[problem.local :]

    def _making_room(self, site: int) -> Moves:
        """Moves of running queries of a site, those that lose least at the prices."""
        if site not in self._yielding:
            starts = self._members.site_starts
            queries = self._regrets.nearest(self._members, np.arange(starts[site], starts[site + 1]), _NEAREST)
            queries = queries[self.chosen[queries] >= 0]
            self._yielding[site] = list_moves(
                self._members, self._regrets, self.chosen, self._objective, queries,
                max_gaining=0, max_yielding=_YIELDING, running=self._running,
            )[1]  # fmt: skip
        return self._yielding[site]

    def _check(self, applicant: AdmissionRequest) -> None:
        problem = self._members.problem
        if not (np.isfinite(applicant.weight) and applicant.weight > 0):
            raise PlanningError(f"query: found weight {applicant.weight:g}, expected a finite number above 0")
        if not 0 <= applicant.site < problem.sites:
            raise PlanningError(f"query: found site {applicant.site}, expected one from 0 to {problem.sites - 1}")
        expected = (len(applicant.cost_usd_per_h), problem.amounts.shape[2])
        if applicant.amounts.shape != expected:
            raise PlanningError(f"query: found amounts of the shape {applicant.amounts.shape}, expected {expected}")
        if not (
            np.all(applicant.cost_usd_per_h >= 0) and np.all((applicant.amounts >= 0) & (applicant.amounts < np.inf))
        ):
            raise PlanningError("query: found a cost or demand that is negative or no number, expected at least 0")


def _refused(amounts: FloatArray, listed: BoolArray, room: FloatArray, price: FloatArray) -> AdmissionRefused:
    """For the plan that lacks least, weighed by prices."""
    lacking = np.maximum(amounts - room, 0.0)
    if not listed.any():
        return AdmissionRefused(-1, np.zeros(len(room)), price)
    dearest = np.where(listed, lacking @ (price + max(float(price.max(initial=0.0)), 1.0) * _UNPRICED), np.inf)
    plan = int(dearest.argmin())
    return AdmissionRefused(plan, lacking[plan], price)
