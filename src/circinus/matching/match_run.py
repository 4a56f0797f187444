"""Inputs of a matching and the answer to them, which passes hand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from circinus.arrays import IntArray
from circinus.estimation import ReplicaDemand
from circinus.matching.candidate_source import Candidates, CandidateSource
from circinus.matching.column_generation import add_columns
from circinus.matching.cuts import Cut
from circinus.matching.feasibility import FeasibleSolution
from circinus.matching.incumbent import Incumbent
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem, merged_demands
from circinus.matching.settings import MATCHING, MatchSettings
from circinus.matching.sizing import Reestimate
from circinus.matching.solvers.solver import Solver
from circinus.planning import Frontier
from circinus.specification import Deployment, Infrastructure, Query, Slos


@dataclass(frozen=True)
class MatchRun:
    """Inputs of a matching, which may be searched any number of times, each with other priorities."""

    frontiers: Mapping[str, Frontier]
    infrastructure: Infrastructure
    reestimate: Reestimate
    source: CandidateSource | None
    """None: the plans of frontiers are all."""
    solver: Solver
    settings: MatchSettings
    clock: Callable[[], float]
    incumbent: Incumbent | None
    deadline_s: float
    """End of the time limit, which the search and all passes share, on the clock."""
    observer: Observer
    """Receives the first answer to many queries, then those of the search and of each pass, with their names."""

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """All queries."""
        return tuple(frontier.query for frontier in self.frontiers.values())

    @cached_property
    def slos(self) -> tuple[Slos, ...]:
        """SLOs of each query."""
        return tuple(query.slos for query in self.queries)

    @property
    def search_limit_s(self) -> float:
        """Time limit of a search."""
        return MATCHING.search_time_share * self.settings.limit_s(len(self.frontiers))

    def deadline_of(self, share: float) -> float:
        """Return the end of a pass that takes a share of the remaining time, on the clock."""
        now_s = self.clock()
        return now_s + share * max(self.deadline_s - now_s, 0.0)

    @cached_property
    def shared_demands(self) -> Mapping[Deployment, ReplicaDemand]:
        """Maximum demand of a replica over all queries, so that queries served in isolation also fit together."""
        plans = (candidate for frontier in self.frontiers.values() for candidate in frontier.candidates)
        return merged_demands((use.deployment, use.demand) for plan in plans for use in plan.deployments)


@dataclass(frozen=True)
class Answer:
    """A feasible choice for the queries of a run, with its bounds."""

    run: MatchRun
    problem: Problem
    solution: FeasibleSolution
    solver_choice: IntArray
    """(Q,) last choice of the solver, before repairs."""
    cuts: tuple[Cut, ...]
    weight_bounds: tuple[float, ...]
    """Lexicographic upper bound on the weights by level of any answer; see `Solution`."""
    cost_bound_usd_per_h: float
    optimal: bool
    """True if both bounds are reached."""
    is_large: bool
    """True if there are too many queries to cut off infeasible choices individually."""
    weight_with_more_changes: float | None = None
    """Weight of a better answer that takes more changes of running plans than are allowed; None if there is none.

    It may be smaller than that of this answer, if the other serves more of a higher priority.
    """
    covers_all_plans: bool = False
    """True if the bounds hold for all plans, whether they are candidates or not."""
    covers_divided_requests: bool | None = None
    """Whether the bounds hold for matchings that divide requests among plans, too; None if none may be divided."""
    reference: Answer | None = None
    """The answer before it got plans for which no bounds hold, as they divide requests or fit the load; None if it has
    none."""
    is_on_levels: bool = False
    """True if the bounds are those of all plans, at any utilization and divided or not, and its weight has one."""
    is_revised: bool = False
    """True if a choice among all plans replaced one among the candidates."""

    @property
    def has_limited_changes(self) -> bool:
        """Whether the number of changes of running plans is limited."""
        return self.run.incumbent is not None and self.run.incumbent.max_changes is not None

    @property
    def chosen(self) -> IntArray:
        """(Q,) candidate of each query, -1 for none."""
        return self.solution.chosen

    @cached_property
    def served(self) -> frozenset[str]:
        """Names of the served queries."""
        return frozenset(self.problem.queries[query] for query, _ in self.problem.served(self.chosen))

    @cached_property
    def candidates(self) -> Candidates:
        """Candidates of each query."""
        problem = self.problem
        return {
            name: [problem.candidates[candidate] for candidate in problem.candidates_of(query)]
            for query, name in enumerate(problem.queries)
        }

    def problem_with(self, columns: Candidates) -> Problem:
        """Return the problem with further candidates behind those of each query."""
        return self.problem_of(add_columns(self.candidates, columns))

    def problem_of(self, candidates: Candidates) -> Problem:
        """Return the problem of other candidates."""
        run = self.run
        problem = build_problem(run.queries, candidates, run.infrastructure)
        problem = replace(problem, priority_levels=self.problem.priority_levels)
        return problem if run.incumbent is None else run.incumbent.mark(problem)

    def with_solution(self, solution: FeasibleSolution) -> Answer:
        """Return the answer with another choice of its candidates; nothing is proved about its cost."""
        return replace(self, solution=solution, optimal=False, cost_bound_usd_per_h=0.0)


Observer = Callable[[str, Answer], None]
"""Receives the name of a step, and its answer."""
