"""Incumbent plans: a new matching keeps running plans unless a change pays, and limits the number of changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.column_generation import Candidates, Compose
from circinus.matching.cuts import ChurnCut
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.plan_set import Matching
from circinus.matching.problem import IncumbentChoice, Problem
from circinus.matching.repair import RepairedSolution, repair
from circinus.matching.solvers.greedy import objective_key
from circinus.specification import Query, QueryPlan

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

    def add_candidates(self, candidates: Candidates, queries: Sequence[Query], compose: Compose | None) -> Candidates:
        """Return the candidates, extended by running plans that meet the SLOs but were not among them.

        Args:
            candidates: by query name.
            queries: to be matched.
            compose: returns the plans of a query on given deployments; None: no plan is added.
        """
        if compose is None:
            return candidates
        extended = dict(candidates)
        for query in queries:
            plan = self.plans.get(query.name)
            if plan is None or any(candidate.plan == plan for candidate in candidates[query.name]):
                continue
            composed = compose(query, [plan.deployment_of(operator) for operator, _ in plan.placement])
            extended[query.name] = (*candidates[query.name], *(c for c in composed if c.plan == plan))
        return extended

    def mark(self, problem: Problem) -> Problem:
        """Return the problem with the running candidates marked."""
        chosen = np.full(len(problem.queries), -1, dtype=np.int64)
        for index, name in enumerate(problem.queries):
            plan = self.plans.get(name)
            for candidate in problem.candidates_of(index) if plan is not None else ():
                if problem.candidates[candidate].plan == plan:
                    chosen[index] = candidate
        return replace(
            problem, incumbent=IncumbentChoice(chosen, max(self.churn_price_usd_per_h, _MIN_CHURN_USD_PER_H))
        )

    def warm_start(self, state: MatchState) -> tuple[MatchState, RepairedSolution]:
        """Return a state that starts from the incumbent and limits changes, and the feasible part of the incumbent."""
        assert state.problem.incumbent is not None
        chosen = state.problem.incumbent.chosen
        repaired = repair(state.problem, chosen, state.slos, state.reestimate, aggregate_cuts=state.is_large)
        cuts = state.cuts if self.max_changes is None else (*state.cuts, ChurnCut(repaired.chosen, self.max_changes))
        return replace(state, feasible_incumbent=repaired.chosen, cuts=cuts), repaired


def keep_incumbent_if_better(state: MatchState, incumbent: RepairedSolution) -> MatchState:
    """Return the state, or the incumbent if it is better or the state changes too many plans."""
    assert state.usage is not None
    problem, chosen, usage = state.problem, assignment_of(state), state.usage
    within_max_changes = all(
        cut.is_satisfied(problem, chosen, usage) for cut in state.cuts if isinstance(cut, ChurnCut)
    )
    if within_max_changes and objective_key(problem, chosen) >= objective_key(problem, incumbent.chosen):
        return state
    return state.with_repaired(incumbent)
