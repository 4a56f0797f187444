"""What runs when all are matched again: plans that stay where nothing is gained by another, and few changes."""

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

_LEAST_CHANGE_USD_PER_H = 1e-6
"""What a change of plan counts at least: who saves less by it saves nothing."""


@dataclass(frozen=True)
class Incumbent:
    """The plans of an earlier matching, and what it takes to change them.

    Raises:
        PlanningError: a price that is negative or not finite, or a bound below 0.
    """

    plans: Mapping[str, QueryPlan]
    """By the name of the query."""
    churn_price_usd_per_h: float = 0.0
    """The churn price: what another plan for a query that runs, or none, must save at least. Weight comes first."""
    max_changes: int | None = None
    """Of the queries that could all stay as they are, how many may get another plan or none."""

    def __post_init__(self) -> None:
        """Refuse numbers without meaning."""
        if not (math.isfinite(self.churn_price_usd_per_h) and self.churn_price_usd_per_h >= 0):
            raise PlanningError(
                f"price of a change: found {self.churn_price_usd_per_h}, expected a finite number of at least 0"
            )
        if self.max_changes is not None and self.max_changes < 0:
            raise PlanningError(f"most changes: found {self.max_changes}, expected at least 0, or no bound at all")

    @classmethod
    def of(cls, matching: Matching, *, change_usd_per_h: float = 0.0, most_changes: int | None = None) -> Incumbent:
        """What a matching serves."""
        plans = {assignment.query: assignment.chosen.plan for assignment in matching.assignments}
        return cls(plans, change_usd_per_h, most_changes)

    def add_candidates(self, candidates: Candidates, queries: Sequence[Query], compose: Compose | None) -> Candidates:
        """The candidates, and after them plans that run and promise as much, but were not among them.

        Args:
            candidates: by query name.
            queries: what is matched.
            compose: how a query is planned on given deployments; None: no plan is added.
        """
        if compose is None:
            return candidates
        found = dict(candidates)
        for query in queries:
            plan = self.plans.get(query.name)
            if plan is None or any(candidate.plan == plan for candidate in candidates[query.name]):
                continue
            composed = compose(query, [plan.deployment_of(operator) for operator, _ in plan.placement])
            found[query.name] = (*candidates[query.name], *(c for c in composed if c.plan == plan))
        return found

    def mark(self, problem: Problem) -> Problem:
        """The problem in which it is known what runs."""
        chosen = np.full(len(problem.queries), -1, dtype=np.int64)
        for number, name in enumerate(problem.queries):
            plan = self.plans.get(name)
            for candidate in problem.candidates_of(number) if plan is not None else ():
                if problem.candidates[candidate].plan == plan:
                    chosen[number] = candidate
        return replace(
            problem, incumbent=IncumbentChoice(chosen, max(self.churn_price_usd_per_h, _LEAST_CHANGE_USD_PER_H))
        )

    def warm_start(self, state: MatchState) -> tuple[MatchState, RepairedSolution]:
        """A state that begins from what runs and keeps the bound on changes, and what of it can stay together."""
        assert state.problem.incumbent is not None
        chosen = state.problem.incumbent.chosen
        held = repair(state.problem, chosen, state.slos, state.reestimate, aggregate_cuts=state.is_large)
        cuts = state.cuts if self.max_changes is None else (*state.cuts, ChurnCut(held.chosen, self.max_changes))
        return replace(state, feasible_incumbent=held.chosen, cuts=cuts), held


def keep_incumbent_if_better(state: MatchState, held: RepairedSolution) -> MatchState:
    """The state, or what ran as it was where that is better, or where too much changed."""
    assert state.usage is not None
    problem, chosen, usage = state.problem, assignment_of(state), state.usage
    few = all(cut.is_satisfied(problem, chosen, usage) for cut in state.cuts if isinstance(cut, ChurnCut))
    if few and objective_key(problem, chosen) >= objective_key(problem, held.chosen):
        return state
    return state.with_held(held)
