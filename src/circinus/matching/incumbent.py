"""Incumbent plans: a new matching keeps running plans unless a change pays, and limits the number of changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.arrays import IntArray
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import Candidates
from circinus.matching.column_generation import Promise
from circinus.matching.cuts import ChurnCut
from circinus.matching.plan_set import Matching
from circinus.matching.problem import IncumbentChoice, Problem
from circinus.specification import Deployment, Query, QueryPlan

_MIN_CHURN_USD_PER_H = 1e-6
"""Minimum churn price, so that a change without any saving never wins."""


@dataclass(frozen=True)
class Incumbent:
    """Running plans of an earlier matching, and the price of changing them.

    Raises:
        PlanningError: the churn price is negative or not finite, or `max_changes` is negative.
    """

    plans: Mapping[str, QueryPlan]
    """Query name -> plan."""
    churn_price_usd_per_h: float = 0.0
    """Minimum saving that justifies changing or stopping a running query's plan. Weight comes first."""
    max_changes: int | None = None
    """Maximum number of queries that lose their plan although it could stay, or None for no limit."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.churn_price_usd_per_h) and self.churn_price_usd_per_h >= 0):
            raise PlanningError(
                f"churn price must be finite and at least 0, got {self.churn_price_usd_per_h}",
                code="planning.invalid_churn_price",
            )
        if self.max_changes is not None and self.max_changes < 0:
            raise PlanningError(
                f"max changes must be at least 0 (or absent), got {self.max_changes}",
                code="planning.invalid_max_changes",
            )

    @classmethod
    def of(cls, matching: Matching, *, change_usd_per_h: float = 0.0, max_changes: int | None = None) -> Incumbent:
        """Return the plans of a matching as an incumbent."""
        plans = {assignment.query: assignment.chosen.plan for assignment in matching.assignments}
        return cls(plans, change_usd_per_h, max_changes)

    @property
    def change_usd_per_h(self) -> float:
        """Price of a change, which is never free: so a change without any saving never wins."""
        return max(self.churn_price_usd_per_h, _MIN_CHURN_USD_PER_H)

    def deployments_of(self, queries: Sequence[Query]) -> list[Deployment]:
        """Return the distinct deployments of the queries' running plans."""
        plans = [self.plans[query.name] for query in queries if query.name in self.plans]
        return list(dict.fromkeys(deployment for plan in plans for deployment in plan.deployments))

    def is_kept_by(self, problem: Problem, chosen: IntArray) -> bool:
        """Return whether a choice (Q,) changes or stops no running plan."""
        plans = {
            problem.queries[query]: problem.candidates[candidate].plan for query, candidate in problem.served(chosen)
        }
        return all(plans.get(name) == self.plans[name] for name in problem.queries if name in self.plans)

    def unlisted_plans(
        self, candidates: Candidates, queries: Sequence[Query], estimate: Promise
    ) -> dict[str, list[PlanCandidate]]:
        """Return the running plans that may meet the SLOs but are not among the candidates, by query name.

        Args:
            candidates: by query name.
            queries: to be matched.
            estimate: returns the estimate of a query's running plan, or None if it may not stay.
        """
        unlisted = {}
        for query in queries:
            plan = self.plans.get(query.name)
            if plan is not None and all(candidate.plan != plan for candidate in candidates[query.name]):
                candidate = estimate(query, plan)
                unlisted[query.name] = [] if candidate is None else [candidate]
        return unlisted

    def mark(self, problem: Problem) -> Problem:
        """Return the problem with the running candidates marked."""
        return replace(problem, incumbent=IncumbentChoice(problem.choice_of(self.plans), self.change_usd_per_h))

    def churn_cuts(self, retained: IntArray) -> list[ChurnCut]:
        """Return the limit on changes of the candidates with which queries (Q,) may stay, if there is one."""
        return [] if self.max_changes is None else [ChurnCut(retained, self.max_changes)]
